"""Runs the cells, some side by side: each in a namespace and on nodes of its own, all on one control plane."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from e2e import gate, kruise, steer
from e2e.argo import argo_controller
from e2e.bench.matrix.cells import Cell, Strategy
from e2e.bench.matrix.ground import IMAGE_BYTES, fill, lane_plan
from e2e.bench.matrix.orders import Orders
from e2e.bench.matrix.witness import KubeletAccount, Seen, kubelets_say
from e2e.bench.matrix.workloads import NAME, manifest, steer_policy, workload_of
from e2e.cluster import binaries
from e2e.cluster.binaries import ArgoRollouts
from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import Cluster, cluster_of
from e2e.controller import ControllerProcess, judged_starts
from e2e.demo.recorder import Recorder
from e2e.demo.report import RolloutResult
from e2e.demo.rollouts import account, watching
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.lane import REPOSITORY, Lane, LanePlan
from e2e.manifests import install_definitions
from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.connection import Connection
from prewarm.history.learning import SCAN_INTERVAL
from prewarm.simulation.registry import Registries

SYSTEM = "prewarm-matrix"
OPTIONS = ControlPlaneOptions(
    node_lease_seconds=400, extra_flags={Component.KUBE_CONTROLLER_MANAGER: ["--node-monitor-grace-period=600s"]}
)
"""So that nodes stay Ready on a busy machine."""
SETTINGS = {
    "PREWARM_NAMESPACE": SYSTEM,
    "PREWARM_STEER": "true",
    "PREWARM_CLUSTER_PULLS": "1000",
    "PREWARM_REGISTRY_PULLS": "1000",
}
"""Cells share a controller only to save time: none is to wait for another one's pulls."""
_ROLLOUT_SECONDS = 240.0
_JUDGING_SECONDS = 30.0
_TICK_SECONDS = 0.25
_WATCH_SECONDS = 1200.0


class CellResult(Struct, frozen=True):
    """What became of a cell in one run."""

    cell: Cell
    seed: int
    rollout: RolloutResult
    said: KubeletAccount
    cold: tuple[float, ...]
    """Seconds from creation to start of pods that pulled for themselves."""
    predictability: float | None
    """Share of the pods that two replays put on the same nodes, by the first plan; None: nothing was planned."""
    ordered_at: Mapping[str, float]
    """By node, when prewarm first asked for the image there; the recorder's clock."""
    warm_at: Mapping[str, float]
    """By node, when a puller pod had downloaded the image; the recorder's clock."""


class Ground(Struct):
    """What the cells share."""

    cluster: Cluster
    client: Client
    emulator: Emulator
    controller: ControllerProcess
    argo: ArgoRollouts | None
    directory: Path


@asynccontextmanager
async def ground(cells: Sequence[Cell]) -> AsyncIterator[Ground]:
    """Control plane, emulator and controller for the length of the block."""
    argo = binaries.argo_rollouts() if any(cell.strategy is Strategy.CANARY for cell in cells) else None
    async with ControlPlane.start(OPTIONS) as plane, AsyncExitStack() as stack:
        cluster = cluster_of(plane)
        await asyncio.to_thread(install_definitions, cluster)
        if any(cell.strategy is Strategy.IN_PLACE for cell in cells):
            await asyncio.to_thread(kruise.install, cluster)
        await asyncio.to_thread(steer.install, cluster, SYSTEM)
        await asyncio.to_thread(gate.install, cluster, SYSTEM)
        await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", manifest=json.dumps(steer_policy()))
        connection = Connection.load(cluster.kubeconfig, cluster.context)
        client = await stack.enter_async_context(Client(connection, field_manager="matrix"))
        registries = Registries(convention=Catalog({REPOSITORY: IMAGE_BYTES}))
        options = EmulatorOptions(nodes=NodePlan(count=0), registries=registries)
        emulator = await stack.enter_async_context(Emulator(connection, options))
        controller = ControllerProcess(cluster.kubeconfig, plane.logs / "prewarm.log", SETTINGS)
        stack.push_async_callback(controller.stop)
        await controller.start()
        await controller.wait_leading()
        yield Ground(cluster, client, emulator, controller, argo, plane.logs)


async def run_cell(shared: Ground, cell: Cell, seed: int) -> CellResult:
    """One rollout, from an empty pool of nodes to the verdict on its last pod; `seed` decides what the nodes are like.

    Raises:
        TimeoutError: the rollout did not end.
    """
    plan = lane_plan(cell, seed)
    namespace = f"{plan.prefix}-{os.getpid()}"
    lane = Lane(shared.cluster, namespace, plan, shared.emulator, shared.directory)
    old, new = (Recorder(f"{REPOSITORY}:{plan.prefix}-{version}") for version in ("v1", "v2"))
    orders = Orders(shared.client, namespace, new.image)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_place(lane))
        await fill(shared.client, cell, plan, namespace)
        if cell.strategy is Strategy.CANARY:
            assert shared.argo is not None
            log = shared.directory / f"rollouts-{plan.prefix}.log"
            await stack.enter_async_context(argo_controller(shared.cluster, shared.argo, namespace, log))
        options = WatchOptions(
            initial_events=True, namespace=namespace, label_selector=f"app={NAME}", server_timeout=_WATCH_SECONDS
        )
        await stack.enter_async_context(watching(shared.client, [old, new], options))
        await stack.enter_async_context(orders.noted())
        workload = workload_of(cell, lane)
        await workload.create(_tag(old))
        await _known(lane, old.image)
        if cell.mode.gated:
            probe = manifest(cell, lane, "probe")
            await asyncio.to_thread(gate.await_enforced, shared.cluster, namespace, probe)
        await workload.change(_tag(new))
        rolling = asyncio.create_task(workload.roll(), name=f"roll {cell}")
        try:
            await _until(shared, lambda: _ready(new) >= workload.pods, _ROLLOUT_SECONDS, cell)
            await rolling
        finally:
            rolling.cancel()
        log = shared.controller.log
        await _until(shared, lambda: all((uid, new.image) in judged_starts(log) for uid in new.starts), None)
    return _result(shared, cell, seed, old, new, orders)


def _result(shared: Ground, cell: Cell, seed: int, old: Recorder, new: Recorder, orders: Orders) -> CellResult:
    pulls = list(shared.emulator.pulls)
    judged = judged_starts(shared.controller.log)
    outcomes = {uid: judged[uid, new.image] for uid in new.starts if (uid, new.image) in judged}
    cold = tuple(
        start.created_to_started
        for recorder in (old, new)
        for uid, seen in kubelets_say(pulls, recorder).starts.items()
        if seen is Seen.COLD and (start := recorder.starts[uid]).created_to_started is not None
    )
    rollout = RolloutResult(str(cell), new, outcomes, account(pulls, new))
    said = kubelets_say(pulls, new)
    warm_at = {node: shared.emulator.ended_at(pull) for node, pull in said.ours.items()}
    return CellResult(cell, seed, rollout, said, cold, orders.predictability, orders.first, warm_at)


@asynccontextmanager
async def _place(lane: Lane) -> AsyncIterator[None]:
    """A namespace and nodes, gone afterwards."""
    await lane.kubectl("create", "namespace", lane.namespace)
    await lane.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=120s")
    await lane.emulator.add_nodes(lane.plan.node_plan)
    await _ready_nodes(lane, lane.plan)
    try:
        yield
    finally:
        await lane.kubectl("delete", "namespace", lane.namespace, "--wait=false")
        await lane.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
        for profile in lane.plan.node_plan.profiles():
            await lane.emulator.delete_node(profile.name)


async def _ready_nodes(lane: Lane, plan: LanePlan) -> None:
    (label, value), *_ = plan.pool.items()
    await lane.kubectl("wait", "nodes", "-l", f"{label}={value}", "--for=condition=Ready", "--timeout=180s")


async def _known(lane: Lane, image: str) -> None:
    """The workload has run for a while, so its nodes list its image, and the controller has read how large it is."""
    (label, value), *_ = lane.plan.pool.items()
    listed = "jsonpath={.items[*].status.images[*].names}"
    while image not in await lane.kubectl("get", "nodes", "-l", f"{label}={value}", "-o", listed):  # noqa: ASYNC110 - another process
        await asyncio.sleep(_TICK_SECONDS)
    await asyncio.sleep(SCAN_INTERVAL)


def _tag(recorder: Recorder) -> str:
    return recorder.image.rpartition(":")[2]


def _ready(recorder: Recorder) -> int:
    return sum(start.ready is not None for start in recorder.starts.values())


async def _until(
    shared: Ground, condition: Callable[[], bool], seconds: float | None, cell: Cell | None = None
) -> None:
    """Wait for a condition; without `seconds` give up quietly after the time that verdicts may take."""
    deadline = time.monotonic() + (_JUDGING_SECONDS if seconds is None else seconds)
    while not condition():
        shared.cluster.check()
        shared.controller.check()
        shared.emulator.check()
        if time.monotonic() > deadline:
            if seconds is None:
                return
            raise TimeoutError(f"the rollout of {cell} did not end in time")
        await asyncio.sleep(_TICK_SECONDS)
