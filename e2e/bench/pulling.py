"""How fast a hand-written ImageCache warms a thousand nodes, and what it costs.

Emulated nodes, a real API server, the controller as a process; beside it the ideal that the emulator's settings allow,
and what others are known to need. As in the trial in which OpenKruise was measured, etcd, the API server, the
controller and the stand-in for the nodes have the machine to themselves, and the nodes' own steps take next to no time;
`--whole` lets the rest of the control plane run, `--kubelet real` plays a kubelet's steps as traces show them.
"""

import asyncio
import gc
import os
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from typing import Annotated

import msgspec
import typer
from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from e2e.bench.emulator import cpu_seconds
from e2e.bench.ideal import seconds as ideal_seconds
from e2e.bench.pulling_cases import CASES, Case
from e2e.bench.server_metrics import WRITES, ServerSample, sample
from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.processes import is_running
from e2e.cluster.selection import cluster_of
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess, Usage
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.emulator.writer import KubeletClient
from e2e.manifests import install_definitions
from prewarm.cluster.client import WatchOptions
from prewarm.cluster.connection import Connection
from prewarm.history.learning import SCAN_INTERVAL
from prewarm.model.intents import IMAGE_CACHES, NAMESPACES, PODS, Manifest
from prewarm.puller.settings import PullerSettings
from prewarm.simulation.registry import Registries
from prewarm.simulation.specs import Timings

NAMESPACE = "bench"
POOL = {"bench.prewarm.dev/pool": "many-images"}
BANDWIDTH = 100e6
QUICK = Timings(mount=0.0, sandbox=0.01, create=0.001, start=0.001, stop_sandbox=0.001, relist=0.02)
"""A kubelet that costs hardly more than the pull: a node daemon that calls the runtime itself. It writes one status
when it begins and one at the end, not each of a kubelet's steps between them."""
OPTIONS = ControlPlaneOptions(
    node_lease_seconds=400,
    extra_flags={Component.KUBE_CONTROLLER_MANAGER: ["--node-monitor-grace-period=600s"]},
    environment={
        Component.KUBE_APISERVER: {"GOGC": "off", "GOMEMLIMIT": "3GiB"},
        Component.ETCD: {"GOGC": "400"},
    },
)
"""So that nodes stay Ready on a busy machine: what is measured is pulls. API server and etcd share two cores with it,
and memory is not short. After a day's work an API server uses memory that it has used before, as with a fixed limit: on
a virtual machine the first touch of a page costs some 10 microseconds: a heap that grew took up to 0.8 of a core."""
DEADLINE_SECONDS = 400.0
SETTLE_SECONDS = 3.0
LEARNING_SECONDS = SCAN_INTERVAL + 5.0
QUIET_WRITES = 30
"""Within the time to settle."""
_FIRST_PROGRESS, _EVERY_PROGRESS = 2.0, 2.0


class KubeletSpeed(StrEnum):
    """How the kubelets' own steps are played."""

    QUICK = "quick"
    REAL = "real"


class _Meta(Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Status(Struct):
    desired: int = 0
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0


class _Cache(Struct):
    metadata: _Meta = field(default_factory=_Meta)
    status: _Status = field(default_factory=_Status)


class _Event(Struct):
    type: str
    object: _Cache


class _Page(Struct):
    items: list[msgspec.Raw]


class Progress(Struct):
    """What the status of an ImageCache said, when."""

    times: list[float]
    """Seconds since the order, of each status that differs from the one before."""
    done: float
    """When it said that every pair had succeeded."""
    began: float
    """When the order was given, on the monotonic clock."""

    def longest_untold(self, ended: Iterable[float]) -> float:
        """Longest time for which pulls had ended and the status said nothing new.

        Args:
            ended: when pulls ended, in seconds since the order.
        """
        first: dict[int, float] = {}
        for at in ended:
            following = bisect_right(self.times, at)
            first[following] = min(at, first.get(following, at))
        return max((self.times[index] - at for index, at in first.items() if index < len(self.times)), default=0.0)

    @property
    def longest_gap(self) -> float:
        """Longest time without news from the first on."""
        return max((b - a for a, b in zip(self.times, self.times[1:], strict=False)), default=0.0)

    @property
    def gap_begins(self) -> float:
        """When the longest time without news began."""
        gaps = zip(self.times, self.times[1:], strict=False)
        return max(gaps, key=lambda gap: gap[1] - gap[0], default=(0.0, 0.0))[0]


class Result(Struct, frozen=True):
    """Figures of a case."""

    case: Case
    ideal: float
    progress: Progress
    server: ServerSample
    used: Mapping[str, float]
    """CPU seconds by process, last records and deletions included."""
    used_until_done: Mapping[str, float]
    """The same, until every pair had succeeded."""
    usage: Usage
    lag: float
    """Seconds by which the emulator was late, 99th percentile."""
    pulls: int
    """Successful pulls as the kubelets count them."""
    untold: float
    """Longest time for which pulls had ended and the status said nothing new, in seconds."""

    def verdicts(self) -> list[str]:
        """What was missed."""
        case, took = self.case, self.progress.done
        missed = []
        if case.within is not None and took > case.within:
            missed.append(f"{took:.1f} s is more than {case.within:g} s")
        if case.of_ideal is not None and took > case.of_ideal * self.ideal:
            missed.append(f"{took:.1f} s is more than {case.of_ideal:g} x {self.ideal:.1f} s")
        if case.per_second is not None and case.pairs / took < case.per_second:
            missed.append(f"{case.pairs / took:.0f} pulls/s is less than {case.per_second:g}")
        if self.progress.times[0] > _FIRST_PROGRESS:
            missed.append(f"first progress after {self.progress.times[0]:.1f} s")
        if self.untold > _EVERY_PROGRESS:
            missed.append(f"pulls had ended for {self.untold:.1f} s and no progress was shown")
        if self.pulls != case.pairs:
            missed.append(f"{self.pulls} pulls for {case.pairs} pairs")
        return missed


class Bench:
    """A control plane with emulated nodes, on which cases are run one after the other."""

    def __init__(self, plane: ControlPlane, client: KubeletClient, emulator: Emulator, speed: KubeletSpeed) -> None:
        self._plane = plane
        self._client = client
        self._emulator = emulator
        self._speed = speed

    async def until_quiet(self) -> None:
        """Return once the control plane has settled: new nodes are written to for half a minute."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            before = await sample(self._plane)
            while True:
                await asyncio.sleep(SETTLE_SECONDS)
                now = await sample(self._plane)
                requests = now.since(before).requests
                # What nodes say of their images comes over 40 s; it is little at a time.
                writes = [n for (verb, what), n in requests.items() if verb in WRITES and what != "nodes/status"]
                if sum(writes) < QUIET_WRITES:
                    return
                before = now

    async def leave_alone(self) -> None:
        """Stop what has no part in pulls that are bound to their nodes."""
        for component in (Component.KWOK, Component.KUBE_SCHEDULER, Component.KUBE_CONTROLLER_MANAGER):
            await self._plane.stop_component(component)

    async def run(self, case: Case) -> Result:
        """Fill one cache with a fresh controller."""
        settings = {
            # As an operator would for pulls of this number at once; the defaults suit a cluster of which nothing is
            # known.
            "PREWARM_CLUSTER_PULLS": str(case.parallelism),
            "PREWARM_REGISTRY_PULLS": str(case.parallelism),
            "PREWARM_NODE_PULLS": str(case.per_node),
            "PREWARM_LOG_LEVEL": "warning",
        }
        controller = ControllerProcess(self._plane.kubeconfig, self._plane.logs / f"prewarm-{case.key}.log", settings)
        try:
            await controller.start()
            await controller.wait_leading()
            if case.sharing:
                await self._learn(case)
            await self.until_quiet()
            result = await self._measure(case, controller)
            await self._client.delete(IMAGE_CACHES, NAMESPACE, case.key)
            return result
        finally:
            await controller.stop()

    async def _learn(self, case: Case) -> None:
        """Pull an earlier tag of every image somewhere: so their size is known, as in a cluster that runs them."""
        progress = await self._fill(f"{case.key}-earlier", _images(case, "v1"), min(20, case.nodes))
        assert progress.times
        await asyncio.sleep(LEARNING_SECONDS)

    async def _measure(self, case: Case, controller: ControllerProcess) -> Result:
        self._emulator.lags.clear()
        self._emulator.pulls.clear()
        server = await sample(self._plane)
        before = self._spent(controller)
        at_the_end: dict[str, float] = {}
        with _no_kubelet_stops():
            progress = await self._fill(
                case.key, _images(case, "v2"), case.nodes, when_done=lambda: at_the_end.update(self._spent(controller))
            )
        after = await sample(self._plane)
        used, usage = self._spent(controller), controller.usage()
        lags = sorted(self._emulator.lags) or [0.0]
        wanted = set(_images(case, "v2"))
        pulled = [pull for pull in self._emulator.pulls if pull.image in wanted and not pull.error]
        untold = progress.longest_untold(self._emulator.ended_at(pull) - progress.began for pull in pulled)
        lag = lags[len(lags) * 99 // 100]
        return Result(
            case,
            self._ideal(case),
            progress,
            after.since(server),
            _since(used, before),
            _since(at_the_end, before),
            usage,
            lag,
            len(pulled),
            untold,
        )

    def _spent(self, controller: ControllerProcess) -> dict[str, float]:
        """CPU seconds so far by process."""
        pids = {c.value: self._plane.pid(c) for c in Component if is_running(self._plane.pid(c))}
        spent = {name: cpu_seconds(pid) for name, pid in pids.items()}
        return {**spent, "emulator": time.process_time(), "prewarm": controller.usage().cpu_seconds}

    def _ideal(self, case: Case) -> float:
        images = _images(case, "v2")
        together = PullerSettings().images_per_pod if case.sharing else 1
        pods = [tuple(images[start : start + together]) for start in range(0, len(images), together)]
        return ideal_seconds([_plan(case.nodes, self._speed)], registries(), pods, case.parallelism, case.per_node)

    async def _fill(
        self, name: str, images: Sequence[str], nodes: int, when_done: Callable[[], None] = lambda: None
    ) -> Progress:
        """Order a cache, watch its status until every pair succeeded, and wait until its pods are gone."""
        names = [profile.name for plan in plans(self._speed) for profile in plan.profiles()][:nodes]
        spec: Manifest = {"cacheSpec": [{"images": list(images), "nodeNames": list(names)}], "parallelism": "100%"}
        watching = self._statuses(name)
        began = time.monotonic()
        await self._client.create(IMAGE_CACHES, NAMESPACE, image_cache(name, spec))
        times: list[float] = []
        last = _Status()
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for status in watching:
                if status == last:
                    continue
                last = status
                if status.active or status.succeeded:
                    times.append(time.monotonic() - began)
                if status.desired and status.succeeded == status.desired == len(images) * nodes:
                    break
        done = time.monotonic() - began
        when_done()
        await self._until_tidy()
        return Progress(times, done, began)

    async def _until_tidy(self) -> None:
        """Return once no pod is left: what is measured is all that was written for the pulls."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                async for page in self._client.list_pages(PODS, namespace=NAMESPACE, limit=1):
                    if not msgspec.json.decode(page, type=_Page).items:
                        return
                    break
                await asyncio.sleep(0.5)

    async def _statuses(self, name: str) -> AsyncIterator[_Status]:
        decoder = msgspec.json.Decoder(_Event)
        version = ""
        while True:
            options = WatchOptions(version, initial_events=not version)
            async for lines in self._client.watch(IMAGE_CACHES, options):
                for event in (decoder.decode(line) for line in lines if line):
                    version = event.object.metadata.resource_version or version
                    if event.object.metadata.name == name:
                        yield event.object.status


@contextmanager
def _no_kubelet_stops() -> Iterator[None]:
    """Keep this process's garbage collector from stopping the stand-ins of all kubelets at once, for 0.2 to 0.4 s."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _since(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: spent - before[name] for name, spent in after.items()}


def image_cache(name: str, spec: Manifest) -> Manifest:
    """An ImageCache."""
    kind = {"apiVersion": IMAGE_CACHES.api_version, "kind": IMAGE_CACHES.kind}
    return {**kind, "metadata": {"name": name}, "spec": spec}


def registries() -> Registries:
    """Images whose size makes a pull last as long as the case says; the helper image is small."""
    sizes = {"docker.io/library/busybox": 1_000_000}
    for case in CASES:
        for image in _images(case, "v1"):
            sizes[image.rpartition(":")[0]] = int(case.image_seconds * BANDWIDTH)
    return Registries(convention=Catalog(sizes, layers=1))


def _images(case: Case, tag: str) -> list[str]:
    return [f"registry.example/{case.key}-{number}:{tag}" for number in range(case.images)]


def plans(speed: KubeletSpeed) -> list[NodePlan]:
    """All nodes of the benchmark."""
    return [_plan(max(case.nodes for case in CASES), speed)]


def _plan(count: int, speed: KubeletSpeed) -> NodePlan:
    timings = QUICK if speed is KubeletSpeed.QUICK else Timings()
    return NodePlan(count=count, bandwidth=BANDWIDTH, unpack_rate=1e12, pull_slots=None, timings=timings)


@asynccontextmanager
async def bench(speed: KubeletSpeed, *, events: bool, console: Console) -> AsyncIterator[Bench]:
    """A populated control plane for the length of the block."""
    async with ControlPlane.start(OPTIONS) as plane, KubeletClient(Connection.load(plane.kubeconfig)) as client:
        with console.status("creating the nodes"):
            for name in (NAMESPACE, SYSTEM_NAMESPACE):
                await client.create(NAMESPACES, "", {"metadata": {"name": name}})
            await asyncio.to_thread(install_definitions, cluster_of(plane))
            (plan,) = plans(speed)
            every = speed is KubeletSpeed.REAL
            options = EmulatorOptions(nodes=plan, registries=registries(), events=events, every_status=every)
            emulating = Emulator(Connection.load(plane.kubeconfig), options)
        async with emulating as emulator:
            yield Bench(plane, client, emulator, speed)


def report(result: Result, console: Console) -> bool:
    """Print the figures of a case; whether its goals are reached."""
    case, took = result.case, result.progress.done
    console.print(f"\n[bold]{case.title}[/bold]")
    console.print(
        f"  {took:.1f} s, {case.pairs / took:.0f} pulls/s; ideal {result.ideal:.1f} s "
        f"({took / result.ideal:.2f} x); {case.known}"
    )
    console.print(
        f"  status: first progress after {result.progress.times[0]:.2f} s, then at least every "
        f"{result.progress.longest_gap:.2f} s (longest from {result.progress.gap_begins:.1f} s on), "
        f"{len(result.progress.times)} times; a pull that ended was shown after {result.untold:.2f} s at most"
    )
    console.print(
        f"  controller: {result.used['prewarm']:.1f} CPU s, peak {result.usage.peak_bytes / 2**20:.0f} MiB; "
        f"etcd: {result.server.store_bytes / 2**20:+.1f} MiB in use; "
        f"{result.server.refused} answers 429"
    )
    cores = os.cpu_count() or 1
    console.print(
        f"  until it was done, {sum(result.used_until_done.values()) / took / cores:.0%} of the time of {cores} cores: "
        + ", ".join(f"{name} {spent / took / cores:.0%}" for name, spent in result.used_until_done.items())
    )
    others = ", ".join(f"{name} {spent:.1f}" for name, spent in result.used.items() if name != "prewarm")
    console.print(f"  CPU s of the others: {others}; emulator late by {1000 * result.lag:.0f} ms (p99)")
    table = Table("verb", "resource", "requests", "per image and node", title="API requests, whoever sent them")
    for (verb, resource), count in sorted(result.server.requests.items(), key=lambda entry: -entry[1]):
        if verb in WRITES and count > case.pairs // 100:
            table.add_row(verb, resource, str(count), f"{count / case.pairs:.2f}")
    console.print(table)
    writes = result.server.requests
    own = writes.get(("POST", "pods"), 0) + writes.get(("DELETE", "pods"), 0)
    own += sum(count for (verb, _), count in writes.items() if verb == "APPLY")
    console.print(
        f"  the controller's writes: {own / case.pairs:.2f} for each image and node; "
        "kube-fledged: 22 to 25 in all, by a controller of 5 requests a second (from its source, not measured)"
    )
    missed = result.verdicts()
    console.print(f"  goal: {'missed: ' + '; '.join(missed) if missed else 'reached'}")
    return not missed


async def _main(names: Sequence[str], speed: KubeletSpeed, *, whole: bool, events: bool) -> bool:
    console = Console(width=120)
    reached = True
    async with bench(speed, events=events, console=console) as running:
        await running.until_quiet()
        if not whole:
            await running.leave_alone()
        for case in CASES:
            if not names or case.key in names:
                reached &= report(await running.run(case), console)
    return reached


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Cases: hundred, thousand, many; all by default.")] = None,
    kubelet: Annotated[KubeletSpeed, typer.Option(help="How long the kubelets' own steps take.")] = KubeletSpeed.QUICK,
    whole: Annotated[bool, typer.Option(help="Keep scheduler, controller manager and KWOK running, too.")] = False,
    events: Annotated[bool, typer.Option(help="Let kubelets write Events, about ten a pod.")] = False,
) -> None:
    """Fill ImageCaches on emulated nodes and print speed and cost beside those of others."""
    if not asyncio.run(_main(names or (), kubelet, whole=whole, events=events)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
