"""The gate's admission policies as the chart has them, with the lease of a test's own controller."""

import json
import time
from collections.abc import Mapping

import yaml

from e2e.cluster.selection import Cluster
from e2e.manifests import PROJECT

FILES = PROJECT / "charts/prewarm/files/gate"
_SECONDS = 30.0


def install(cluster: Cluster, namespace: str) -> None:
    """Apply the policies that hold, bound to the lease in a namespace, and wait until they are enforced."""
    for path in sorted(FILES.glob("*.yaml")):
        policy = yaml.safe_load(path.read_text(encoding="utf-8"))
        if policy["kind"] != "MutatingAdmissionPolicy":
            continue
        binding = {
            "apiVersion": policy["apiVersion"],
            "kind": f"{policy['kind']}Binding",
            "metadata": {"name": policy["metadata"]["name"]},
            "spec": {
                "policyName": policy["metadata"]["name"],
                "paramRef": {"name": "prewarm", "namespace": namespace, "parameterNotFoundAction": "Allow"},
            },
        }
        # The test's policies see the test's namespace alone.
        policy["spec"]["matchConstraints"]["namespaceSelector"] = {
            "matchLabels": {"kubernetes.io/metadata.name": namespace}
        }
        for manifest in (policy, binding):
            cluster.kubectl("apply", "-f", "-", manifest=json.dumps(manifest))


def remove(cluster: Cluster) -> None:
    """Take the policies away."""
    for path in FILES.glob("*.yaml"):
        policy = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = policy["metadata"]["name"]
        kinds = ",".join((policy["kind"].lower(), f"{policy['kind'].lower()}binding"))
        cluster.kubectl("delete", kinds, name, "--ignore-not-found")


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
        if ("prewarm.dev/gate-held" in found["metadata"].get("annotations", {})) == held:
            return
        time.sleep(0.2)
    raise TimeoutError(f"a change of {manifest.get('kind')} in {namespace} is {'not ' if held else ''}held")
