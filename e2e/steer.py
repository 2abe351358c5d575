"""The steering policy as the chart has it, with the entries of a test's own controller."""

import json
import time
from collections.abc import Mapping
from typing import Any

import yaml

from e2e.cluster.selection import Cluster
from e2e.manifests import PROJECT

ENTRIES = "prewarm-steer"
"""ConfigMap of what is steered."""
POLICY = "test-steer-pods"
"""Its name, beside that of a chart."""
_FILE = PROJECT / "charts/prewarm/files/steer/pods.yaml"
_SECONDS = 30.0


def install(cluster: Cluster, namespace: str) -> None:
    """Apply the policy, bound to the entries in a namespace of its own.

    Raises:
        TimeoutError: if it is not taken up.
    """
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    cluster.kubectl("apply", "-f", "-", manifest=json.dumps(space))
    write_entries(cluster, namespace, PROBE)
    policy = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    policy["metadata"]["name"] = POLICY
    binding = {
        "apiVersion": policy["apiVersion"],
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY},
        "spec": {
            "policyName": POLICY,
            "paramRef": {"name": ENTRIES, "namespace": namespace, "parameterNotFoundAction": "Allow"},
        },
    }
    for manifest in (policy, binding):
        cluster.kubectl("apply", "-f", "-", manifest=json.dumps(manifest))
    until = time.monotonic() + _SECONDS
    while not preferences(created(cluster, "default", pod("Probe", "steer"))[0]):
        if time.monotonic() > until:
            raise TimeoutError("the API server does not apply the policy that steers pods")
        time.sleep(0.2)


def remove(cluster: Cluster, namespace: str) -> None:
    """Take the policy away."""
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        cluster.kubectl("delete", kind, POLICY, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def entry(label: str, value: str, until: str = "2099-01-01T00:00:00Z") -> str:
    """What the controller writes for one workload."""
    return f"{label} {value} {until}"


PROBE = {"probe.default.steer": entry("steer.prewarm.dev/0000000000000000", "probe")}
"""By which the policy is known to be in force."""


def write_entries(cluster: Cluster, namespace: str, entries: Mapping[str, str]) -> None:
    """Say what is steered, in place of a controller."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ENTRIES, "namespace": namespace},
        "data": dict(entries),
    }
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", manifest=json.dumps(manifest))


def pod(
    owner: str,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    api_version: str = "apps/v1",
    spec: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """A pod that a controller would create."""
    reference = {"apiVersion": api_version, "kind": owner, "name": name, "uid": "1-2-3", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": f"{name}-", "labels": dict(labels or {}), "ownerReferences": [reference]},
        "spec": {"containers": [{"name": "app", "image": "registry.test/app:v1"}], **(spec or {})},
    }


def created(cluster: Cluster, namespace: str, *manifests: Mapping[str, object]) -> list[dict[str, Any]]:
    """Pods as the API server would store them, in one call."""
    options = ("create", "--dry-run=server", "-n", namespace, "-f", "-", "-o", "json")
    given = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    text = cluster.kubectl(*options, manifest=json.dumps(given)).strip()
    found: list[dict[str, Any]] = []
    while text:
        # One object after the other, no list.
        stored, end = json.JSONDecoder().raw_decode(text)
        found.append(stored)
        text = text[end:].lstrip()
    assert len(found) == len(manifests)
    return found


def preferences(found: Mapping[str, Any]) -> list[Any]:
    """Preferred terms of node affinity."""
    affinity = found["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    assert isinstance(terms, list)
    return terms
