"""Writes kubeconfig files: one cluster, one user, one context, everything inline."""

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.cluster.certificates import KeyPair


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a control plane answers, and the authority (PEM) that signed its certificate."""

    server: str
    authority: bytes


def write_kubeconfig(path: Path, endpoint: Endpoint, credentials: KeyPair | str, context: str) -> Path:
    """Write a kubeconfig, readable by the owner only, for a client certificate or a bearer token."""
    user = (
        {"token": credentials}
        if isinstance(credentials, str)
        else {
            "client-certificate-data": _base64(credentials.certificate),
            "client-key-data": _base64(credentials.key),
        }
    )
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": endpoint.server,
                    "certificate-authority-data": _base64(endpoint.authority),
                },
            }
        ],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
