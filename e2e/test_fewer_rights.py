"""A ClusterRole older than the controller: what may not be read is left out, the rest predicted; on a real server."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, pod_template, running
from e2e.release import RELEASE, RELEASE_NAMESPACE, installed

pytestmark = pytest.mark.timeout(240)

PLAN = LanePlan(nodes=3, prefix="fewer-rights", image_bytes=50_000_000)
ENABLED = {"prewarm.dev/enabled": "true"}
OPTIONAL = {
    "batch",
    "storage.k8s.io",
    "scheduling.k8s.io",
    "policy",
    "apps.kruise.io",
    "argoproj.io",
    "flagger.app",
    "image.toolkit.fluxcd.io",
}
"""API groups of kinds without which most can be predicted."""


@pytest.fixture(scope="module")
def rules(cluster: Cluster, helm: Path) -> Iterator[list[dict[str, list[str]]]]:
    """The chart, and the rules of its ClusterRole."""
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    with installed(cluster, helm):
        yield json.loads(cluster.kubectl("get", "clusterrole", RELEASE, "-o", "json"))["rules"]


@pytest.fixture
async def lane(cluster: Cluster, rules: object, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


async def grant(lane: Lane, rules: list[dict[str, list[str]]]) -> None:
    patch = json.dumps({"rules": rules})
    await lane.kubectl("patch", "clusterrole", RELEASE, "--type=merge", "-p", patch)


async def until_pulled(lane: Lane, tag: str, nodes: int) -> None:
    async def there() -> bool:
        return len(lane.downloads(tag)) >= nodes

    await eventually(there, 90)


async def test_what_may_not_be_read_is_left_out_until_it_may(lane: Lane, rules: list[dict[str, list[str]]]) -> None:
    assert lane.cluster.control_plane is not None
    await grant(lane, [rule for rule in rules if not OPTIONAL & set(rule["apiGroups"])])
    kubeconfig = await lane.cluster.control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, RELEASE)
    settings = {"PREWARM_LEASE_DURATION_SECONDS": "2"}
    controller = ControllerProcess(kubeconfig, lane.directory / "controller.log", settings)
    try:
        await controller.start()
        template = pod_template("job", PLAN, name="report", restartPolicy="Never")
        batch = {"parallelism": PLAN.nodes, "completions": PLAN.nodes, "suspend": True, "template": template}
        metadata = {"name": "report", "annotations": ENABLED}
        await lane.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": batch})
        daemon_set = {
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {"app": "shop"}},
            "template": pod_template("v1", PLAN, name="shop"),
        }
        metadata = {"name": "shop", "annotations": ENABLED}
        await lane.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": daemon_set})
        ready = f"--for=jsonpath={{.status.numberReady}}={PLAN.nodes}"
        await lane.kubectl("wait", "daemonset/shop", ready, "--timeout=60s")
        await lane.kubectl("set", "image", "daemonset/shop", f"app={REPOSITORY}:v2")
        await until_pulled(lane, "v2", PLAN.nodes)
        assert not lane.downloads("job")
        assert await controller.get("/readyz") == "ok\n"

        await grant(lane, rules)
        await until_pulled(lane, "job", 1)
        controller.check()
        assert "Traceback" not in controller.log.read_text(encoding="utf-8")
    finally:
        await controller.stop()
        await grant(lane, rules)
