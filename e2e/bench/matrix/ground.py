"""The nodes of a cell, and the pods that fill them beforehand."""

from collections.abc import Mapping
from functools import partial

from e2e.bench.matrix.cells import Cell, Shape
from e2e.bench.populace import IMAGE, at_once
from e2e.lane import LanePlan
from prewarm.cluster.client import Client
from prewarm.model.intents import PODS, Manifest
from prewarm.simulation.specs import NodeProfile, fraction

IMAGE_BYTES = 250_000_000
BANDWIDTH = 50e6
"""Five seconds for the image."""
POD_MILLI_CPU, POD_MEMORY = 500, 512 << 20
"""What a pod of the workload requests."""
_FREE_MILLI_CPU, _FREE_MEMORY = 200, 1 << 30
"""Room that is left on tight nodes, too little for another pod of the workload."""
_FIXED_NODES, _NODES = 16, 60


def lane_plan(cell: Cell, seed: int) -> LanePlan:
    """Nodes of the cell's own."""
    return LanePlan(
        nodes=_FIXED_NODES if cell.strategy.fixed else _NODES,
        prefix=f"{cell.strategy}-{cell.shape}-{cell.mode.replace('+', '-')}-{seed}",
        image_bytes=IMAGE_BYTES,
        bandwidth=BANDWIDTH,
        varied=cell.shape is Shape.VARIED,
        seed=str(seed),
    )


async def fill(client: Client, cell: Cell, plan: LanePlan, namespace: str) -> None:
    """Create the pods that take their part of each node."""
    if cell.shape is Shape.EQUAL:
        return
    room = slots(cell, plan) if cell.shape.is_tight else {}
    await at_once(
        partial(client.create, PODS, namespace, _load(plan, profile, room.get(profile.name)))
        for profile in plan.node_plan.profiles()
    )


def slots(cell: Cell, plan: LanePlan) -> Mapping[str, int]:
    """Pods of the workload that each tight node has room for: in all 1.5 for each of the workload's pods.

    As many nodes have the least room as have the most; the seed says which, so that every seed has room for a surge.
    """
    least, most = (1, 2) if cell.strategy.fixed else (0, 2)
    names = [profile.name for profile in plan.node_plan.profiles()]
    shuffled = sorted(names, key=lambda name: fraction(plan.seed, name, "slots"))
    return {name: least + number % (most - least + 1) for number, name in enumerate(shuffled)}


def _load(plan: LanePlan, profile: NodeProfile, pods: int | None) -> Manifest:
    """What fills a node: all but the room for so many of the workload's pods, or a part of it."""
    room = profile.allocatable
    if pods is not None:
        cpu = room.milli_cpu - pods * POD_MILLI_CPU - _FREE_MILLI_CPU
        memory = room.memory - pods * POD_MEMORY - _FREE_MEMORY
    else:
        cpu = int(0.6 * room.milli_cpu * fraction(plan.seed, profile.name, "cpu"))
        memory = int(0.6 * room.memory * fraction(plan.seed, profile.name, "memory"))
    requests: Manifest = {"cpu": f"{cpu}m", "memory": str(memory)}
    container: Manifest = {"name": "load", "image": IMAGE, "resources": {"requests": requests}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"load-{profile.name}"},
        "spec": {"nodeName": profile.name, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
