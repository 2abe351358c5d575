"""How requests prove who we are: certificates, and tokens that rotate on disk."""

import base64
import binascii
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from msgspec import Struct

from prewarm.cluster.errors import ConfigurationError

TOKEN_LIFETIME_SECONDS = 60.0
"""How long a token read from a file is used before the file is read again, as client-go does for bound tokens."""


class FileOrData(Struct, frozen=True):
    """A PEM given by path or inline (base64), as kubeconfig allows both; inline wins."""

    path: Path | None = None
    data: str = ""

    def read(self, what: str) -> bytes:
        """The bytes.

        Raises:
            ConfigurationError: if the file cannot be read or the text is not base64.
        """
        try:
            if self.data:
                return base64.b64decode(self.data, validate=True)
            return self.path.read_bytes() if self.path else b""
        except OSError as error:
            raise ConfigurationError(f"{what} {self.path} cannot be read: {error.strerror}") from None
        except binascii.Error:
            raise ConfigurationError(f"{what} given inline is not base64") from None

    def __bool__(self) -> bool:
        return bool(self.data or self.path)


class TlsFiles(Struct, frozen=True):
    """What TLS needs: the server's authority and, optionally, our own certificate."""

    authority: FileOrData = FileOrData()
    certificate: FileOrData = FileOrData()
    key: FileOrData = FileOrData()
    skip_verify: bool = False


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A client context; reading certificates again is making a new one.

    Raises:
        ConfigurationError: if a certificate or key is unreadable, malformed or does not match.
    """
    context = ssl.create_default_context()
    if files.authority:
        text = files.authority.read("certificate authority").decode("ascii", "replace")
        try:
            context = ssl.create_default_context(cadata=text)
        except ssl.SSLError as error:
            raise ConfigurationError(f"certificate authority is not a PEM certificate: {error.reason}") from None
    if files.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate:
        _load_certificate(context, files)
    return context


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """The ssl module loads certificates from files only; inline ones pass through a private folder."""
    with TemporaryDirectory(prefix="prewarm-") as folder:
        certificate, key = Path(folder, "certificate"), Path(folder, "key")
        for path, source, what in (
            (certificate, files.certificate, "client certificate"),
            (key, files.key, "client key"),
        ):
            path.touch(mode=0o600)
            path.write_bytes(source.read(what))
        try:
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise ConfigurationError(f"client certificate and key do not load: {error.reason}") from None


class TokenSource(Protocol):
    """Gives the value of the Authorization header."""

    async def authorization(self) -> str:
        """The header's value; "" if none is to be sent."""

    async def renew(self) -> None:
        """Forget what is cached: the server refused it."""


class FixedAuthorization:
    """A header that never changes: a static token, or none."""

    def __init__(self, value: str = "") -> None:
        self._value = value

    async def authorization(self) -> str:
        """The header's value."""
        return self._value

    async def renew(self) -> None:
        """Nothing to renew."""


class TokenFile:
    """A token that the kubelet or a sidecar rewrites in place."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._token = ""
        self._read_at = float("-inf")

    async def authorization(self) -> str:
        """The newest token; a file that is unreadable for a moment leaves the last one in use."""
        if self._clock() - self._read_at >= TOKEN_LIFETIME_SECONDS:
            try:
                self._token = self._path.read_text(encoding="utf-8").strip()
                self._read_at = self._clock()
            except OSError as error:
                if not self._token:
                    raise ConfigurationError(f"token file {self._path} cannot be read: {error.strerror}") from None
        return f"Bearer {self._token}"

    async def renew(self) -> None:
        """Read the file at the next request."""
        self._read_at = float("-inf")
