"""The gate as the chart installs it: what our own ServiceAccounts may write on a workload."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster, Lane
from e2e.release import CONTROLLER, RELEASE, RELEASE_NAMESPACE, as_user, attempt, installed

OPENER = f"system:serviceaccount:{RELEASE_NAMESPACE}:{RELEASE}-gates"
HELD = "prewarm.dev/gate-held"
MARKER = "2026-01-31T12:00:00Z"


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, helm: Path) -> Iterator[None]:
    if cluster.lane is Lane.EXISTING:
        pytest.skip("installing and uninstalling would take away what is installed on an existing cluster")
    with installed(cluster, helm, "--set", "gate.enabled=true", hooks=False):
        # kubectl reads what it patches; we do not.
        users = [f"--user={user}" for user in (CONTROLLER, OPENER)]
        cluster.kubectl("create", "clusterrolebinding", "gate-test", "--clusterrole=view", *users)
        try:
            yield
        finally:
            cluster.kubectl("delete", "clusterrolebinding", "gate-test")


@pytest.fixture
def held(cluster: Cluster, namespace: str) -> str:
    """A namespace with a Deployment that is held."""
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {HELD: MARKER, "prewarm.dev/gate": "true"}},
        "spec": {
            "replicas": 2,
            "paused": True,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}]},
            },
        },
    }
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifest=json.dumps(manifest))
    return namespace


def patched(cluster: Cluster, namespace: str, user: str, *operations: dict[str, object]) -> str:
    """What the server says to a JSON patch of the Deployment in a user's name; "" if it takes it."""
    options = ("--type=json", "--dry-run=server", "-p", json.dumps(operations), *as_user(user))
    return attempt(cluster, "patch", "deployment", "web", "-n", namespace, *options)


REMOVE_MARKER: dict[str, object] = {"op": "remove", "path": "/metadata/annotations/prewarm.dev~1gate-held"}
RESUME: dict[str, object] = {"op": "remove", "path": "/spec/paused"}


@pytest.mark.parametrize("user", [CONTROLLER, OPENER])
def test_our_accounts_open_a_gate(cluster: Cluster, held: str, user: str) -> None:
    assert patched(cluster, held, user, REMOVE_MARKER, RESUME) == ""


@pytest.mark.parametrize("user", [CONTROLLER, OPENER])
@pytest.mark.parametrize(
    ("operations", "told"),
    [
        ((RESUME,), "only to open a gate"),
        ((REMOVE_MARKER,), "changes nothing but the hold"),
        (
            (
                REMOVE_MARKER,
                RESUME,
                {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil.example/x"},
            ),
            "changes nothing but the hold",
        ),
        (
            (REMOVE_MARKER, RESUME, {"op": "replace", "path": "/spec/replicas", "value": 100}),
            "changes nothing but the hold",
        ),
    ],
)
def test_our_accounts_do_nothing_else(
    cluster: Cluster, held: str, user: str, operations: tuple[dict[str, object], ...], told: str
) -> None:
    assert told in patched(cluster, held, user, *operations)


def test_our_accounts_change_no_workload_that_is_not_held(cluster: Cluster, held: str) -> None:
    cluster.kubectl("annotate", "deployment/web", "-n", held, f"{HELD}-")
    assert "only to open a gate" in patched(cluster, held, CONTROLLER, RESUME)


def test_a_person_is_not_bound_by_that(cluster: Cluster, held: str) -> None:
    assert attempt(cluster, "scale", "deployment/web", "-n", held, "--replicas=3") == ""


async def test_the_cron_job_opens_what_has_expired_with_rights_of_its_own(cluster: Cluster, held: str) -> None:
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    account = f"{RELEASE}-gates"
    job = json.loads(cluster.kubectl("get", "cronjob", account, "-n", RELEASE_NAMESPACE, "-o", "json"))
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (spec["serviceAccountName"], container["args"]) == (account, ["open-gates", "--expired"])
    kubeconfig = await cluster.control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, account)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prewarm", *container["args"], "--kubeconfig", str(kubeconfig)
    )
    assert await process.wait() == 0
    found = json.loads(cluster.kubectl("get", "deployment", "web", "-n", held, "-o", "json"))
    assert HELD not in found["metadata"]["annotations"]
    assert "paused" not in found["spec"]


def test_without_an_instance_nothing_is_held(cluster: Cluster, held: str) -> None:
    cluster.kubectl("annotate", "deployment/web", "-n", held, f"{HELD}-")
    cluster.kubectl("rollout", "resume", "deployment/web", "-n", held)
    cluster.kubectl("set", "image", "deployment/web", "-n", held, "web=registry.example/web:v2")
    found = json.loads(cluster.kubectl("get", "deployment", "web", "-n", held, "-o", "json"))
    assert HELD not in found["metadata"]["annotations"]
    assert "paused" not in found["spec"]
