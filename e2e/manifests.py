"""Manifests and kubectl's JSON for the tests: written as YAML, read narrowly."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from e2e.cluster.selection import Cluster

PROJECT = Path(__file__).resolve().parents[1]
FIELD_MANAGER = "--field-manager=prewarm"


def documents(text: str) -> list[Mapping[str, object]]:
    """The objects of a YAML stream, empty documents left out."""
    return [document for document in yaml.safe_load_all(text) if document]


def in_namespace(manifest: Mapping[str, object], namespace: str) -> Mapping[str, object]:
    """The manifest with its namespace set."""
    metadata = manifest["metadata"]
    assert isinstance(metadata, Mapping)
    return {**manifest, "metadata": {**metadata, "namespace": namespace}}


def server_side_apply(cluster: Cluster, *manifests: Mapping[str, object], options: Iterable[str] = ()) -> None:
    """Apply as the controller does: server side, under its field manager, forced, unknown fields refused."""
    cluster.kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        FIELD_MANAGER,
        "--validate=strict",
        *options,
        "-f",
        "-",
        manifest="---\n".join(yaml.safe_dump(manifest, sort_keys=False) for manifest in manifests),
    )


def get(cluster: Cluster, *what: str) -> dict[str, object]:
    """One object (or List) as JSON."""
    found: object = json.loads(cluster.kubectl("get", *what, "-o", "json"))
    assert isinstance(found, dict)
    return found


def install_definitions(cluster: Cluster) -> None:
    """The CustomResourceDefinitions of `crds/`, served."""
    cluster.kubectl("apply", "--server-side", FIELD_MANAGER, "-f", str(PROJECT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(PROJECT / "crds"))
