"""The faults: each is played at a random moment while an ImageCache is being filled."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from random import Random

from e2e.cluster.components import Component
from e2e.controller import SYSTEM_NAMESPACE
from e2e.survival.lane import LEASE_SECONDS, Lane, nodes
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError
from prewarm.controller.clocks import Clocks
from prewarm.controller.main import Controller
from prewarm.controller.settings import LogLevel, Settings
from prewarm.model.intents import LEASES

MOMENTS = 2.5
"""Filling a cache takes about so many seconds: faults come within them."""


class Fault(StrEnum):
    """What is played."""

    KILL = "leader killed, another stands by"
    KILL_ALL = "all instances killed"
    FIGHT = "leader stopped for longer than its lease, then woken"
    LEASE = "lease deleted or taken away"
    API_SERVER = "API server killed and started"
    ETCD = "etcd stalled"
    REFUSALS = "bursts of 409, 429, 500 and 503"
    LOST_ANSWERS = "answers to writes lost"
    WATCH_CUTS = "watches cut"
    WATCH_GAPS = "watches cut and too old to go on"
    WATCH_STALLS = "watches silent, then all at once"
    CLOCK = "controller's clock jumped"
    NODE = "node deleted and created under its name"


Play = Callable[[Lane, Random], Awaitable[Mapping[str, int] | None]]
"""Plays a fault; returns by node how many times more than once its images may have to be pulled."""


async def play(fault: Fault, lane: Lane, seed: int) -> None:
    """Fill an ImageCache, play a fault meanwhile, and judge.

    Raises:
        BrokenError: if the controller did not survive it.
    """
    random = Random(f"{fault.name}/{seed}")  # noqa: S311 - not cryptography
    name = f"{fault.name.lower().replace('_', '-')}-{seed}"
    async with _instances(fault, lane, random) as jump:
        images = await lane.order(name)
        again: Mapping[str, int] | None = None
        if jump is not None:
            await jump()
        else:
            again = await _PLAYS[fault](lane, random)
        await lane.until_warm(name, len(images) * len(lane.emulator.fleet.nodes))
        lane.judge(images, again)
        await lane.forget(name)


@asynccontextmanager
async def _instances(fault: Fault, lane: Lane, random: Random) -> AsyncIterator[Callable[[], Awaitable[None]] | None]:
    """Who works on the cache: two processes, or one instance in this process whose clock can be set."""
    if fault is not Fault.CLOCK:
        await lane.start()
        yield None
        return
    await lane.stop()
    clock = _Clock()
    settings = Settings(
        kubeconfig=lane.proxy_config,
        http_host="127.0.0.1",
        http_port=0,
        lease_duration_seconds=LEASE_SECONDS,
        log_level=LogLevel.ERROR,
        cluster_pulls=4,
        identity=f"clock-{random.random()}",
    )
    controller = Controller(settings, Connection.load(settings.kubeconfig), clocks=Clocks(clock.wall, time.monotonic))
    running = asyncio.create_task(controller.run(), name="controller")

    async def jump() -> None:
        for _ in range(random.randint(1, 3)):
            await asyncio.sleep(random.uniform(0, MOMENTS / 2))
            clock.offset = random.choice([-1, 1]) * random.choice([2.0, 30.0, 700.0, 5_000.0, 90_000.0])
        await asyncio.sleep(random.uniform(0, MOMENTS / 2))
        clock.offset = random.choice([0.0, clock.offset])

    try:
        yield jump
    finally:
        controller.stop()
        await running


class _Clock:
    """The wall clock, set wrong."""

    def __init__(self) -> None:
        self.offset = 0.0

    def wall(self) -> float:
        return time.time() + self.offset


async def _kill(lane: Lane, random: Random) -> None:
    await lane.started()
    leader = await lane.leader()
    await asyncio.sleep(random.uniform(0, MOMENTS))
    leader.kill()
    lane.instances.remove(leader)
    lane.start_another()


async def _kill_all(lane: Lane, random: Random) -> None:
    await lane.started()
    await asyncio.sleep(random.uniform(0, MOMENTS))
    for found in lane.instances:
        found.kill()
    lane.instances.clear()
    await lane.start()


async def _fight(lane: Lane, random: Random) -> None:
    leader = await lane.leader()
    await asyncio.sleep(random.uniform(0, MOMENTS))
    leader.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(random.uniform(0.5, 2.5) * LEASE_SECONDS)
    finally:
        leader.signal(signal.SIGCONT)


async def _take_lease(lane: Lane, random: Random) -> None:
    await lane.leader()
    await asyncio.sleep(random.uniform(0, MOMENTS))
    if random.random() < 0.5:
        await lane.client.delete(LEASES, SYSTEM_NAMESPACE, "prewarm")
    else:
        holder = {"spec": {"holderIdentity": "somebody-else"}}
        await lane.client.merge_patch(LEASES, SYSTEM_NAMESPACE, "prewarm", holder)


async def _restart_api_server(lane: Lane, random: Random) -> None:
    await asyncio.sleep(random.uniform(0, MOMENTS))
    lane.plane.kill_component(Component.KUBE_APISERVER)
    await asyncio.sleep(random.uniform(0, 2.0))
    await lane.plane.start_component(Component.KUBE_APISERVER)


async def _stall_etcd(lane: Lane, random: Random) -> None:
    for _ in range(random.randint(1, 3)):
        await asyncio.sleep(random.uniform(0, MOMENTS / 2))
        lane.plane.signal_component(Component.ETCD, signal.SIGSTOP)
        try:
            await asyncio.sleep(random.uniform(0.2, 2.0))
        finally:
            lane.plane.signal_component(Component.ETCD, signal.SIGCONT)


async def _refuse(lane: Lane, random: Random) -> None:
    faults = lane.proxy.faults
    for _ in range(random.randint(1, 3)):
        await asyncio.sleep(random.uniform(0, MOMENTS / 2))
        faults.refuse = tuple(random.sample([409, 429, 500, 503], random.randint(1, 4)))
        faults.refused_share = random.choice([0.3, 1.0])
        await asyncio.sleep(random.uniform(0.1, 1.5))
        faults.refuse = ()


async def _lose_answers(lane: Lane, random: Random) -> None:
    await asyncio.sleep(random.uniform(0, MOMENTS / 2))
    lane.proxy.faults.lose_share = random.choice([0.2, 0.6])
    await asyncio.sleep(random.uniform(0.5, MOMENTS))
    lane.proxy.faults.lose_share = 0.0


async def _cut_watches(lane: Lane, random: Random) -> None:
    for _ in range(random.randint(2, 6)):
        await asyncio.sleep(random.uniform(0, MOMENTS / 3))
        lane.proxy.cut_streams()


async def _open_gaps(lane: Lane, random: Random) -> None:
    faults = lane.proxy.faults
    for _ in range(random.randint(1, 3)):
        await asyncio.sleep(random.uniform(0, MOMENTS / 2))
        faults.expire = True
        lane.proxy.cut_streams()
        await asyncio.sleep(random.uniform(0.2, 1.0))
        faults.expire = False


async def _stall_watches(lane: Lane, random: Random) -> None:
    for _ in range(random.randint(1, 2)):
        await asyncio.sleep(random.uniform(0, MOMENTS / 2))
        lane.proxy.faults.stalled.clear()
        try:
            await asyncio.sleep(random.uniform(0.5, 3.0))
        finally:
            lane.proxy.faults.stalled.set()


async def _replace_node(lane: Lane, random: Random) -> Mapping[str, int]:
    """The pods of the old node may reach the new one, whose kubelet takes what is bound to its name."""
    await asyncio.sleep(random.uniform(0, MOMENTS))
    name = random.choice(lane.emulator.fleet.nodes)
    while True:
        try:
            await lane.emulator.delete_node(name)
            break
        except ApiError as error:
            if error.not_found:
                break
            if not error.transient:
                raise
    await asyncio.sleep(random.choice([0.0, 0.3, 1.5]))
    await lane.emulator.add_nodes(nodes())
    return {name: 1}


_PLAYS: Mapping[Fault, Play] = {
    Fault.KILL: _kill,
    Fault.KILL_ALL: _kill_all,
    Fault.FIGHT: _fight,
    Fault.LEASE: _take_lease,
    Fault.API_SERVER: _restart_api_server,
    Fault.ETCD: _stall_etcd,
    Fault.REFUSALS: _refuse,
    Fault.LOST_ANSWERS: _lose_answers,
    Fault.WATCH_CUTS: _cut_watches,
    Fault.WATCH_GAPS: _open_gaps,
    Fault.WATCH_STALLS: _stall_watches,
    Fault.NODE: _replace_node,
}
