"""Fifty Deployments change their image, all at once or within seconds, on a thousand nodes: reactions, budgets, costs.

Half of them run in pools of 20 nodes of their own, half on all nodes. Nodes are emulated by a process of its own; the
rest of the control plane is real. All share this machine's processors, where a cluster has a machine for each: who
goes first is in `shares`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Annotated, Self

import typer
from msgspec import Struct
from msgspec.structs import asdict
from rich.console import Console
from rich.table import Table

from e2e.bench.budgets import Peaks
from e2e.bench.populace import at_once, create, populate
from e2e.bench.reaction import GOAL_P50, GOAL_P99, percentile
from e2e.bench.rollout_watch import NAMESPACE, FirstPlan, Reaction, Team, Watcher, first_plans
from e2e.bench.shares import FEWER_COLLECTIONS, share_out
from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.selection import cluster_of
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess, Usage, judged_starts
from e2e.demo.recorder import Recorder
from e2e.demo.rollouts import account
from e2e.emulator.child import EmulatorProcess
from e2e.emulator.nodes import NodePlan
from e2e.emulator.writer import KubeletClient
from e2e.manifests import install_definitions
from prewarm.api.names import ANNOTATION_ENABLED, TRUE
from prewarm.cluster.connection import Connection
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.controller.metrics import REACTION_SECONDS
from prewarm.model.intents import DEPLOYMENTS, NAMESPACES, NODES, Manifest
from prewarm.model.outcomes import Outcome, hit_ratio

BACKGROUND = "background"
REGISTRIES = ("one.example", "two.example", "three.example")
POOL, POOL_NODES = "bench.prewarm.dev/pool", 20
REPLICAS = (4, 8, 12, 16, 24, 40)
IMAGE_BYTES, BANDWIDTH = 400_000_000, 50_000_000
HELPER = "docker.io/library/busybox=1000000"
"""Repository and bytes of the image that puller pods take their binary from; a node's first one pulls it, too."""
STARTUP_SECONDS = 5.0
BUDGETS = {"cluster": 100, "registry": 60, "node": 1}
"""Pulls at once that the controller is allowed."""
OPTIONS = ControlPlaneOptions(
    node_lease_seconds=400,
    extra_flags={
        Component.KUBE_CONTROLLER_MANAGER: [
            "--node-monitor-grace-period=600s",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
        ]
    },
)
"""Nodes stay Ready on a busy machine; and the controllers do not hold rollouts back, as 20 requests a second would."""
PATTERNS = (0.0, 10.0)
"""Seconds in which the changes of a round come: all at the same instant, and one after the other as pipelines go."""
READY_SECONDS, ROLLOUT_SECONDS, JUDGING_SECONDS = 120.0, 300.0, 30.0
_TICK_SECONDS = 0.25


class Result(Struct, frozen=True):
    """What is reported of one round of changes."""

    within: float
    """Seconds in which the changes came; 0: at the same instant."""
    inside: float
    """Mean seconds within the controller, from seeing a change to ordering its first pull."""
    teams: Sequence[Team]
    reactions: Mapping[str, Reaction]
    first_plans: Mapping[str, FirstPlan]
    """By Deployment."""
    answers: Sequence[float]
    """Seconds that the API server took for small answers meanwhile."""
    recorders: Mapping[str, Recorder]
    outcomes: Mapping[tuple[str, str], Outcome]
    peaks: Peaks
    before: Usage
    after: Usage
    seconds: float
    prewarmed: int
    wasted: int


def teams_of(count: int, seed: int) -> list[Team]:
    """Deployments of varied sizes, every other one in a pool of its own."""
    random = Random(seed)  # noqa: S311 - a reproducible scenario, not cryptography
    return [
        Team(
            f"team-{number:02d}",
            random.choice(REPLICAS),
            REGISTRIES[number % len(REGISTRIES)],
            f"pool-{number:02d}" if number % 2 else "",
        )
        for number in range(count)
    ]


class Scene(Struct, frozen=True):
    """What all rounds work with."""

    plane: ControlPlane
    client: KubeletClient
    emulator: EmulatorProcess
    controller: ControllerProcess
    teams: Sequence[Team]


class Round:
    """One change of all images, and those who watch what follows."""

    def __init__(self, scene: Scene, version: str) -> None:
        self._scene = scene
        self._version = version
        self.watcher = Watcher(scene.client, scene.teams, version)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        watcher = self.watcher
        watches = (watcher.deployments, watcher.image_caches, watcher.pods, watcher.server)
        self._tasks = [asyncio.create_task(watch(), name=watch.__name__) for watch in watches]
        await asyncio.gather(*(event.wait() for event in self.watcher.synced))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Wait for something, while all processes and watches go on.

        Raises:
            TimeoutError: it did not come.
        """
        scene = self._scene
        async with asyncio.timeout(seconds):
            while not await condition():
                scene.plane.check()
                scene.emulator.check()
                scene.controller.check()
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(_TICK_SECONDS)

    async def change(self, within: float) -> None:
        """Change all images, in an order of their own, at moments drawn from so many seconds."""
        random = Random(len(self._scene.teams))  # noqa: S311 - a reproducible scenario, not cryptography
        # Whoever changes them has a connection already: fifty handshakes at once would be part of the burst.
        await asyncio.gather(*(self._scene.client.get(NAMESPACES, "", NAMESPACE) for _ in self._scene.teams))
        began = time.monotonic()

        async def later(team: Team, after: float) -> None:
            await asyncio.sleep(max(0.0, began + after - time.monotonic()))
            self.watcher.reactions[team.name].sent = time.monotonic()
            await _change(self._scene.client, team, self._version)

        async with asyncio.TaskGroup() as group:
            for team in self._scene.teams:
                group.create_task(later(team, random.uniform(0.0, within)), name=f"change {team.name}")


async def measure(
    nodes: int, pods: int, deployments: int, patterns: Sequence[float], *, alike: bool, console: Console
) -> list[Result]:
    """Populate a control plane, roll everything out once, then change all images once for each pattern of arrival."""
    teams = teams_of(deployments, seed=1)
    async with AsyncExitStack() as stack:
        with console.status(f"creating {nodes} nodes and {pods} running pods"):
            scene = await _set_up(stack, teams, nodes, pods, alike=alike)
        with console.status(f"rolling {sum(team.replicas for team in teams)} pods out for the first time"):
            async with Round(scene, "v1") as first:
                await at_once(
                    partial(create, scene.client, DEPLOYMENTS, NAMESPACE, _deployment(team)) for team in teams
                )
                await first.until(partial(_settled, scene.client, teams), ROLLOUT_SECONDS)
        return [await _round(scene, f"v{number}", within, console) for number, within in enumerate(patterns, 2)]


async def _round(scene: Scene, version: str, within: float, console: Console) -> Result:
    """Change all images, and wait for the last pod and its verdict."""
    controller, teams = scene.controller, scene.teams
    async with Round(scene, version) as one:
        metrics = await controller.metrics()
        before, began = controller.usage(), time.monotonic()
        with console.status(f"changing {len(teams)} images"):
            await one.change(within)
            await one.until(partial(_all_ready, one.watcher, teams), ROLLOUT_SECONDS)
        seconds, after = time.monotonic() - began, controller.usage()
        with console.status("waiting for the last verdicts"):
            try:
                await one.until(partial(_all_judged, controller, one.watcher), JUDGING_SECONDS)
            except TimeoutError:
                console.print("not all starts were judged in time: they count as unknown")
        recorders = one.watcher.recorders
        bytes_of = [account(scene.emulator.pulls(), recorder) for recorder in recorders.values()]
        return Result(
            within,
            mean_since(metrics, await controller.metrics(), REACTION_SECONDS),
            teams,
            one.watcher.reactions,
            _first_plans(controller, teams, version),
            one.watcher.answers_meanwhile(),
            recorders,
            judged_starts(controller.log),
            one.watcher.peaks,
            before,
            after,
            seconds,
            sum(one.prewarmed for one in bytes_of),
            sum(one.wasted for one in bytes_of),
        )


def mean_since(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    """Mean of what a histogram has taken between two readings."""
    taken = after.get(f"{name}_count", 0.0) - before.get(f"{name}_count", 0.0)
    return (after[f"{name}_sum"] - before.get(f"{name}_sum", 0.0)) / taken if taken else 0.0


async def _set_up(stack: AsyncExitStack, teams: Sequence[Team], nodes: int, pods: int, *, alike: bool) -> Scene:
    """A populated control plane with a controller that leads."""
    plane = await stack.enter_async_context(ControlPlane.start(OPTIONS))
    client = await stack.enter_async_context(KubeletClient(Connection.load(plane.kubeconfig)))
    emulator = EmulatorProcess(plane)
    stack.push_async_callback(emulator.stop)
    for name in (NAMESPACE, BACKGROUND, SYSTEM_NAMESPACE):
        await create(client, NAMESPACES, "", {"metadata": {"name": name}})
    await asyncio.to_thread(install_definitions, cluster_of(plane))
    await populate(client, BACKGROUND, [NodePlan(count=nodes)], pods)
    await _make_pools(client, teams, nodes)
    options = {"nodes": nodes, "bandwidth": BANDWIDTH, "image-size": IMAGE_BYTES, "image": HELPER}
    await emulator.start(options, READY_SECONDS)
    if not alike:
        await share_out(plane, emulator.pid)
    settings = {f"PREWARM_{scope.upper()}_PULLS": str(pulls) for scope, pulls in BUDGETS.items()}
    controller = ControllerProcess(plane.kubeconfig, plane.logs / "prewarm.log", settings)
    stack.push_async_callback(controller.stop)
    await controller.start()
    await controller.wait_leading()
    return Scene(plane, client, emulator, controller, teams)


async def _make_pools(client: KubeletClient, teams: Sequence[Team], nodes: int) -> None:
    """Label 20 nodes for each pool."""
    names = [profile.name for profile in NodePlan(count=nodes).profiles()]
    pools = [team.pool for team in teams if team.pool]
    labels = {name: pools[index // POOL_NODES] for index, name in enumerate(names[: POOL_NODES * len(pools)])}
    await at_once(
        partial(client.merge_patch, NODES, "", name, {"metadata": {"labels": {POOL: pool}}})
        for name, pool in labels.items()
    )


async def _settled(client: KubeletClient, teams: Sequence[Team]) -> bool:
    kind = Kinds().deployments
    ready = 0
    async for page in client.list_pages(DEPLOYMENTS, namespace=NAMESPACE):
        for read in kind.page(page).items:
            ready += read.value is not None and read.value.ready_replicas == read.value.replicas
    return ready == len(teams)


async def _all_ready(watcher: Watcher, teams: Sequence[Team]) -> bool:
    return all(
        sum(start.ready is not None for start in watcher.recorders[team.name].starts.values()) >= team.replicas
        for team in teams
    )


async def _all_judged(controller: ControllerProcess, watcher: Watcher) -> bool:
    judged = judged_starts(controller.log)
    recorders = watcher.recorders.values()
    return all((uid, recorder.image) in judged for recorder in recorders for uid in recorder.starts)


def _first_plans(controller: ControllerProcess, teams: Sequence[Team], version: str) -> dict[str, FirstPlan]:
    by_image = first_plans(controller.log, {team.image(version) for team in teams})
    return {team.name: by_image[team.image(version)] for team in teams if team.image(version) in by_image}


async def _change(client: KubeletClient, team: Team, version: str) -> None:
    container: Manifest = {"name": "app", "image": team.image(version)}
    patch: Manifest = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await client.strategic_patch(DEPLOYMENTS, NAMESPACE, team.name, patch)


def _deployment(team: Team) -> Manifest:
    container: Manifest = {
        "name": "app",
        "image": team.image("v1"),
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
    }
    selector: Manifest = {POOL: team.pool} if team.pool else {}
    spec: Manifest = {"terminationGracePeriodSeconds": 1, "nodeSelector": selector, "containers": [container]}
    annotations: Manifest = {"emulator.prewarm.dev/startup-seconds": str(STARTUP_SECONDS)}
    return {
        "metadata": {"name": team.name, "annotations": {ANNOTATION_ENABLED: TRUE}},
        "spec": {
            "replicas": team.replicas,
            "selector": {"matchLabels": {"app": team.name}},
            "template": {"metadata": {"labels": {"app": team.name}, "annotations": annotations}, "spec": spec},
        },
    }


def report(result: Result, console: Console) -> bool:
    """Print the figures; whether the goals are reached."""
    console.print(_reactions(result))
    peaks = {"cluster": result.peaks.cluster, "registry": result.peaks.registry, "node": result.peaks.node}
    kept = all(peaks[scope] <= allowed for scope, allowed in BUDGETS.items())
    held = ", ".join(f"{scope} {peaks[scope]} of {allowed}" for scope, allowed in BUDGETS.items())
    console.print(f"most pulls at once: {held}: {'kept' if kept else 'EXCEEDED'}; {result.peaks.pulls} pulls in all")
    for title, pooled in (("in pools", True), ("on all nodes", False)):
        console.print(_hits(result, title, pooled=pooled))
    share = result.wasted / result.prewarmed if result.prewarmed else 0.0
    console.print(f"prewarmed: {result.prewarmed / 1e9:.0f} GB, wasted {100 * share:.0f} %")
    used = result.after.cpu_seconds - result.before.cpu_seconds
    console.print(
        f"controller: {used:.1f} CPU seconds in the {result.seconds:.0f} s of the rollouts "
        f"({100 * used / result.seconds:.0f} % of a core), peak {result.after.peak_bytes / 2**20:.0f} MiB "
        f"({result.before.peak_bytes / 2**20:.0f} MiB before); mean from seeing a change to ordering its first pull: "
        f"{1000 * result.inside:.0f} ms"
    )
    shares = (0.5, 0.9, 0.99) if result.answers else ()
    answers = ", ".join(f"p{100 * share:.0f} {1000 * percentile(result.answers, share):.0f} ms" for share in shares)
    console.print(f"API server, small GETs until the last of these pulls was ordered: {answers or '-'}")
    times = _times(result, _at_once(result), "changed", "pulling")
    quick = bool(times) and percentile(times, 0.5) <= GOAL_P50 and percentile(times, 0.99) <= GOAL_P99
    goal = f"p50 <= {1000 * GOAL_P50:.0f} ms, p99 <= {GOAL_P99:.0f} s"
    console.print(
        f"goal, in pools with pulls in the first plan: {goal} from the change seen to the first puller pod: "
        f"{'reached' if quick else 'missed'}"
    )
    return kept and quick


def _at_once(result: Result) -> list[Team]:
    """Those in pools whose first plan orders pulls."""
    return [team for team in result.teams if team.pool and (plan := result.first_plans.get(team.name)) and plan.to_pull]


def _reactions(result: Result) -> Table:
    when = f"within {result.within:.0f} s" if result.within else "at once"
    table = Table(title=f"{len(result.teams)} changes {when}: milliseconds from each change")
    shares = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
    for column in ("", *(f"p{100 * share:.0f}" for share in shares), "of"):
        table.add_column(column, justify="left" if not column else "right")
    at_once = _at_once(result)
    others = [team for team in result.teams if team.pool and team not in at_once]
    free = [team for team in result.teams if not team.pool]
    rows = (
        ("pool, pulls in the first plan: change seen to ImageCache", at_once, "changed", "ordered"),
        ("change seen to first puller pod", at_once, "changed", "pulling"),
        ("change sent to first puller pod", at_once, "sent", "pulling"),
        (f"pool, none in the first plan ({_reasons(result, others)}): seen to pod", others, "changed", "pulling"),
        ("on all nodes: change seen to first puller pod", free, "changed", "pulling"),
    )
    for title, teams, begin, end in rows:
        times = _times(result, teams, begin, end)
        cells = [f"{1000 * percentile(times, share):.0f}" if times else "-" for share in shares]
        table.add_row(title, *cells, f"{len(times)} of {len(teams)}")
    return table


def _reasons(result: Result, teams: Sequence[Team]) -> str:
    """Why first plans order nothing."""
    reasons = {reason for team in teams if (plan := result.first_plans.get(team.name)) for reason in plan.skipped}
    return ", ".join(sorted(reasons)) or "nothing to say"


def _times(result: Result, teams: Sequence[Team], begin: str, end: str) -> list[float]:
    """Seconds from one sight of each change to another, of those that have both."""
    found = []
    for team in teams:
        seen = asdict(result.reactions[team.name])
        if seen[begin] is not None and seen[end] is not None:
            found.append(seen[end] - seen[begin])
    return found


def _hits(result: Result, title: str, *, pooled: bool) -> str:
    counts = {True: dict.fromkeys(Outcome, 0), False: dict.fromkeys(Outcome, 0)}
    for team in result.teams:
        if bool(team.pool) is pooled:
            recorder = result.recorders[team.name]
            later = {id(start) for start in recorder.after_first_burst}
            for uid, start in recorder.starts.items():
                counts[id(start) in later][result.outcomes.get((uid, recorder.image), Outcome.UNKNOWN)] += 1
    ratio = hit_ratio(counts[True])
    shown = "-" if ratio is None else f"{100 * ratio:.1f} %"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts[True].items() if count)
    first = sum(counts[False].values())
    return f"{title}: prewarm hit ratio after the first burst {shown} ({outcomes}); {first} pods in first bursts"


def main(
    nodes: Annotated[int, typer.Option(min=100, help="Emulated nodes.")] = 1000,
    pods: Annotated[int, typer.Option(min=0, help="Pods that run already.")] = 5000,
    deployments: Annotated[int, typer.Option(min=1, max=90, help="Deployments that change.")] = 50,
    within: Annotated[
        list[float] | None,
        typer.Option(min=0.0, max=120.0, help="Seconds in which the changes come; 0: at once. Once for each round."),
    ] = None,
    alike: Annotated[
        bool, typer.Option(help="Let all processes compete for the cores alike, emulated kubelets and API server, too.")
    ] = False,
) -> None:
    """Change many images at once and measure what prewarm makes of it."""
    console = Console(width=140)
    patterns = PATTERNS if within is None else within
    for name, value in FEWER_COLLECTIONS.items():
        os.environ.setdefault(name, value)
    results = asyncio.run(measure(nodes, pods, deployments, patterns, alike=alike, console=console))
    reached = [report(result, console) for result in results]
    if not all(reached):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
