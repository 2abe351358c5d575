"""One pod's worker in the kubelet: the syncs that pull its images, start its containers and make its status.

After pkg/kubelet/pod_workers.go and kubelet.go (SyncPod, SyncTerminatingPod, SyncTerminatedPod), kubelet 1.36.3.
A sync makes the status first, from what the runtime cache showed, and then does everything there is to do: that is
why status says nothing while images are pulled and is one sync behind the events.
"""

from collections.abc import Generator, Sequence
from enum import Enum, auto
from typing import Protocol

from msgspec.structs import replace

from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.model.removals import Removal, RemovalReport
from prewarm.simulation import messages
from prewarm.simulation.agenda import Agenda, Process, Signal, Timer
from prewarm.simulation.containers import Containers, crash_loop, crash_loop_event
from prewarm.simulation.messages import EventType
from prewarm.simulation.outputs import Condition, ConditionType, PodFinallyDeleted, PodStatus, PodStatusChanged
from prewarm.simulation.pulls import ImageManager, ImageProblem
from prewarm.simulation.specs import Chance, ContainerSpec, NodeProfile, PodSpec, RestartPolicy
from prewarm.simulation.status import Observed, make_status
from prewarm.simulation.store import StoredImage

_STOP_STEP = 0.1
"""How often containers that are being stopped are looked at, in seconds."""
_IMAGE_PROBLEMS = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
"""Reasons that events name without their message."""

Steps = Generator[float | Signal, None, None]
Volumes = dict[str, ImageProblem | StoredImage]
"""Image volumes by name: what was pulled, or why it was not."""


class Stage(Enum):
    """Life of a worker; each stage is a sync of another kind."""

    SYNCING = auto()
    TERMINATING = auto()
    TERMINATED = auto()
    DONE = auto()


class Activity(Enum):
    """What the worker's loop does now."""

    IDLE = auto()
    WAITING = auto()
    """It has something to do and waits for the runtime cache to be newer than its last sync."""
    BUSY = auto()


class Node(Protocol):
    """What a worker needs of its kubelet."""

    agenda: Agenda
    profile: NodeProfile
    images: ImageManager
    chance: Chance

    def emit(self, output: PodStatusChanged | PodFinallyDeleted) -> None:
        """Hand an output to the API server."""

    def record(self, pod: PodSpec, event_type: EventType, reason: str, message: str, field_path: str = "") -> None:
        """Record an event."""

    def next_relist(self, after: float) -> float:
        """The first relist later than a time."""

    def next_tick(self, at: float) -> float:
        """The first tick not before a time."""

    def remove_images(self, removals: Sequence[Removal]) -> RemovalReport:
        """Have the runtime remove images."""

    def changed(self, worker: "PodWorker") -> None:
        """A container of this pod changed: the next relist has to look."""

    def done(self, worker: "PodWorker") -> None:
        """The pod has ended; its resources are free."""


class PodWorker:
    """Syncs one pod."""

    def __init__(self, node: Node, spec: PodSpec, pod_ip: str) -> None:
        self._node = node
        self.spec = spec
        self.stage = Stage.SYNCING
        self.containers = Containers(
            node.agenda,
            node.profile.runtime,
            spec.uid,
            changed=lambda: node.changed(self),
            became_ready=self._became_ready,
            removes=node.remove_images,
        )
        self._cached: dict[str, ContainerStatus] = {}
        self._relisted: dict[str, ContainerStatus] = {}
        self._problems: dict[str, ImageProblem] = {}
        self._sandbox = self._sandbox_relisted = self._mounted = False
        self._pod_ip = pod_ip
        self._shown_ip = ""
        self._started_at = node.agenda.now
        self.status: PodStatus | None = None
        self._activity = Activity.IDLE
        self._pending = False
        self._last_end = float("-inf")
        self._cache_fresh = True
        self._process: Process | None = None
        self._retry: Timer | None = None
        self._failed = False
        self._started_any = False
        self._attempt = 0
        self.deleting = False
        self.gone = False
        self._grace: float | None = None
        self.failure: tuple[str, str] = ("", "")
        self.disrupted = False

    # Inputs

    def begin(self) -> None:
        """Take the pod: the first sync, and its deadline."""
        deadline = self.spec.active_deadline_seconds
        if deadline is not None:
            self._node.agenda.at(self._node.next_tick(self._started_at + deadline), self.request)
        self.request()

    def resume(self, containers: tuple[ContainerStatus, ...], started_at: float) -> None:
        """Take over containers that the runtime already has, as a kubelet finds them after a restart."""
        self._started_at = started_at
        self.containers.take_over(self.spec, containers)
        self._sandbox = self._mounted = bool(self.containers.now)
        self._look()
        self._relisted = dict(self.containers.now)
        self._sandbox_relisted = self._sandbox

    def change(self, spec: PodSpec) -> None:
        """The pod's spec changed: a container's image, or the deadline."""
        self.spec = spec
        self.request()

    def terminate(self, grace: float | None = None, *, failure: tuple[str, str] = ("", ""), gone: bool = False) -> None:
        """Stop the pod after the sync in progress: deleted by its owner, evicted, or its object is gone."""
        self.gone = self.gone or gone
        self.deleting = self.deleting or not failure[0]
        self._grace = grace if self._grace is None or grace is None else min(self._grace, grace)
        if failure[0] and not self.failure[0]:
            self.failure = failure
        if self.stage is Stage.SYNCING:
            self.stage = Stage.TERMINATING
            self.request()
        elif self.stage is Stage.DONE and self.deleting:
            self._finally_deleted()

    def cancel(self) -> None:
        """The kubelet stops: what it was doing is lost, containers stay as they are."""
        if self._process is not None:
            self._process.cancel()
        if self._retry is not None:
            self._retry.cancel()
        self._process = self._retry = None
        self._activity, self._pending = Activity.IDLE, False
        self._problems.clear()
        self._mounted = False
        self._look()
        self._cache_fresh = True

    # The loop

    def request(self) -> None:
        """Ask for a sync; requests while one is running come together in one more."""
        if self.stage is Stage.DONE:
            return
        if self._activity is Activity.IDLE:
            self._schedule()
        else:
            self._pending = True

    def relisted(self) -> None:
        """Relist: refresh the cache; changed containers ask for a sync."""
        changes = sum(status != self._relisted.get(name) for name, status in self.containers.now.items())
        changes += self._sandbox != self._sandbox_relisted
        self._look()
        self._relisted = dict(self.containers.now)
        self._sandbox_relisted = self._sandbox
        if changes:
            self.request()
        if changes > 1 and not self._node.profile.timings.relist_joins:
            self.request()

    def _became_ready(self, status: ContainerStatus) -> None:
        """A passed probe is shown at once (status manager, SetContainerReadiness), not at the next sync."""
        self._relisted[status.name] = self._cached[status.name] = status
        if self.stage is Stage.SYNCING:
            self.update_status()

    def _look(self) -> None:
        """Refresh the runtime cache; the sandbox's address comes with it."""
        self._cached = dict(self.containers.now)
        if self._sandbox:
            self._shown_ip = self._pod_ip

    def _schedule(self) -> None:
        self._activity = Activity.WAITING
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        agenda = self._node.agenda
        at = agenda.now if self._cache_fresh else max(agenda.now, self._node.next_relist(self._last_end))
        agenda.at(at, self._begin_sync)

    def _begin_sync(self) -> None:
        if self._activity is not Activity.WAITING:
            return
        self._activity = Activity.BUSY
        self._failed = self._started_any = False
        steps = {
            Stage.SYNCING: self._sync,
            Stage.TERMINATING: self._terminating,
            Stage.TERMINATED: self._terminated,
        }[self.stage]()
        self._process = Process(self._node.agenda, steps, self._ended)
        self._process.run()

    def _ended(self) -> None:
        agenda = self._node.agenda
        self._process = None
        self._activity = Activity.IDLE
        self._last_end = agenda.now
        self._cache_fresh = False
        if self.stage is Stage.DONE:
            return
        if self._started_any and not self._failed:
            # A sync that started containers looks at the runtime again at once (seen in every trace).
            self._look()
            self._cache_fresh = True
            self._pending = True
        if self._pending or self.stage is not Stage.SYNCING:
            self._pending = False
            self._schedule()
        else:
            self._plan_retry()

    def _plan_retry(self) -> None:
        timings = self._node.profile.timings
        self._attempt += 1
        chance = self._node.chance(self._node.profile.name, "retry", self.spec.uid, self._attempt)
        if self._failed:
            low, high = timings.retry_min, timings.retry_max
        elif self.spec.image_volumes:
            # A settled pod's syncs show nothing, unless it has image volumes: those are asked for again.
            low, high = timings.resync_min, timings.resync_max
        else:
            return
        agenda = self._node.agenda
        due = self._node.next_tick(agenda.now + low + (high - low) * chance)
        self._retry = agenda.at(due, self.request)

    # SyncPod

    def _sync(self) -> Steps:
        node = self._node
        if self.stage is Stage.SYNCING and self._deadline_passed():
            self.failure = ("DeadlineExceeded", messages.DEADLINE_EXCEEDED)
        phase = self.update_status()
        if phase in {PodPhase.SUCCEEDED, PodPhase.FAILED}:
            self.stage = Stage.TERMINATING
            return
        spec, timings = self.spec, node.profile.timings
        if not self._mounted and spec.has_volumes:
            yield timings.mount
        self._mounted = True
        missing = node.images.missing_secrets(spec)
        if missing:
            text = messages.missing_secrets(missing)
            node.record(spec, EventType.WARNING, "FailedToRetrieveImagePullSecret", text)
        if not self._sandbox:
            yield timings.sandbox
            self._sandbox = True
            self._show_sandbox()
            node.changed(self)
        volumes: Volumes = {}
        for volume in spec.image_volumes:
            volumes[volume.name] = yield from node.images.ensure(spec, volume.reference, volume.pull_policy, "")
        if (yield from self._start_init_containers(volumes)):
            for container in spec.containers:
                status = self.containers.now.get(container.name)
                if self.containers.replaced(container):
                    yield from self._stop_changed(container)
                elif status is not None and not self._restartable(container, status):
                    continue
                yield from self._start(container, f"spec.containers{{{container.name}}}", volumes, init=False)

    def _start_init_containers(self, volumes: Volumes) -> Generator[float | Signal, None, bool]:
        """Start the init container whose turn it is; whether all are done, so that the others may start."""
        for container in self.spec.init_containers:
            status = self.containers.now.get(container.name)
            if status is None or self._restartable(container, status, init=True):
                path = f"spec.initContainers{{{container.name}}}"
                yield from self._start(container, path, volumes, init=True)
                if not container.sidecar or container.name in self._problems:
                    return False
            elif not container.sidecar and (status.phase is not ContainerPhase.TERMINATED or status.exit_code != 0):
                return False
        return True

    def _restartable(self, container: ContainerSpec, status: ContainerStatus, *, init: bool = False) -> bool:
        """Whether a container that has ended starts again; an init container that succeeded never does."""
        if status.phase is not ContainerPhase.TERMINATED:
            return False
        policy = RestartPolicy.ALWAYS if container.sidecar else self.spec.restart_policy
        if init and not container.sidecar and policy is RestartPolicy.ALWAYS:
            policy = RestartPolicy.ON_FAILURE
        return policy is RestartPolicy.ALWAYS or (policy is RestartPolicy.ON_FAILURE and status.exit_code != 0)

    def _start(self, container: ContainerSpec, path: str, volumes: Volumes, *, init: bool) -> Steps:
        node, spec, name = self._node, self.spec, container.name
        delay = None if self.containers.replaced(container) else self.containers.restart_delay(container)
        if delay is not None:
            self._problems[name] = crash_loop(spec, container, delay)
            self._failed = True
            node.record(spec, EventType.WARNING, "BackOff", crash_loop_event(spec, container), path)
            return
        self._problems.pop(name, None)
        mounted = {mount: volumes[mount] for mount in container.mounts if mount in volumes}
        problem = next((volume for volume in mounted.values() if isinstance(volume, ImageProblem)), None)
        if problem is not None:
            self._fail(container, problem, path)
            return
        image = yield from node.images.ensure(spec, container.image, container.pull_policy, path)
        if isinstance(image, ImageProblem):
            self._fail(container, image, path)
            return
        refusal = self.containers.refusal(spec, container, image)
        if refusal is not None:
            self._fail(container, refusal, path)
            return
        yield node.profile.timings.create
        node.record(spec, EventType.NORMAL, "Created", "Container created", path)
        yield node.profile.timings.start
        used = {mount: volume for mount, volume in mounted.items() if isinstance(volume, StoredImage)}
        status = self.containers.start(container, image, used, init=init)
        if status.phase is ContainerPhase.RUNNING:
            self._started_any = True
            node.record(spec, EventType.NORMAL, "Started", "Container started", path)
        else:
            self._failed = True
            node.record(spec, EventType.WARNING, "Failed", f"Error: {status.message}", path)

    def _stop_changed(self, container: ContainerSpec) -> Steps:
        """In-place image change: the old container is killed before the new image is asked for."""
        if self.containers.now[container.name].phase is ContainerPhase.RUNNING:
            text = f"Container {container.name} definition changed, will be restarted"
            path = f"spec.containers{{{container.name}}}"
            self._node.record(self.spec, EventType.NORMAL, "Killing", text, path)
            yield self.containers.stop(container, self.spec.grace_seconds)

    def _fail(self, container: ContainerSpec, problem: ImageProblem, path: str) -> None:
        self._problems[container.name] = problem
        self._failed = True
        image_problem = problem.reason in _IMAGE_PROBLEMS
        text = problem.reason if image_problem else problem.message
        self._node.record(self.spec, EventType.WARNING, "Failed", f"Error: {text}", path)

    # SyncTerminatingPod and SyncTerminatedPod

    def _terminating(self) -> Steps:
        if self.deleting:
            self._problems.clear()
        self.update_status()
        longest = 0.0
        for container in (*self.spec.init_containers, *self.spec.containers):
            status = self.containers.now.get(container.name)
            if status is not None and status.phase is ContainerPhase.RUNNING:
                kind = "initContainers" if status.init else "containers"
                path = f"spec.{kind}{{{container.name}}}"
                self._node.record(self.spec, EventType.NORMAL, "Killing", f"Stopping container {container.name}", path)
                grace = self.spec.grace_seconds if self._grace is None else self._grace
                longest = max(longest, self.containers.stop(container, grace))
        while longest > 0 and self.containers.running:
            step = min(longest, _STOP_STEP)
            longest -= step
            yield step
        yield self._node.profile.timings.stop_sandbox
        self._sandbox = False
        self._look()
        self._node.changed(self)
        self.update_status(stopped=True)
        self.stage = Stage.TERMINATED

    def _terminated(self) -> Steps:
        self.update_status(stopped=True, lost=True)
        self.stage = Stage.DONE
        self._node.done(self)
        if self.deleting:
            self._finally_deleted()
        yield from ()

    def _finally_deleted(self) -> None:
        if not self.gone:
            self.gone = True
            node, spec = self._node, self.spec
            node.emit(PodFinallyDeleted(node.agenda.now, spec.namespace, spec.name, spec.uid, node.profile.name))

    # Status

    def _deadline_passed(self) -> bool:
        deadline = self.spec.active_deadline_seconds
        return deadline is not None and self._node.agenda.now >= self._started_at + deadline

    def update_status(self, *, stopped: bool = False, lost: bool = False) -> PodPhase:
        """Make the status, and emit it if it changed; the phase that the containers amount to."""
        node, spec = self._node, self.spec
        if self.failure[0] == "DeadlineExceeded":
            node.record(spec, EventType.NORMAL, *self.failure)
        seen = Observed(
            spec,
            self._cached,
            self._problems,
            self._sandbox,
            self._started_at,
            self._shown_ip,
            node.profile.host_ip,
            stopped,
            lost,
            *(("", "") if self.disrupted and not stopped else self.failure),
            self.disrupted and stopped,
        )
        status, phase = make_status(seen, self.status, node.agenda.now)
        self._show(status)
        return phase

    def _show(self, status: PodStatus) -> None:
        if status != self.status:
            self.status = status
            if not self.gone:
                node, spec = self._node, self.spec
                node.emit(
                    PodStatusChanged(node.agenda.now, spec.namespace, spec.name, spec.uid, node.profile.name, status)
                )

    def _show_sandbox(self) -> None:
        """From 1.36 PodReadyToStartContainers turns true as soon as the sandbox is there, before images are pulled."""
        status = self.status
        if status is not None:
            ready = Condition(ConditionType.READY_TO_START, True, self._node.agenda.now)
            self._show(replace(status, conditions=(ready, *status.conditions[1:])))
