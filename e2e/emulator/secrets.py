"""Pull secrets as the emulated registries understand them: which user and password for which host."""

import base64
import binascii
from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from e2e.emulator.watching import Metadata
from prewarm.simulation.specs import PullSecret

_KEY = ".dockerconfigjson"


class ObservedSecret(Struct):
    """A secret of type kubernetes.io/dockerconfigjson."""

    metadata: Metadata
    data: Mapping[str, str] | None = None


class _Login(Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class _DockerConfig(Struct):
    auths: dict[str, _Login] = field(default_factory=dict)


def pull_secret(secret: ObservedSecret) -> PullSecret | None:
    """The credentials in it as `user:password` by host; None if it holds no docker configuration."""
    try:
        config = msgspec.json.decode(base64.b64decode((secret.data or {}).get(_KEY, "")), type=_DockerConfig)
        credentials = {_host(server): _text(login) for server, login in config.auths.items()}
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError):
        return None
    return PullSecret(secret.metadata.namespace, secret.metadata.name, credentials)


def _host(server: str) -> str:
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _text(login: _Login) -> str:
    return base64.b64decode(login.auth).decode() if login.auth else f"{login.username}:{login.password}"
