"""Where the API server is and how to talk to it: kubeconfig files, and a pod's service account."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

from prewarm.cluster.credentials import (
    FileOrData,
    FixedAuthorization,
    TlsFiles,
    TokenFile,
    TokenSource,
    tls_context,
)
from prewarm.cluster.errors import ConfigurationError
from prewarm.cluster.kubeconfig import read_target
from prewarm.cluster.plugins import LibraryCredentials

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's token, authority and namespace."""


class Connection:
    """An API server's address and our credentials for it; both may change while we run.

    Attributes:
        server: base URL without a slash at the end.
        namespace: of the context or of our own pod.
        context: name of the kubeconfig's context, "in-cluster", or "" where the server was given directly.
        proxy: URL of an HTTP proxy, or None.
        server_name: name to expect in the server's certificate, or None for the host in `server`.
    """

    def __init__(
        self,
        server: str,
        *,
        tls: Callable[[], TlsFiles] = TlsFiles,
        tokens: TokenSource | None = None,
        namespace: str = "default",
        context: str = "",
        proxy: str = "",
        server_name: str = "",
    ) -> None:
        self.server = server.rstrip("/")
        self.namespace = namespace
        self.context = context
        self.proxy = proxy or None
        self.server_name = server_name or None
        self._tls = tls
        self._tokens = tokens or FixedAuthorization()
        self._ssl: ssl.SSLContext | None = None

    @classmethod
    def load(cls, kubeconfig: Path | None = None, context: str | None = None) -> "Connection":
        """Connect as kubectl would: the file given, $KUBECONFIG, ~/.kube/config, or the pod's service account.

        Raises:
            ConfigurationError: if none is there or the one there is malformed.
        """
        if kubeconfig is not None:
            return cls._from_files([kubeconfig], context)
        files = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
        default = Path.home() / ".kube" / "config"
        if files or (context is not None) or default.exists():
            return cls._from_files(files or [default], context)
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            return cls.in_cluster()
        raise ConfigurationError(
            f"no cluster to talk to: give --kubeconfig, set KUBECONFIG, or write {default} (as kubectl needs it)"
        )

    @classmethod
    def in_cluster(cls, folder: Path = SERVICE_ACCOUNT) -> "Connection":
        """Connect with the service account of the pod that we run in.

        Raises:
            ConfigurationError: if we do not run in a pod, or its token is not mounted.
        """
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ConfigurationError("KUBERNETES_SERVICE_HOST is not set: this is no pod of a cluster")
        if not (folder / "token").exists():
            raise ConfigurationError(f"{folder / 'token'} is missing: the pod needs automountServiceAccountToken")
        namespace_file = folder / "namespace"
        return cls(
            f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            tls=lambda: TlsFiles(authority=FileOrData(folder / "ca.crt")),
            tokens=TokenFile(folder / "token"),
            namespace=namespace_file.read_text(encoding="utf-8").strip() if namespace_file.exists() else "default",
            context="in-cluster",
        )

    @classmethod
    def _from_files(cls, files: list[Path], context: str | None) -> "Connection":
        files = [file.expanduser() for file in files]
        existing = [file for file in files if file.exists()]
        if not existing:
            raise ConfigurationError(f"kubeconfig {files[0]} does not exist")
        if len(existing) > 1:
            return cls._through_library(existing, context)
        target = read_target(existing[0], context)
        if target.needs_library:
            return cls._through_library(existing, context)
        return cls(
            target.server,
            tls=lambda: target.tls,
            tokens=target.token_source(existing[0].parent),
            namespace=target.namespace,
            context=target.context,
            proxy=target.proxy,
            server_name=target.server_name,
        )

    @classmethod
    def _through_library(cls, files: list[Path], context: str | None) -> "Connection":
        credentials = LibraryCredentials(files, context)
        name, namespace = credentials.context_and_namespace()
        return cls(
            credentials.server,
            tls=credentials.tls,
            tokens=credentials,
            namespace=namespace,
            context=name,
            proxy=credentials.proxy,
            server_name=credentials.server_name,
        )

    @property
    def ssl(self) -> ssl.SSLContext | None:
        """The TLS context for requests; None for plain HTTP.

        Raises:
            ConfigurationError: if certificates cannot be loaded.
        """
        if not self.server.startswith("https:"):
            return None
        if self._ssl is None:
            self._ssl = tls_context(self._tls())
        return self._ssl

    async def authorization(self) -> str:
        """The Authorization header, "" if none; rotating tokens are read again."""
        return await self._tokens.authorization()

    async def reload(self) -> None:
        """Read tokens and certificates again: the server refused those we had."""
        await self._tokens.renew()
        self._ssl = None
