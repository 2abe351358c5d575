"""The end of the gate: uninstalled, switched off or rolled back, it leaves nothing held, whatever changes meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from e2e import gate, gated, hooks
from e2e.cluster.selection import Cluster
from e2e.gated import HELD
from e2e.lane import Lane, LanePlan, eventually, running
from e2e.plain_yaml import EVERYTHING, render
from e2e.release import CHART, RELEASE, RELEASE_NAMESPACE, as_user, attempt, installed, run_helm, upgrade

PLAN = LanePlan(nodes=2, prefix="gate-end", image_bytes=1_000_000)
JOB = f"{RELEASE}-gates-end"
NOWHERE = ("--set", "replicas=0", "--set", r"nodeSelector.prewarm\.dev/test=nowhere")
"""The chart's pods stay pending: nobody but the test runs them."""
ON = (*NOWHERE, "--set", "gate.enabled=true")
ENDS = {
    "uninstall": ("uninstall", RELEASE),
    "upgrade": ("upgrade", RELEASE, CHART, *NOWHERE),
    "rollback": ("rollback", RELEASE, "1"),
}
KINDS = {"web": "Deployment", "other": "Deployment", "late": "Deployment", "db": "StatefulSet"}


@pytest.fixture
def release(cluster: Cluster, helm: Path) -> Iterator[None]:
    """The chart, first without the gate, then with it. No controller runs, but its Lease is fresh: changes are held."""
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    with installed(cluster, helm, *NOWHERE, hooks=False):
        upgrade(cluster, helm, *ON)
        spec = {
            "holderIdentity": "nobody",
            "leaseDurationSeconds": 15,
            "renewTime": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        lease = ("lease", "prewarm", "-n", RELEASE_NAMESPACE)
        cluster.kubectl("patch", *lease, "--type=merge", "-p", json.dumps({"spec": spec}))
        yield


@pytest.fixture
async def lane(cluster: Cluster, release: None, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    """With workloads that are rolled out, and whose next change is held."""
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        await asyncio.gather(*(found.apply(workload(found, name, "v1")) for name in KINDS))
        for name, kind in KINDS.items():
            await found.rolled_out(f"{kind.lower()}/{name}")
            await asyncio.to_thread(gate.await_enforced, cluster, namespace, workload(found, name, "v2"))
        yield found


def workload(lane: Lane, name: str, tag: str) -> dict[str, object]:
    return gated.workload(lane, KINDS[name], tag, name=name, replicas=1)


async def change(lane: Lane, name: str, tag: str) -> None:
    await gated.change(lane, KINDS[name], tag, name=name)


async def held(lane: Lane) -> set[str]:
    found = json.loads(await lane.kubectl("get", "deployments,statefulsets", "-o", "json"))["items"]
    return {one["metadata"]["name"] for one in found if HELD in one["metadata"]["annotations"]}


async def hold_by_hand(lane: Lane, name: str) -> None:
    """As a request that was let in while the policy was still in force, and is stored later."""
    patch = {"metadata": {"annotations": {HELD: datetime.now(UTC).isoformat()}}, "spec": {"paused": True}}
    await lane.kubectl("patch", "deployment", name, "--type=merge", "-p", json.dumps(patch))


async def may(lane: Lane, *request: str) -> bool:
    """Whether the hook's account is allowed something."""
    user = as_user(f"system:serviceaccount:{RELEASE_NAMESPACE}:{JOB}")
    return not await asyncio.to_thread(attempt, lane.cluster, "auth", "can-i", *request, "--quiet", *user)


@pytest.mark.parametrize("end", ENDS)
async def test_it_opens_everything_and_nothing_is_held_afterwards(lane: Lane, helm: Path, end: str) -> None:
    await change(lane, "web", "v2")
    await change(lane, "db", "v2")
    assert await held(lane) == {"web", "db"}

    async def let_go() -> bool:
        return not await held(lane) & {"web", "db"}

    ending = asyncio.create_task(asyncio.to_thread(run_helm, lane.cluster, helm, *ENDS[end]))
    async with hooks.played(lane.cluster, JOB) as command:
        await eventually(let_go)
        # It has listed already. The policies may hold the first change still; the second is held for certain.
        await change(lane, "other", "v2")
        await hold_by_hand(lane, "late")
        assert await may(lane, "delete", "mutatingadmissionpolicybindings/prewarm-gate-deployments")
        assert not await may(lane, "delete", "mutatingadmissionpolicybindings/others")
        assert not await may(lane, "patch", "pods")
        await command.printed()
        assert await held(lane) == set()
        await change(lane, "late", "v2")
        assert await held(lane) == set()
    await ending

    for name, kind in KINDS.items():
        await lane.rolled_out(f"{kind.lower()}/{name}")
    ours = ("job,serviceaccount,clusterrole,clusterrolebinding", "-A", "--ignore-not-found", "-o", "name")
    assert JOB not in await lane.kubectl("get", *ours)


def test_an_upgrade_without_a_gate_before_or_after_runs_no_hook(cluster: Cluster, helm: Path, release: None) -> None:
    run_helm(cluster, helm, "upgrade", RELEASE, CHART, *NOWHERE, "--no-hooks")
    run_helm(cluster, helm, "upgrade", RELEASE, CHART, *NOWHERE)
    assert attempt(cluster, "get", "job", JOB, "-n", RELEASE_NAMESPACE)


@pytest.mark.parametrize(
    ("options", "when"),
    [
        ((), {"post-rollback"}),
        (("--set=gate.rollbackHook=false",), set()),
        (("--set=gate.rollbackHook=null",), {"post-rollback"}),
        ((*EVERYTHING, "--set=gate.rollbackHook=false"), {"pre-delete"}),
    ],
    ids=["by default", "left out", "values of an older chart", "with the gate"],
)
def test_the_end_of_the_gate_is_there_whatever_the_cluster_can(
    helm: Path, options: tuple[str, ...], when: set[str]
) -> None:
    """Helm renders for a cluster without the API here."""
    found = [
        one for one in yaml.safe_load_all(render(helm, *options)) if one["metadata"]["name"] == "prewarm-gates-end"
    ]
    assert {one["metadata"]["annotations"]["helm.sh/hook"] for one in found} == when
