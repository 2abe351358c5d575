"""One pod's worker in the kubelet: the syncs that pull its images, start its containers and make its status.

After pkg/kubelet/pod_workers.go and kubelet.go (SyncPod, SyncTerminatingPod, SyncTerminatedPod), kubelet 1.36.3.
A sync makes the status first, from what the runtime cache showed, and then does everything there is to do: that is
why status says nothing while images are pulled and is one sync behind the events.
"""

from collections.abc import Generator
from enum import Enum, auto
from hashlib import sha256
from typing import Protocol

from msgspec.structs import replace

from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.simulation import messages
from prewarm.simulation.agenda import Agenda, Process, Signal, Timer
from prewarm.simulation.messages import EventType
from prewarm.simulation.outputs import Condition, ConditionType, PodFinallyDeleted, PodStatus, PodStatusChanged
from prewarm.simulation.pulls import ImageManager, ImageProblem
from prewarm.simulation.specs import Chance, ContainerSpec, NodeProfile, PodSpec, RestartPolicy
from prewarm.simulation.status import Observed, make_status
from prewarm.simulation.store import StoredImage, repository_digest

_MINIMUM_GRACE = 2.0
"""minimumGracePeriodInSeconds of kuberuntime."""
_KILL_SECONDS = 0.1
_IMAGE_PROBLEMS = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
"""Reasons that events name without their message."""

Steps = Generator[float | Signal, None, None]


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
        self.runtime: dict[str, ContainerStatus] = {}
        """Containers as they are; a restarted one replaces the one before."""
        self._cached: dict[str, ContainerStatus] = {}
        self._relisted: dict[str, ContainerStatus] = {}
        self.images: dict[str, StoredImage] = {}
        """What each container runs, by name; mounted image volumes by `container/volume`."""
        self._started_from: dict[str, str] = {}
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
        self._exits: dict[str, Timer] = {}
        self._restarts_after: dict[str, tuple[float, float]] = {}
        self._failed = False
        self._started_any = False
        self._attempt = self._refused = 0
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
        for status in containers:
            if status.phase is not ContainerPhase.WAITING:
                self._sandbox = self._mounted = True
                self.runtime[status.name] = status
        self._look()
        self._relisted = dict(self.runtime)
        self._sandbox_relisted = self._sandbox
        for container in (*self.spec.init_containers, *self.spec.containers):
            status_now = self.runtime.get(container.name)
            if status_now is not None:
                self._started_from[container.name] = container.image
                if status_now.phase is ContainerPhase.RUNNING:
                    self._plan_exit(container, status_now.started_at or self._node.agenda.now)

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
        changes = sum(status != self._relisted.get(name) for name, status in self.runtime.items())
        changes += self._sandbox != self._sandbox_relisted
        self._look()
        self._relisted = dict(self.runtime)
        self._sandbox_relisted = self._sandbox
        if changes:
            self.request()
        if changes > 1 and not self._node.profile.timings.relist_joins:
            self.request()

    def _look(self) -> None:
        """Refresh the runtime cache; the sandbox's address comes with it."""
        self._cached = dict(self.runtime)
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
        volumes: dict[str, ImageProblem | StoredImage] = {}
        for volume in spec.image_volumes:
            volumes[volume.name] = yield from node.images.ensure(spec, volume.reference, volume.pull_policy, "")
        for container in spec.init_containers:
            status = self.runtime.get(container.name)
            if status is None or self._restartable(container, status):
                path = f"spec.initContainers{{{container.name}}}"
                yield from self._start(container, path, volumes, init=True)
                if container.sidecar and container.name not in self._problems:
                    continue
                return
            if not container.sidecar and (status.phase is not ContainerPhase.TERMINATED or status.exit_code != 0):
                return
        for container in spec.containers:
            status = self.runtime.get(container.name)
            if status is not None and self._started_from.get(container.name) != container.image:
                yield from self._stop_changed(container)
            elif status is not None and not self._restartable(container, status):
                continue
            yield from self._start(container, f"spec.containers{{{container.name}}}", volumes, init=False)

    def _restartable(self, container: ContainerSpec, status: ContainerStatus) -> bool:
        if status.phase is not ContainerPhase.TERMINATED:
            return False
        policy = RestartPolicy.ALWAYS if container.sidecar else self.spec.restart_policy
        return policy is RestartPolicy.ALWAYS or (policy is RestartPolicy.ON_FAILURE and status.exit_code != 0)

    def _start(
        self,
        container: ContainerSpec,
        path: str,
        volumes: dict[str, ImageProblem | StoredImage],
        *,
        init: bool,
    ) -> Steps:
        node, spec, name = self._node, self.spec, container.name
        before = self.runtime.get(name)
        if before is not None and self._crash_loop(container, before, path):
            return
        self._problems.pop(name, None)
        for mount in container.mounts:
            mounted = volumes.get(mount)
            if isinstance(mounted, ImageProblem):
                self._fail(container, mounted, path)
                return
        image = yield from node.images.ensure(spec, container.image, container.pull_policy, path)
        if isinstance(image, ImageProblem):
            self._fail(container, image, path)
            return
        problem = self._creation_problem(container, image, has_image_mount=any(m in volumes for m in container.mounts))
        if problem is not None:
            self._fail(container, problem, path)
            return
        yield node.profile.timings.create
        node.record(spec, EventType.NORMAL, "Created", "Container created", path)
        yield node.profile.timings.start
        self.images[name] = image
        for mount in container.mounts:
            volume = volumes.get(mount)
            if isinstance(volume, StoredImage):
                self.images[f"{name}/{mount}"] = volume
        self._run(container, image, path, 0 if before is None else before.restart_count + 1, init=init)
        node.changed(self)

    def _run(self, container: ContainerSpec, image: StoredImage, path: str, restarts: int, *, init: bool) -> None:
        node, now, name = self._node, self._node.agenda.now, container.name
        self._started_from[name] = container.image
        identity = sha256(f"{self.spec.uid}/{name}/{restarts}".encode()).hexdigest()
        running = ContainerStatus(
            name,
            ContainerPhase.RUNNING,
            image.shown_name,
            repository_digest(container.image, image),
            started_at=now,
            restart_count=restarts,
            ready=not init and container.startup_seconds <= 0,
            init=init,
            container_id=f"containerd://{identity}",
        )
        if container.start_error:
            text = messages.start_error(container.command, node.profile.runtime)
            self.runtime[name] = replace(
                running,
                phase=ContainerPhase.TERMINATED,
                reason="StartError",
                message=text,
                exit_code=128,
                started_at=0.0,
                finished_at=now,
                ready=False,
            )
            node.record(self.spec, EventType.WARNING, "Failed", f"Error: {text}", path)
            self._failed = True
            return
        self.runtime[name] = running
        self._started_any = True
        node.record(self.spec, EventType.NORMAL, "Started", "Container started", path)
        self._plan_exit(container, now)

    def _creation_problem(
        self, container: ContainerSpec, image: StoredImage, *, has_image_mount: bool
    ) -> ImageProblem | None:
        if container.must_be_non_root and (not image.remote.user.isdigit() or int(image.remote.user) == 0):
            pod = f"{self.spec.name}_{self.spec.namespace}({self.spec.uid})"
            user = "" if image.remote.user.isdigit() else image.remote.user
            return ImageProblem(
                "CreateContainerConfigError", messages.cannot_verify_non_root(user, pod, container.name)
            )
        if has_image_mount and not self._node.profile.runtime.mounts_image_volumes:
            self._refused += 1
            identity = sha256(f"{self.spec.uid}/{container.name}/refused/{self._refused}".encode()).hexdigest()
            return ImageProblem("CreateContainerError", messages.NO_IMAGE_MOUNT.format(id=identity))
        return None

    def _fail(self, container: ContainerSpec, problem: ImageProblem, path: str) -> None:
        self._problems[container.name] = problem
        self._failed = True
        image_problem = problem.reason in _IMAGE_PROBLEMS
        text = problem.reason if image_problem else problem.message
        self._node.record(self.spec, EventType.WARNING, "Failed", f"Error: {text}", path)

    def _crash_loop(self, container: ContainerSpec, status: ContainerStatus, path: str) -> bool:
        """Back-off before a container that ended is started again: 10 s doubling up to 300 s (MaxContainerBackOff)."""
        now = self._node.agenda.now
        ended = status.finished_at or now
        seconds, last = self._restarts_after.get(container.name, (0.0, float("-inf")))
        if ended == last and now < ended + seconds:
            pod = f"{self.spec.name}_{self.spec.namespace}({self.spec.uid})"
            message = f"back-off {messages.go_duration(seconds)} restarting failed container={container.name} pod={pod}"
            self._problems[container.name] = ImageProblem("CrashLoopBackOff", message)
            text = f"Back-off restarting failed container {container.name} in pod {pod}"
            self._node.record(self.spec, EventType.WARNING, "BackOff", text, path)
            self._failed = True
            return True
        if ended != last:
            # The first restart is at once, later ones wait longer each time.
            following = 10.0 if seconds else 0.0
            self._restarts_after[container.name] = (min(max(following, seconds * 2), 300.0) or 5.0, ended)
            if seconds:
                return self._crash_loop(container, status, path)
        return False

    def _stop_changed(self, container: ContainerSpec) -> Steps:
        """In-place image change: the old container is killed before the new image is asked for."""
        status = self.runtime[container.name]
        if status.phase is ContainerPhase.RUNNING:
            text = f"Container {container.name} definition changed, will be restarted"
            path = f"spec.containers{{{container.name}}}"
            self._node.record(self.spec, EventType.NORMAL, "Killing", text, path)
            yield self._stop(container, self.spec.grace_seconds)

    # Containers' processes

    def _plan_exit(self, container: ContainerSpec, started_at: float) -> None:
        agenda, name = self._node.agenda, container.name
        if container.startup_seconds > 0 and not self.runtime[name].init:
            agenda.at(started_at + container.startup_seconds, lambda: self._became_ready(name, started_at))
        if container.run_seconds is not None:
            at = started_at + container.run_seconds
            self._exits[name] = agenda.at(at, lambda: self._exit(name, container.exit_code))

    def _became_ready(self, name: str, started_at: float) -> None:
        status = self.runtime.get(name)
        if status is None or status.phase is not ContainerPhase.RUNNING or status.started_at != started_at:
            return
        self.runtime[name] = replace(status, ready=True)
        self._relisted[name] = self._cached[name] = self.runtime[name]
        # A passed probe is shown at once (status manager, SetContainerReadiness), not at the next sync.
        if self.stage is Stage.SYNCING:
            self.update_status()

    def _exit(self, name: str, exit_code: int) -> None:
        status = self.runtime.get(name)
        if status is None or status.phase is not ContainerPhase.RUNNING:
            return
        self.runtime[name] = replace(
            status,
            phase=ContainerPhase.TERMINATED,
            reason="Completed" if exit_code == 0 else "Error",
            exit_code=exit_code,
            finished_at=self._node.agenda.now,
            # An init container that completed counts as ready.
            ready=status.init and exit_code == 0,
        )
        timer = self._exits.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._node.changed(self)

    def _stop(self, container: ContainerSpec, grace: float) -> float:
        """Stop a container's process; seconds until it has ended."""
        grace = max(grace, _MINIMUM_GRACE)
        obeys = container.stop_seconds is not None and container.stop_seconds <= grace
        seconds = container.stop_seconds if obeys and container.stop_seconds is not None else grace + _KILL_SECONDS
        name, agenda = container.name, self._node.agenda
        agenda.after(seconds, lambda: self._exit(name, 0 if obeys else 137))
        return seconds + 1e-3

    # SyncTerminatingPod and SyncTerminatedPod

    def _terminating(self) -> Steps:
        if self.deleting:
            self._problems.clear()
        self.update_status()
        seconds = 0.0
        for container in (*self.spec.init_containers, *self.spec.containers):
            status = self.runtime.get(container.name)
            if status is not None and status.phase is ContainerPhase.RUNNING:
                kind = "initContainers" if status.init else "containers"
                path = f"spec.{kind}{{{container.name}}}"
                self._node.record(self.spec, EventType.NORMAL, "Killing", f"Stopping container {container.name}", path)
                grace = self.spec.grace_seconds if self._grace is None else self._grace
                seconds = max(seconds, self._stop(container, grace))
        while seconds > 0 and any(status.phase is ContainerPhase.RUNNING for status in self.runtime.values()):
            step = min(seconds, 0.1)
            seconds -= step
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
