"""How long from a Deployment's template change to the first puller pod?

Both ends are watch events received by this process, by one clock: the Deployment's MODIFIED with the new image, and the
first puller pod's ADDED. So the watch's own delay, which both have, falls out. The baseline is the least that any
controller needs: on the same Deployment event this process creates a pod itself at once, and waits for its ADDED.

Two Deployments are changed in turn. One runs in a pool of nodes of its own, as many do: there the planner knows nodes
before the first burst has landed. The other may run on all nodes: if none of them is likely enough before the burst has
landed, nothing is ordered in the first plan, and the time holds the scheduler's, too: such changes are told apart; and
where even then no node is likelier than the others, nothing is pulled.
"""

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import Struct
from rich.console import Console
from rich.progress import track
from rich.table import Table

from e2e.bench.populace import IMAGE as BACKGROUND
from e2e.bench.populace import populate, running_status, timestamp
from e2e.bench.rollout_watch import first_plans
from e2e.cluster.components import Component
from e2e.cluster.control_plane import ControlPlane
from e2e.controller import SYSTEM_NAMESPACE, ControllerProcess, Usage
from e2e.emulator.nodes import NodePlan
from e2e.emulator.writer import KubeletClient
from e2e.manifests import PROJECT
from prewarm.api.names import ANNOTATION_ENABLED, LABEL_PULLER, TRUE
from prewarm.cluster.client import WatchOptions
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError
from prewarm.controller.metrics import PLANNING_DURATION, REACTION_SECONDS
from prewarm.model.intents import DEPLOYMENTS, NAMESPACES, PODS, Manifest, Resource

NAMESPACE = "bench"
POOLED, FREE = "web", "anywhere"
"""The Deployments that are changed."""
REPLICAS = 40
POOL, POOL_NODES = {"bench.prewarm.dev/pool": "web"}, 30
PULL_SECONDS = 0.5
"""What a pull takes here; it is not what is measured."""
START_SECONDS = 1.0
"""From a pod's binding to its Ready, without any pull: the kubelets' own work is not to fall into the reaction."""
TIMEOUT_SECONDS = 5.0
"""No puller pod is awaited for longer."""
ROLLOUT_SECONDS = 120.0
QUIET_SECONDS = 2.0
"""Between two changes, so that each finds the puller done with the last one."""
CONTROL_PLANE_NICENESS = 10
"""In a cluster the control plane has machines of its own. Here it shares the controller's cores, and a rollout's burst
keeps it busy in the very moment that is measured: it gets what the controller leaves."""
_AUTOGROUP_GAP_SECONDS = 0.15
SETTLE_SECONDS = 10.0
"""After the start, and after nodes have become ready."""
IDLE_SECONDS = 30.0
GOAL_P50, GOAL_P99 = 0.1, 1.0


class _Meta(Struct, rename="camel"):
    name: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}


class _Container(Struct):
    name: str = ""
    image: str = ""


class _Template(Struct):
    class Spec(Struct):
        containers: list[_Container] | None = None
        """null in the template of a bookmark."""

    spec: Spec = msgspec.field(default_factory=Spec)


class _Spec(Struct, rename="camel"):
    node_name: str = ""
    containers: list[_Container] | None = None
    """null in a bookmark."""
    init_containers: list[_Container] = []
    template: _Template = msgspec.field(default_factory=_Template)


class _Status(Struct, rename="camel"):
    phase: str = ""
    observed_generation: int = 0
    updated: int = msgspec.field(default=0, name="updatedReplicas")
    ready: int = msgspec.field(default=0, name="readyReplicas")


class _Object(Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(Struct):
    type: str
    object: _Object


_DECODER = msgspec.json.Decoder(_Event)


class Result(Struct, frozen=True):
    """Seconds of each change, and what the controller took."""

    pooled: "Reactions"
    free: "Reactions"
    idle: Usage
    idle_cpu_share: float
    total: Usage
    inside: float
    """Mean seconds within the controller, from seeing the change to ordering the first pull."""
    planning: float
    """Mean seconds of planning in them and in all later looks."""


class Reactions(Struct, frozen=True):
    """Seconds of the changes of one Deployment."""

    prewarm: list[float]
    """Of those whose first plan orders pulls."""
    later: list[float]
    """Of those for which only a later one does."""
    reasons: frozenset[str]
    """Why first plans order none."""
    baseline: list[float]
    missed: int
    """Changes after which no puller pod came in time."""
    use: "Use"


class Use(Struct, frozen=True):
    """What became of the pulls of some changes. The first half of a rollout's pods is its first burst."""

    pulls: int = 0
    """Nodes on which an image was pulled."""
    used: int = 0
    """Of those, nodes that a pod with the image was bound to."""
    later: int = 0
    """Pods that came after the first burst."""
    hit: int = 0
    """Of those, pods that came to one of those nodes, or to one that had taken such a pod before."""

    def plus(self, pulled: Collection[str], bound: Sequence[str]) -> "Use":
        """With one more change, given its nodes with pulls and those of its pods, in the order in which they came."""
        later = bound[REPLICAS // 2 :]
        return Use(
            self.pulls + len(pulled),
            self.used + len(set(pulled).intersection(bound)),
            self.later + len(later),
            self.hit + sum(node in pulled or node in bound[:at] for at, node in enumerate(later, REPLICAS // 2)),
        )


class Stopwatch:
    """Notes when watch events came, and plays the kubelets of the Deployments' and the puller's pods."""

    def __init__(self, client: KubeletClient) -> None:
        self._client = client
        self._waiting: dict[str, asyncio.Future[float]] = {}
        self._playing: set[asyncio.Task[None]] = set()
        self._played: set[str] = set()
        self.pulled: defaultdict[str, set[str]] = defaultdict(set)
        """Nodes with puller pods, by image."""
        self.bound: defaultdict[str, list[str]] = defaultdict(list)
        """Nodes of pods, by image, in the order in which they were bound."""

    def expect(self, what: str) -> "asyncio.Future[float]":
        """When something will be seen first, by the monotonic clock."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[what] = future
        return future

    def _seen(self, what: str) -> None:
        future = self._waiting.pop(what, None)
        if future is not None and not future.done():
            future.set_result(time.monotonic())

    async def watch_deployments(self) -> None:
        """Note each Deployment's image as it appears."""
        async for event in self._events(DEPLOYMENTS):
            for container in event.object.spec.template.spec.containers or ():
                self._seen(f"deployment {event.object.metadata.name} {container.image}")

    async def watch_pods(self) -> None:
        """Note pods as they appear; let the bound ones run, and puller pods end well."""
        async for event in self._events(PODS):
            pod, labels = event.object, event.object.metadata.labels
            puller = labels.get(LABEL_PULLER) == TRUE
            if event.type == "ADDED":
                self._seen(f"pod {pod.metadata.name}")
                for container in (pod.spec.containers or ()) if puller else ():
                    self._seen(f"puller {container.image}")
                    self.pulled[container.image].add(pod.spec.node_name)
            bound = bool(pod.spec.node_name) and pod.status.phase == "Pending" and event.type != "DELETED"
            if bound and labels.get("app") != "background" and pod.metadata.uid not in self._played:
                self._played.add(pod.metadata.uid)
                if not puller:
                    self.bound[pod.spec.containers[0].image if pod.spec.containers else ""].append(pod.spec.node_name)
                task = asyncio.create_task(self._play(pod, puller=puller), name="play a kubelet")
                self._playing.add(task)
                task.add_done_callback(self._playing.discard)

    async def _events(self, resource: Resource) -> AsyncIterator[_Event]:
        version = ""
        while True:
            async for lines in self._client.watch(resource, WatchOptions(version, initial_events=not version)):
                for event in (_DECODER.decode(line) for line in lines if line):
                    version = event.object.metadata.resource_version or version
                    if event.type not in {"BOOKMARK", "ERROR"}:
                        yield event

    async def _play(self, pod: _Object, *, puller: bool) -> None:
        await asyncio.sleep(PULL_SECONDS if puller else START_SECONDS)
        containers = [(container.name, container.image) for container in pod.spec.containers or ()]
        status = ended_status(pod) if puller else running_status(*containers)
        with suppress(ApiError):  # deleted meanwhile
            await self._client.strategic_patch(PODS, NAMESPACE, pod.metadata.name, {"status": status}, "status")


def ended_status(pod: _Object) -> Manifest:
    """Status of a puller pod whose containers all ended well."""
    now = timestamp()

    def ended(container: _Container) -> Manifest:
        return {
            "name": container.name,
            "image": container.image,
            "imageID": f"{container.image.rpartition(':')[0]}@sha256:{'0' * 64}",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}},
        }

    return {
        "phase": "Succeeded",
        "containerStatuses": [ended(container) for container in pod.spec.containers or ()],
        "initContainerStatuses": [ended(container) for container in pod.spec.init_containers],
    }


async def measure(nodes: int, pods: int, changes: int, niceness: int, console: Console) -> Result:
    """Populate a control plane of its own, run the controller, change templates."""
    async with ControlPlane.start() as plane, KubeletClient(Connection.load(plane.kubeconfig)) as client:
        for component in Component:
            await asyncio.to_thread(set_niceness, plane.pid(component), niceness)
        with console.status(f"creating {nodes} nodes and {pods} running pods"):
            for name in (NAMESPACE, SYSTEM_NAMESPACE):
                await client.create(NAMESPACES, "", {"metadata": {"name": name}})
            await _install_definitions(plane)
            pool = min(POOL_NODES, nodes // 2)
            plans = (NodePlan(count=nodes - pool), NodePlan(count=pool, prefix="pool", labels=POOL))
            await populate(client, NAMESPACE, plans, pods)
        controller = ControllerProcess(plane.kubeconfig, plane.logs / "prewarm.log")
        try:
            with console.status("starting the controller, then watching it idle"):
                await controller.start()
                await controller.wait_leading()
                await asyncio.sleep(SETTLE_SECONDS)
                before = controller.usage()
                await asyncio.sleep(IDLE_SECONDS)
                idle = controller.usage()
            stopwatch = Stopwatch(client)
            async with asyncio.TaskGroup() as group:
                watches = [
                    group.create_task(stopwatch.watch_deployments(), name="watch deployments"),
                    group.create_task(stopwatch.watch_pods(), name="watch pods"),
                ]
                pooled = await _changes(client, stopwatch, controller.log, changes, console, POOLED, POOL)
                free = await _changes(client, stopwatch, controller.log, changes, console, FREE, {})
                for watch in watches:
                    watch.cancel()
            metrics = await controller.metrics()
            share = (idle.cpu_seconds - before.cpu_seconds) / IDLE_SECONDS
            return Result(
                pooled,
                free,
                idle,
                share,
                controller.usage(),
                mean(metrics, REACTION_SECONDS),
                mean(metrics, PLANNING_DURATION),
            )
        finally:
            await controller.stop()


def set_niceness(session: int, niceness: int) -> None:
    """Give a session of processes less of the processors than others.

    Where the kernel groups processes by session (autogroup, sched(7)), their own niceness counts among themselves only:
    between sessions the group's does. Unprivileged processes may set that once in 0.1 s.
    """
    os.setpriority(os.PRIO_PGRP, session, niceness)
    group = Path(f"/proc/{session}/autogroup")
    if group.exists():
        time.sleep(_AUTOGROUP_GAP_SECONDS)
        group.write_text(str(niceness), encoding="ascii")


async def _install_definitions(plane: ControlPlane) -> None:
    for arguments in (
        ("apply", "--server-side", "-f", str(PROJECT / "crds")),
        ("wait", "--for=condition=Established", "--timeout=60s", "-f", str(PROJECT / "crds")),
    ):
        process = await asyncio.create_subprocess_exec(
            plane.binaries.kubectl, "--kubeconfig", plane.kubeconfig, *arguments, stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait() != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)} failed")


async def _changes(
    client: KubeletClient,
    stopwatch: Stopwatch,
    log: Path,
    changes: int,
    console: Console,
    name: str,
    selector: Mapping[str, str],
) -> Reactions:
    reactions: dict[str, float] = {}
    baseline: list[float] = []
    use = Use()
    await client.create(DEPLOYMENTS, NAMESPACE, _deployment(name, selector))
    await _until_rolled_out(client, name)
    for number in track(range(changes), description=f"template changes of {name}", console=console):
        image = f"registry.example/{name}:v{number + 1}"
        changed, ordered = stopwatch.expect(f"deployment {name} {image}"), stopwatch.expect(f"puller {image}")
        await _change(client, name, image)
        seen_at = await changed
        baseline.append(await _least(client, stopwatch, f"least-{name}-{number}") - seen_at)
        with suppress(TimeoutError):  # no puller pod: counted below
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reactions[image] = await ordered - seen_at
        await _until_rolled_out(client, name)
        use = use.plus(stopwatch.pulled[image], stopwatch.bound[image])
    plans = first_plans(log, {f"registry.example/{name}:v{number + 1}" for number in range(changes)})
    at_once = {image for image, plan in plans.items() if plan.to_pull}
    return Reactions(
        [seconds for image, seconds in reactions.items() if image in at_once],
        [seconds for image, seconds in reactions.items() if image not in at_once],
        frozenset(reason for image, plan in plans.items() if image not in at_once for reason in plan.skipped),
        baseline,
        changes - len(reactions),
        use,
    )


async def _least(client: KubeletClient, stopwatch: Stopwatch, name: str) -> float:
    """When a pod that is created now is seen."""
    created = stopwatch.expect(f"pod {name}")
    container: Manifest = {"name": "app", "image": BACKGROUND}
    spec: Manifest = {"nodeName": "nowhere", "terminationGracePeriodSeconds": 0, "containers": [container]}
    await client.create(PODS, NAMESPACE, {"metadata": {"name": name, "labels": {"app": "background"}}, "spec": spec})
    seen_at = await created
    await client.delete(PODS, NAMESPACE, name, grace_seconds=0)
    return seen_at


async def _change(client: KubeletClient, name: str, image: str) -> None:
    container: Manifest = {"name": "app", "image": image}
    patch: Manifest = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await client.strategic_patch(DEPLOYMENTS, NAMESPACE, name, patch)


async def _until_rolled_out(client: KubeletClient, name: str) -> None:
    """Return once a Deployment's pods are all of the last template, and the puller has tidied up."""
    async with asyncio.timeout(ROLLOUT_SECONDS):
        while True:
            found = msgspec.json.decode(await client.get(DEPLOYMENTS, NAMESPACE, name), type=_Object)
            status, meta = found.status, found.metadata
            if status.observed_generation == meta.generation and status.updated == status.ready == REPLICAS:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(QUIET_SECONDS)


def _deployment(name: str, selector: Mapping[str, str]) -> Manifest:
    container: Manifest = {
        "name": "app",
        "image": f"registry.example/{name}:v0",
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
    }
    return {
        "metadata": {"name": name, "annotations": {ANNOTATION_ENABLED: TRUE}},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"nodeSelector": dict(selector), "terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


def mean(metrics: Mapping[str, float], name: str) -> float:
    """Mean of a histogram."""
    count = metrics.get(f"{name}_count", 0.0)
    return metrics[f"{name}_sum"] / count if count else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def report(result: Result, console: Console) -> bool:
    """Print the figures; whether the goals are reached."""
    table = Table(title="From a template change to the first puller pod, in milliseconds")
    for column in ("", "p50", "p90", "p99", "max", "changes"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "prewarm, a pool of its own": result.pooled.prewarm,
        "the same, none in the first plan of its pool": result.pooled.later,
        "least: event to pod": result.pooled.baseline,
        "prewarm, all nodes, pulls in the first plan": result.free.prewarm,
        "the same, none in the first plan": result.free.later,
        "least: event to pod, all nodes": result.free.baseline,
    }
    for name, values in rows.items():
        cells = [f"{1000 * percentile(values, share):.0f}" for share in (0.5, 0.9, 0.99, 1.0)] if values else ["-"] * 4
        table.add_row(name, *cells, str(len(values)))
    console.print(table)
    console.print(
        f"In a pool of its own ({POOL_NODES} nodes) nodes are known before the first burst has landed; "
        f"{result.pooled.missed} changes without a puller pod. On all nodes few are likely enough then; "
        f"{result.free.missed} changes without a puller pod in {TIMEOUT_SECONDS:.0f} s (no node was likely enough). "
        f"Reasons of first plans that order none: {', '.join(sorted(result.free.reasons)) or '-'}."
    )
    for name, use in (("in the pool", result.pooled.use), ("on all nodes", result.free.use)):
        console.print(
            f"{name}: {use.pulls} pulls, {_percent(use.used, use.pulls)} on nodes that took a pod; "
            f"{_percent(use.hit, use.later)} of the pods after the first burst came where a pull or a pod had been"
        )
    console.print(
        f"mean inside of the controller, from seeing the change to ordering the pull: {1000 * result.inside:.0f} ms; "
        f"mean plan: {1000 * result.planning:.0f} ms"
    )
    megabytes = 1 << 20
    console.print(
        f"controller: {result.total.cpu_seconds:.1f} CPU seconds in all, {100 * result.idle_cpu_share:.1f} % of a core "
        f"while idle, peak {result.total.peak_bytes / megabytes:.0f} MiB ({result.idle.peak_bytes / megabytes:.0f} MiB "
        "before the changes)"
    )
    reached = (
        bool(result.pooled.prewarm)
        and not (result.pooled.missed or result.pooled.later)
        and percentile(result.pooled.prewarm, 0.5) <= GOAL_P50
        and percentile(result.pooled.prewarm, 0.99) <= GOAL_P99
    )
    console.print(
        f"goal, in a pool of its own: p50 <= {1000 * GOAL_P50:.0f} ms, p99 <= {GOAL_P99:.0f} s: "
        f"{'reached' if reached else 'missed'}"
    )
    return reached


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def main(
    nodes: Annotated[int, typer.Option(min=2, help="Emulated nodes.")] = 1000,
    pods: Annotated[int, typer.Option(min=0, help="Pods that run already.")] = 10_000,
    changes: Annotated[int, typer.Option(min=1, help="Template changes to measure, of each Deployment.")] = 30,
    niceness: Annotated[
        int, typer.Option(min=0, max=19, help="Of the control plane; 0: it competes with the controller for the cores.")
    ] = CONTROL_PLANE_NICENESS,
) -> None:
    """Measure the reaction to template changes beside the least that the API allows."""
    console = Console()
    if not report(asyncio.run(measure(nodes, pods, changes, niceness, console)), console):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
