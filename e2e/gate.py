"""The gate's admission policies as the chart has them, with the lease of a test's own controller."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from e2e.cluster.selection import Cluster
from e2e.manifests import PROJECT

FILES = PROJECT / "charts/prewarm/files/gate"
HELD = "prewarm.dev/gate-held"
ASKED = {"prewarm.dev/gate": "5m"}
HOLDING_PARTITION = 2147483647
"""What a StatefulSet's partition is while it is held."""
_SECONDS = 30.0


def install(cluster: Cluster, namespace: str) -> None:
    """Apply the policies that hold, bound to the lease in a namespace of its own, for all namespaces."""
    own = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    cluster.kubectl("apply", "-f", "-", manifest=json.dumps(own))
    for policy in _policies():
        binding = {
            "apiVersion": policy["apiVersion"],
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": _name(policy)},
            "spec": {
                "policyName": _name(policy),
                "paramRef": {"name": "prewarm", "namespace": namespace, "parameterNotFoundAction": "Allow"},
            },
        }
        for manifest in (policy, binding):
            cluster.kubectl("apply", "-f", "-", manifest=json.dumps(manifest))


def write_lease(cluster: Cluster, namespace: str, gated: str = "") -> None:
    """Play a controller that is alive for an hour, and opens nothing: what is held stays so, to be looked at.

    `gated` lists the workloads that policies gate.
    """
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "prewarm", "namespace": namespace, "annotations": {"prewarm.dev/gated": gated}},
        "spec": {
            "holderIdentity": "test",
            "leaseDurationSeconds": 3600,
            "renewTime": datetime.now(UTC).isoformat(timespec="microseconds"),
        },
    }
    cluster.kubectl("apply", "-f", "-", manifest=json.dumps(lease))


def without_hold(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a change made of a workload but for what the gate writes, and for what every change counts up."""
    copy: dict[str, Any] = json.loads(json.dumps(found))
    metadata, spec = copy["metadata"], copy["spec"]
    for name in (HELD, *ASKED):
        metadata.get("annotations", {}).pop(name, None)
    for name in ("managedFields", "resourceVersion", "generation", "annotations"):
        if not metadata.get(name) or name != "annotations":
            metadata.pop(name, None)
    copy.pop("status", None)
    spec.pop("paused", None)
    strategy = spec.get("updateStrategy", {})
    if set(strategy.get("rollingUpdate", {})) <= {"partition"}:
        strategy.pop("rollingUpdate", None)
    strategy.get("rollingUpdate", {}).pop("partition", None)
    return copy


def remove(cluster: Cluster, namespace: str) -> None:
    """Take the policies away."""
    for policy in _policies():
        for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
            cluster.kubectl("delete", kind, _name(policy), "--ignore-not-found")
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def _policies() -> list[dict[str, Any]]:
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FILES.glob("*.yaml"))]
    return [policy for policy in found if policy["kind"] == "MutatingAdmissionPolicy"]


def _name(policy: Mapping[str, Any]) -> str:
    return str(policy["metadata"]["name"])


def await_enforced(cluster: Cluster, namespace: str, manifest: Mapping[str, object]) -> None:
    """Return once a change to the manifest's image would be held: a policy is taken up from a watch.

    Raises:
        TimeoutError: if it never is.
    """
    _await(cluster, namespace, manifest, held=True)


def await_not_held(cluster: Cluster, namespace: str, manifest: Mapping[str, object]) -> None:
    """Return once a change to the manifest's image would not be held any more.

    Raises:
        TimeoutError: if it always is.
    """
    _await(cluster, namespace, manifest, held=False)


def _await(cluster: Cluster, namespace: str, manifest: Mapping[str, object], *, held: bool) -> None:
    until = time.monotonic() + _SECONDS
    options = ("apply", "--dry-run=server", "-n", namespace, "-f", "-", "-o", "json")
    while time.monotonic() < until:
        found = json.loads(cluster.kubectl(*options, manifest=json.dumps(manifest)))
        if (HELD in found["metadata"].get("annotations", {})) == held:
            return
        time.sleep(0.2)
    raise TimeoutError(f"a change of {manifest.get('kind')} in {namespace} is {'not ' if held else ''}held")
