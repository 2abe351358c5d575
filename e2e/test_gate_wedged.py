"""A controller that is stopped while it holds: the gate opens without it, and it undoes nothing when it goes on."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from e2e import gate, hooks
from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.gated import GATED, HELD, annotations, change, gated, opened, reasons, spec_of, workload
from e2e.lane import Lane, LanePlan, eventually, running
from e2e.release import RELEASE, RELEASE_NAMESPACE, installed
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.live import read_cluster
from prewarm.cluster.writer import WriteOutcome, Writer, WriteResult
from prewarm.delivery.gates import GateReason, Opened, gates
from prewarm.model.intents import DEPLOYMENTS, STATEFUL_SETS

PLAN = LanePlan(nodes=6, prefix="gate-wedged", image_bytes=400_000_000)
BRIEF = {**GATED, "prewarm.dev/gate": "8s"}
LEASE_SECONDS = "4"


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, helm: Path) -> Iterator[None]:
    """The chart with its gate. The test runs the controller and the CronJob's command, with their accounts."""
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    with installed(cluster, helm, "--set", "gate.enabled=true", hooks=False):
        yield


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


async def controller(lane: Lane) -> ControllerProcess:
    """The chart's controller, with its own account."""
    return await lane.controller(
        PREWARM_NAMESPACE=RELEASE_NAMESPACE,
        PREWARM_KUBECONFIG=str(await hooks.account(lane.cluster, RELEASE)),
        PREWARM_LEASE_DURATION_SECONDS=LEASE_SECONDS,
    )


async def open_expired(lane: Lane) -> str:
    """What the CronJob's command prints, run with its account."""
    kubeconfig = await hooks.account(lane.cluster, f"{RELEASE}-gates")
    async with hooks.running(kubeconfig, "open-gates", "--expired") as command:
        return await command.printed()


async def renewed_at(lane: Lane) -> datetime:
    """When the controller last said that it is alive."""
    path = "jsonpath={.spec.renewTime}"
    return datetime.fromisoformat(await lane.kubectl("get", "lease", "prewarm", "-n", RELEASE_NAMESPACE, "-o", path))


async def test_what_a_wedged_controller_held_is_opened_and_stays_as_people_leave_it(lane: Lane) -> None:
    wedged = await controller(lane)
    for name, asked in (("brief", BRIEF), ("long", GATED), ("later", GATED)):
        await gated(lane, "Deployment", asked, name=name)
    await change(lane, "Deployment", "v2", name="long")
    await change(lane, "Deployment", "v3", name="brief")

    async def both_are_pulled() -> bool:
        return len(await lane.names("imagecaches.prewarm.dev")) == 2

    await eventually(both_are_pulled)
    wedged.signal(signal.SIGSTOP)
    for name in ("brief", "long"):
        assert HELD in await annotations(lane, "Deployment", name=name)

    # Its Lease runs out: nothing more is held.
    await asyncio.to_thread(
        gate.await_not_held, lane.cluster, lane.namespace, workload(lane, "Deployment", "v2", name="later")
    )
    await change(lane, "Deployment", "v2", name="later")
    assert HELD not in await annotations(lane, "Deployment", name="later")
    await lane.rolled_out("deployment/later")

    # What has expired is opened by the CronJob, the rest is left to people.
    async def expired() -> bool:
        return "1 gate opened" in await open_expired(lane)

    await eventually(expired)
    assert HELD not in await annotations(lane, "Deployment", name="brief")
    assert HELD in await annotations(lane, "Deployment", name="long")
    await lane.kubectl("rollout", "pause", "deployment/brief")
    await lane.kubectl("rollout", "resume", "deployment/long")

    going_on = datetime.now(UTC)
    wedged.signal(signal.SIGCONT)

    async def leads_again() -> bool:
        return await renewed_at(lane) > going_on

    await eventually(leads_again)
    # It takes away the marker that was left, and holds and opens as before: it has seen all that was done meanwhile.
    await opened(lane, "Deployment", name="long")
    assert await reasons(lane, name="long") == ["Resumed"]
    await change(lane, "Deployment", "v1", name="later")
    assert HELD in await annotations(lane, "Deployment", name="later")
    await opened(lane, "Deployment", name="later")
    assert (await spec_of(lane, "Deployment", name="brief"))["paused"] is True
    assert "paused" not in await spec_of(lane, "Deployment", name="long")
    await lane.rolled_out("deployment/long")


async def decided(lane: Lane) -> Opened:
    """What a controller decides that sees the one held workload of the lane now."""
    async with Client(Connection.load(lane.cluster.kubeconfig)) as client:
        found = await read_cluster(client, 0.0, only={DEPLOYMENTS, STATEFUL_SETS})
    (gate_of_lane,) = [one for one in gates(found) if one.workload.key.namespace == lane.namespace]
    return Opened(gate_of_lane, GateReason.WARM, "all nodes are warm")


async def written(lane: Lane, decision: Opened) -> WriteResult:
    """What the server says to a decision that is carried out with the controller's account."""
    async with Client(Connection.load(await hooks.account(lane.cluster, RELEASE))) as client:
        (result,) = await Writer(client).execute([decision.patch])
    return result


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_the_server_refuses_to_open_what_has_changed_since(lane: Lane, kind: str) -> None:
    leading = await controller(lane)
    await gated(lane, kind)
    leading.signal(signal.SIGSTOP)
    await change(lane, kind, "v2")
    stale = await decided(lane)
    leading.kill()

    await lane.kubectl("label", kind.lower(), "shop", "team=a")
    assert await refused(lane, kind, stale)

    # Another hold: even with the right version, the old marker opens nothing.
    await lane.kubectl("annotate", kind.lower(), "shop", f"{HELD}=2026-01-31T12:00:00Z", "--overwrite")
    fresh = await decided(lane)
    workload_now = msgspec.structs.replace(stale.gate.workload, resource_version=fresh.gate.workload.resource_version)
    old_marker = msgspec.structs.replace(stale, gate=msgspec.structs.replace(stale.gate, workload=workload_now))
    assert await refused(lane, kind, old_marker)

    assert (await written(lane, fresh)).outcome is WriteOutcome.APPLIED
    assert HELD not in await annotations(lane, kind)


async def refused(lane: Lane, kind: str, decision: Opened) -> bool:
    """Whether the server refuses to open, and leaves the workload as it is."""
    before: Any = await lane.get(kind.lower(), "shop")
    result = await written(lane, decision)
    after: Any = await lane.get(kind.lower(), "shop")
    same = [before[part] == after[part] for part in ("spec", "metadata")]
    return result.outcome is WriteOutcome.GONE and result.code == 422 and all(same)
