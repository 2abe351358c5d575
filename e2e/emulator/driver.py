"""The emulator: nodes created, pods watched, the model advanced in real time, its outputs written."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import msgspec

from e2e.emulator import wire
from e2e.emulator.catalog import Catalog
from e2e.emulator.nodes import NodePlan, ObservedNode, manifest
from e2e.emulator.presence import NodeImage, images_of, remote_image
from e2e.emulator.secrets import ObservedSecret, pull_secret
from e2e.emulator.watching import Metadata, Watch
from e2e.emulator.wire import ObservedPod
from e2e.emulator.writer import KubeletClient, Write, Writer
from prewarm.cluster.client import Limits
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError, ClusterError
from prewarm.model.intents import EVENTS, NODES, PODS, Resource
from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.simulation.fleet import Fleet
from prewarm.simulation.manifests import pod_spec
from prewarm.simulation.outputs import (
    ConditionType,
    DiskPressureChanged,
    EventEmitted,
    ImageRemoved,
    NodeImagesChanged,
    Output,
    PodFinallyDeleted,
    PodStatus,
    PodStatusChanged,
    PullFinished,
)
from prewarm.simulation.registry import Registries
from prewarm.simulation.specs import NodeProfile, PodSpec

_log = logging.getLogger(__name__)
SECRETS = Resource("", "v1", "secrets", "Secret")
_PULLS_KEPT = 100_000
_LAGS_KEPT = 10_000
_SHORTEST_WAIT = 0.002
_NODES_AT_ONCE = 20
_DELETION_SECONDS = 0.05
"""After that long a kubelet has torn down a pod that is to be deleted, and asks for its object."""


@dataclass(frozen=True, kw_only=True)
class EmulatorOptions:
    """How to emulate.

    Attributes:
        nodes: the nodes to create; nodes that exist under these names are taken over.
        registries: what nodes can pull; by default everything exists, sized by a `Catalog`.
        time_scale: seconds of the model for each real second.
        writers: requests in flight to the API server.
        pull_log: file to which each pull is appended, one JSON object a line: the kubelets' own account.
        delete_nodes: whether to delete the nodes at the end.
        events: whether to write Events; a thousand kubelets on one machine would spend most of its time on them.
        every_status: whether every step of a pod is written, as real kubelets do; else what `milestone` names.
    """

    nodes: NodePlan
    registries: Registries | None = None
    time_scale: float = 1.0
    writers: int = 64
    pull_log: Path | None = None
    delete_nodes: bool = False
    events: bool = True
    every_status: bool = True


class Emulator:
    """Plays kubelets for the length of an `async with` block.

    Attributes:
        fleet: the model; counters and image stores of nodes can be read from it.
        pulls: the last pulls in the order in which they ended.
        removed: images that nodes deleted.
        writer: what was written, and what waits.
        lags: seconds by which this process was late for what the model had to do, the last ten thousand times.
    """

    def __init__(self, connection: Connection, options: EmulatorOptions) -> None:
        self._options = options
        self._connection = connection
        self._started_wall = time.time()
        self._started_monotonic = time.monotonic()
        self.fleet = Fleet(options.registries or Registries(convention=Catalog()))
        self.pulls: deque[PullFinished] = deque(maxlen=_PULLS_KEPT)
        self.removed: list[ImageRemoved] = []
        self.writer = Writer(options.writers)
        self.lags: deque[float] = deque(maxlen=_LAGS_KEPT)
        self._stack = AsyncExitStack()
        self._client: KubeletClient | None = None
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._generations: dict[str, int] = {}
        self._bound: dict[str, PodSpec] = {}
        self._nodes: dict[str, ObservedNode] = {}
        self._created: dict[str, str] = {}
        self._deleting: set[str] = set()
        self._shown: dict[str, PodStatusChanged] = {}
        self._milestones: dict[str, str] = {}
        self._seen_ready: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._log_file: TextIO | None = None

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(
            KubeletClient(self._connection, limits=Limits(request=60.0), field_manager="kubelet")
        )
        try:
            if self._options.pull_log is not None:
                self._log_file = self._stack.enter_context(self._options.pull_log.open("a", encoding="utf-8"))
            await self.add_nodes(self._options.nodes)
            listed = asyncio.Event()
            self._task = asyncio.create_task(self._run(listed), name="emulator")
            await self._until(listed)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def check(self) -> None:
        """Do nothing while the emulator runs.

        Raises:
            Exception: what ended it.
        """
        if self._task is not None and self._task.done():
            self._task.result()
            raise RuntimeError("the emulator has stopped")

    async def wait(self) -> None:
        """Run until cancelled, or until it fails."""
        if self._task is not None:
            await self._task

    async def add_nodes(self, plan: NodePlan) -> list[NodeProfile]:
        """Create nodes and start their kubelets; a node that exists keeps its object and its images."""
        profiles = [profile for profile in plan.profiles() if profile.name not in self.fleet.nodes]
        gate = asyncio.Semaphore(_NODES_AT_ONCE)

        async def create(profile: NodeProfile) -> None:
            async with gate:
                await self._create_node(profile)

        async with asyncio.TaskGroup() as group:
            for profile in profiles:
                group.create_task(create(profile), name=f"emulator-create-{profile.name}")
        return profiles

    async def delete_node(self, name: str) -> None:
        """Delete a node with its kubelet; its pods are then the pod garbage collector's.

        A node that is added under the same name later starts from nothing.
        """
        self._created.pop(name, None)
        await self._api.delete(NODES, "", name)
        self.feed(lambda: self.fleet.remove_node(name))

    def feed(self, change: Callable[[], None]) -> None:
        """Apply an input to the model at the present time (a push to a registry, a kubelet's restart)."""
        self._advance()
        change()
        self._advance()
        self._wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once a condition on this emulator holds; looked at whenever the model got an input or did something.

        Raises:
            Exception: what ended the emulator.
        """
        while not condition():
            self.check()
            await self._moved.wait()

    # Time

    def _now(self) -> float:
        """Model time starts at 0: doubles of today's Unix time are too coarse for bytes at gigabits."""
        return (time.monotonic() - self._started_monotonic) * self._options.time_scale

    def ended_at(self, pull: PullFinished) -> float:
        """When a pull ended, on the monotonic clock."""
        return self._started_monotonic + pull.at / self._options.time_scale

    def _wall(self, model: float) -> float:
        return self._started_wall + model / self._options.time_scale

    def _model(self, wall: float) -> float:
        return (wall - self._started_wall) * self._options.time_scale

    def _advance(self) -> None:
        for output in self.fleet.advance(self._now()):
            self._dispatch(output)
        self._moved.set()
        self._moved = asyncio.Event()

    async def _clock(self) -> None:
        wakeup: float | None = None
        while True:
            if wakeup is not None:
                self.lags.append(max(0.0, (self._now() - wakeup) / self._options.time_scale))
            self._advance()
            wakeup = self.fleet.next_wakeup()
            self._wake.clear()
            wait = None if wakeup is None else max(_SHORTEST_WAIT, (wakeup - self._now()) / self._options.time_scale)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    # Tasks

    @property
    def _api(self) -> KubeletClient:
        if self._client is None:
            raise RuntimeError("the emulator is used outside of its `async with` block")
        return self._client

    async def _run(self, listed: asyncio.Event) -> None:
        pods = Watch(
            self._api, PODS, ObservedPod, seen=self._pod_seen, gone=self._pod_gone, field_selector="spec.nodeName!="
        )
        secrets = Watch(
            self._api,
            SECRETS,
            ObservedSecret,
            seen=self._secret_seen,
            gone=self._secret_gone,
            field_selector="type=kubernetes.io/dockerconfigjson",
        )
        nodes = Watch(self._api, NODES, ObservedNode, seen=self._node_seen, gone=self._node_gone)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.writer.run(), name="emulator-writer")
            group.create_task(nodes.run(), name="emulator-nodes")
            group.create_task(secrets.run(), name="emulator-secrets")
            await secrets.listed.wait()
            group.create_task(pods.run(), name="emulator-pods")
            await pods.listed.wait()
            group.create_task(self._clock(), name="emulator-clock")
            listed.set()

    async def _until(self, listed: asyncio.Event) -> None:
        """Wait until the present state is known, or the emulator has failed."""
        assert self._task is not None
        waiting = asyncio.create_task(listed.wait(), name="emulator-listed")
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        self.check()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._options.delete_nodes and self._client is not None:
            await asyncio.gather(*(self._delete_if_there(name) for name in self.fleet.nodes))
        await self._stack.aclose()

    async def _delete_if_there(self, name: str) -> None:
        try:
            await self._api.delete(NODES, "", name)
        except ClusterError as error:
            _log.info("emulator: node %s was not deleted: %s", name, error)

    # Nodes

    async def _create_node(self, profile: NodeProfile) -> None:
        try:
            stored = await self._api.create(NODES, "", manifest(profile))
            images: list[NodeImage] = []
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            stored = await self._api.get(NODES, "", profile.name)
            images = images_of(stored)
        self._created[profile.name] = msgspec.json.decode(stored, type=ObservedNode).metadata.uid

        def start() -> None:
            kubelet = self.fleet.add_node(profile)
            for image in images:
                found = remote_image(image, self.fleet.registries)
                if found is not None:
                    for name in found[0]:
                        kubelet.preload(name, found[1])
            # A kubelet takes the pods that are bound to its node's name, whoever bore the name before.
            for spec in [spec for spec in self._bound.values() if spec.node_name == profile.name]:
                self.fleet.pod_bound(spec)

        self.feed(start)

    # Inputs

    def _node_seen(self, node: ObservedNode) -> None:
        name, before = node.metadata.name, self._nodes.get(node.metadata.uid)
        self._nodes[node.metadata.uid] = node
        if before != node:
            self.feed(lambda: self.fleet.node_changed(name, node.metadata.labels, node.taints))

    def _node_gone(self, meta: Metadata) -> None:
        self._nodes.pop(meta.uid, None)
        if meta.name in self.fleet.nodes and self._created.get(meta.name) == meta.uid:
            self.feed(lambda: self.fleet.remove_node(meta.name))

    def _pod_seen(self, pod: ObservedPod) -> None:
        uid, meta = pod.metadata.uid, pod.metadata
        first = uid not in self._generations
        if first or self._generations[uid] != meta.generation:
            self._generations[uid] = meta.generation
            try:
                spec = pod_spec(pod)
            except ValueError as error:
                _log.warning("emulator: pod %s/%s is left alone: %s", meta.namespace, meta.name, error)
                return
            self._bound[uid] = spec
            if first:
                known: tuple[ContainerStatus, ...] = ()
                started = None
                if pod.status.start_time is not None:
                    known = pod.known(self._model)
                    started = self._model(wire.parse_time(pod.status.start_time, self._started_wall))
                self.feed(lambda: self.fleet.pod_bound(spec, known, started, finished=pod.finished))
            elif meta.deletion_timestamp is None:
                self.feed(lambda: self.fleet.pod_changed(spec))
        if meta.deletion_timestamp is not None and uid not in self._deleting:
            self._deleting.add(uid)
            grace = meta.deletion_grace_period_seconds or 0.0
            self.feed(lambda: self.fleet.pod_deleted(uid, grace, meta.generation))
        self._reconcile(pod)

    def _reconcile(self, pod: ObservedPod) -> None:
        """Write a status again that somebody else changed, as the kubelet's status manager does.

        The node lifecycle controller makes pods unready while their node's heartbeats are late.
        """
        uid, shown = pod.metadata.uid, self._shown.get(pod.metadata.uid)
        if pod.ready:
            self._seen_ready.add(uid)
        elif uid in self._seen_ready:
            self._seen_ready.discard(uid)
            if shown is not None and any(c.type is ConditionType.READY and c.status for c in shown.status.conditions):
                self._dispatch(shown)

    def _pod_gone(self, meta: Metadata) -> None:
        self._generations.pop(meta.uid, None)
        self._bound.pop(meta.uid, None)
        self._deleting.discard(meta.uid)
        self._seen_ready.discard(meta.uid)
        self._shown.pop(meta.uid, None)
        self._milestones.pop(meta.uid, None)
        self.feed(lambda: self.fleet.pod_gone(meta.uid))

    def _secret_seen(self, secret: ObservedSecret) -> None:
        value = pull_secret(secret)
        if value is not None:
            self.feed(lambda: self.fleet.secret_changed(value))

    def _secret_gone(self, meta: Metadata) -> None:
        self.feed(lambda: self.fleet.secret_gone(meta.namespace, meta.name))

    # Outputs

    def _dispatch(self, output: Output) -> None:
        api, put, wall = self._api, self.writer.put, self._wall
        match output:
            case PodStatusChanged():
                self._shown[output.uid] = output
                if self._options.every_status or self._is_new_milestone(output):
                    shown = output
                    put(
                        shown.uid,
                        "status",
                        lambda: self._while_there(shown.uid, lambda: self._write_status(shown)),
                        replace=True,
                    )
            case PodFinallyDeleted() if output.uid not in self._generations:
                pass  # Its object is gone already; a kubelet sees that, too.
            case PodFinallyDeleted():
                gone = output
                put(
                    gone.uid,
                    "delete",
                    lambda: self._while_there(
                        gone.uid, lambda: api.delete(PODS, gone.namespace, gone.name, uid=gone.uid, grace_seconds=0)
                    ),
                )
            case EventEmitted():
                event = output
                if self._options.events:
                    put(("events", event.uid), "event", lambda: self._write_event(event))
            case NodeImagesChanged():
                node, images = output.node, wire.images_patch(output.images)
                put(
                    ("images", node),
                    "images",
                    lambda: api.strategic_patch(NODES, "", node, images, "status"),
                    replace=True,
                )
            case DiskPressureChanged():
                name, pressure = output.node, wire.pressure_patch(wall(output.at), pressure=output.pressure)
                put(("pressure", name), "pressure", lambda: api.strategic_patch(NODES, "", name, pressure, "status"))
            case PullFinished():
                self.pulls.append(output)
                self._log_pull(output)
            case ImageRemoved():
                self.removed.append(output)

    def _is_new_milestone(self, shown: PodStatusChanged) -> bool:
        reached = milestone(shown.status)
        if not reached or self._milestones.get(shown.uid) == reached:
            return False
        self._milestones[shown.uid] = reached
        return True

    async def _write_status(self, shown: PodStatusChanged) -> None:
        body = {"metadata": {"uid": shown.uid}, **wire.status_patch(shown.status, self._wall)}
        await self._api.strategic_patch(PODS, shown.namespace, shown.name, body, "status")

    async def _while_there(self, uid: str, write: Write) -> None:
        """Write about a pod unless its object went while the write waited: a kubelet looks first, too.

        Of a finished pod the server shows its deletion and removes it a millisecond later.
        """
        if uid in self._deleting:
            await asyncio.sleep(_DELETION_SECONDS)
        if uid in self._generations:
            await write()

    async def _write_event(self, event: EventEmitted) -> None:
        if not event.created:
            try:
                patch = wire.event_patch(event, self._wall)
                await self._api.strategic_patch(EVENTS, event.namespace, event.event, patch)
            except ApiError as error:
                if not error.not_found:
                    raise
            else:
                return
        await self._api.create(EVENTS, event.namespace, wire.event_manifest(event, self._wall))

    def _log_pull(self, pull: PullFinished) -> None:
        if self._log_file is None:
            return
        line = {
            "node": pull.node,
            "namespace": pull.namespace,
            "pod": pull.pod,
            "uid": pull.uid,
            "image": pull.image,
            "queuedAt": self._wall(pull.queued_at),
            "startedAt": self._wall(pull.started_at),
            "finishedAt": self._wall(pull.at),
            "downloadedBytes": pull.downloaded_bytes,
            "sizeBytes": pull.size_bytes,
            "error": pull.error,
        }
        self._log_file.write(json.dumps(line) + "\n")
        self._log_file.flush()


def milestone(status: PodStatus) -> str:
    """What a daemon would tell that pulls by itself: that pulls have begun, what went wrong, the end; "" before."""
    if status.phase in {PodPhase.SUCCEEDED, PodPhase.FAILED}:
        return status.phase.value
    troubles = (found.reason for found in (*status.init_containers, *status.containers) if found.message)
    begun = all(found.phase is ContainerPhase.TERMINATED for found in status.init_containers)
    return " ".join(troubles) or ("Begun" if begun else "")
