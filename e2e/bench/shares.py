"""Who gets a processor first where one machine stands for many: the control plane's, the controller's, the nodes'."""

import asyncio
from collections.abc import Mapping

from e2e.bench.reaction import set_niceness
from e2e.cluster.components import Component
from e2e.cluster.control_plane import ControlPlane

FIRST, THEN, LAST = 0, 15, 19
"""Nicenesses: of API server and etcd, as of the controller; of what has machines of its own; of heartbeats."""
NICENESS: Mapping[Component, int] = {
    Component.ETCD: FIRST,
    Component.KUBE_APISERVER: FIRST,
    Component.KUBE_CONTROLLER_MANAGER: THEN,
    Component.KUBE_SCHEDULER: THEN,
    Component.KWOK: LAST,
}
FEWER_COLLECTIONS = {"GOGC": "1000"}
"""Environment of the control plane: memory is not short here, processors are."""


async def share_out(plane: ControlPlane, emulator: int) -> None:
    """Have each process of a control plane, and the emulator with this process id, wait for those before it."""
    for component, niceness in NICENESS.items():
        await asyncio.to_thread(set_niceness, plane.pid(component), niceness)
    await asyncio.to_thread(set_niceness, emulator, THEN)
