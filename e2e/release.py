"""The chart installed for tests, and requests in other people's names."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2e import definitions
from e2e.cluster.selection import Cluster
from e2e.manifests import PROJECT

CHART = str(PROJECT / "charts/prewarm")
RELEASE = "prewarm"
RELEASE_NAMESPACE = "prewarm-system"
CONTROLLER = f"system:serviceaccount:{RELEASE_NAMESPACE}:{RELEASE}"
_SECONDS = 30.0


@contextmanager
def installed(cluster: Cluster, helm: Path, *options: str, hooks: bool = True) -> Iterator[None]:
    """The chart, with its policies in force, for the length of the block; definitions of other installers go first.

    No instance runs: the control plane has no kubelet. Nor do hooks: where the chart has some, leave them out, or play
    the kubelet (`e2e.hooks`). The block may uninstall it.
    """
    forget(cluster)
    cluster.kubectl("create", "namespace", RELEASE_NAMESPACE)
    run_helm(cluster, helm, "install", RELEASE, CHART, "--set", "replicas=0", *options)
    try:
        cluster.kubectl("wait", "--for=condition=Established", "crd/imagecaches.prewarm.dev", "--timeout=60s")
        wait_for_policies(cluster)
        yield
    finally:
        run_helm(cluster, helm, "uninstall", RELEASE, "--ignore-not-found", *(() if hooks else ("--no-hooks",)))
        forget(cluster)


def upgrade(cluster: Cluster, helm: Path, *options: str) -> None:
    """The chart of `installed` with other options."""
    run_helm(cluster, helm, "upgrade", RELEASE, CHART, "--set", "replicas=0", *options)


def forget(cluster: Cluster) -> None:
    """No definitions and no namespace of ours."""
    if RELEASE_NAMESPACE in cluster.kubectl("get", "namespaces", "-o", "name"):
        # Without a kubelet nobody confirms a graceful end, and the namespace would stay.
        cluster.kubectl("delete", "pods", "--all", "-n", RELEASE_NAMESPACE, "--force", "--grace-period=0")
        cluster.kubectl("delete", "namespace", RELEASE_NAMESPACE, "--timeout=60s")
    definitions.delete(cluster)


def wait_for_policies(cluster: Cluster) -> None:
    """Return once the API server enforces the policies: it takes them up from a watch, and shows that nowhere.

    Raises:
        TimeoutError: if it does not.
    """
    spec = {"containers": [{"name": "a", "image": "registry.example/a:v1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec}
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        if "denied request" in refusal(cluster, CONTROLLER, "default", pod):
            return
        time.sleep(0.1)
    raise TimeoutError("the API server does not enforce the policies of the chart")


def as_user(user: str) -> tuple[str, ...]:
    """Kubectl's options for a request in a user's name."""
    groups = ["system:authenticated"]
    if user.startswith("system:serviceaccount:"):
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}"]
    return (f"--as={user}", *(f"--as-group={group}" for group in groups))


def refusal(cluster: Cluster, user: str, namespace: str, manifest: Mapping[str, object], verb: str = "create") -> str:
    """What the server says to a manifest in a user's name, without keeping it; "" if it takes it."""
    options = ("--dry-run=server", "--validate=ignore", "-n", namespace, "-f", "-", *as_user(user))
    return attempt(cluster, verb, *options, manifest=json.dumps(manifest))


def attempt(cluster: Cluster, *arguments: str, manifest: str | None = None) -> str:
    """Run kubectl; "" if it succeeded, else what it said."""
    try:
        cluster.kubectl(*arguments, manifest=manifest)
    except RuntimeError as error:
        return str(error)
    return ""


def run_helm(cluster: Cluster, helm: Path, *arguments: str) -> str:
    """What helm prints, in the release's namespace.

    Raises:
        RuntimeError: if it fails; the message is its own.
    """
    connection = ("--kubeconfig", str(cluster.kubeconfig), "--kube-context", cluster.context, "-n", RELEASE_NAMESPACE)
    done = subprocess.run([helm, *arguments, *connection], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
