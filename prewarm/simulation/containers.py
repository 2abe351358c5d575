"""A pod's containers on its node: what runs, since when, from which image, and when their processes end."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from msgspec.structs import replace

from prewarm.api.removal import encode_report
from prewarm.model.pods import ContainerPhase, ContainerStatus
from prewarm.model.removals import Removal, RemovalReport, RemovalResult
from prewarm.simulation import messages
from prewarm.simulation.agenda import Agenda, Timer
from prewarm.simulation.messages import Runtime
from prewarm.simulation.pulls import ImageProblem
from prewarm.simulation.specs import ContainerSpec, PodSpec
from prewarm.simulation.store import StoredImage, repository_digest

_MINIMUM_GRACE = 2.0
"""minimumGracePeriodInSeconds of kuberuntime."""
_KILL_SECONDS = 0.1
_FIRST_DELAY, _LONGEST_DELAY, _FORGIVEN_AFTER = 10.0, 300.0, 600.0
"""Back-off between restarts (MaxContainerBackOff); a container that ran for long enough starts afresh."""
_MOMENT = 1e-3


class Containers:
    """Containers of one pod as they are, not as the kubelet has last seen them."""

    def __init__(
        self,
        agenda: Agenda,
        runtime: Runtime,
        uid: str,
        *,
        changed: Callable[[], None],
        became_ready: Callable[[ContainerStatus], None],
        removes: Callable[[Sequence[Removal]], RemovalReport] | None = None,
    ) -> None:
        self._agenda, self._runtime, self._uid = agenda, runtime, uid
        self._changed, self._became_ready, self._removes = changed, became_ready, removes
        self.now: dict[str, ContainerStatus] = {}
        """By name; a restarted one replaces the one before."""
        self.images: dict[str, StoredImage] = {}
        """What each container runs, by name; mounted image volumes by `container/volume`."""
        self._started_from: dict[str, str] = {}
        self._exits: dict[str, Timer] = {}
        self._restart_delay: dict[tuple[str, str], float] = {}
        self._refused = 0

    def take_over(self, spec: PodSpec, known: tuple[ContainerStatus, ...]) -> None:
        """Start from containers that a kubelet before this one had started."""
        self.now = {status.name: status for status in known if status.phase is not ContainerPhase.WAITING}
        for container in (*spec.init_containers, *spec.containers):
            status = self.now.get(container.name)
            if status is not None:
                self._started_from[container.name] = container.image
                if status.phase is ContainerPhase.RUNNING:
                    self._plan(container, self._agenda.now if status.started_at is None else status.started_at)

    @property
    def running(self) -> bool:
        """Whether any container runs."""
        return any(status.phase is ContainerPhase.RUNNING for status in self.now.values())

    def replaced(self, container: ContainerSpec) -> bool:
        """Whether the container was started from another image than its spec names now (in-place change)."""
        return container.name in self.now and self._started_from.get(container.name) != container.image

    def refusal(self, spec: PodSpec, container: ContainerSpec, image: StoredImage) -> ImageProblem | None:
        """Why the runtime does not create a container although its image is there."""
        user = image.remote.user
        if container.must_be_non_root and (not user.isdigit() or int(user) == 0):
            text = messages.cannot_verify_non_root("" if user.isdigit() else user, _pod(spec), container.name)
            return ImageProblem("CreateContainerConfigError", text)
        if container.mounts and not self._runtime.mounts_image_volumes:
            self._refused += 1
            identity = sha256(f"{self._uid}/{container.name}/refused/{self._refused}".encode()).hexdigest()
            return ImageProblem("CreateContainerError", messages.NO_IMAGE_MOUNT.format(id=identity))
        return None

    def start(
        self, container: ContainerSpec, image: StoredImage, volumes: Mapping[str, StoredImage], *, init: bool
    ) -> ContainerStatus:
        """Start a container: it runs, or ended at once because its command does not exist."""
        now, name = self._agenda.now, container.name
        before = self.now.get(name)
        restarts = 0 if before is None else before.restart_count + 1
        self._started_from[name] = container.image
        self.images[name] = image
        self.images |= {f"{name}/{mount}": volume for mount, volume in volumes.items()}
        identity = sha256(f"{self._uid}/{name}/{restarts}".encode()).hexdigest()
        status = ContainerStatus(
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
        fails = container.start_error or not (image.remote.has_programs or container.brings_program)
        if fails:
            status = replace(
                status,
                phase=ContainerPhase.TERMINATED,
                reason="StartError",
                message=messages.start_error(container.command, self._runtime),
                exit_code=128,
                started_at=None,
                finished_at=now,
                ready=False,
            )
        self.now[name] = status
        if not fails:
            self._plan(container, now)
        self._changed()
        return status

    def restart_delay(self, container: ContainerSpec) -> float | None:
        """Seconds of back-off that a container which ended still waits for; None if it may start."""
        status = self.now.get(container.name)
        if status is None or status.finished_at is None:
            return None
        key = (container.name, container.image)
        delay = self._restart_delay.get(key, 0.0)
        if status.started_at is not None and status.finished_at - status.started_at > _FORGIVEN_AFTER:
            delay = 0.0
        if self._agenda.now < status.finished_at + delay:
            return delay
        self._restart_delay[key] = min(max(_FIRST_DELAY, delay * 2), _LONGEST_DELAY)
        return None

    def stop(self, container: ContainerSpec, grace: float) -> float:
        """Stop a container's process; seconds until it has ended."""
        grace = max(grace, _MINIMUM_GRACE)
        own = container.stop_seconds
        seconds, code = (own, 0) if own is not None and own <= grace else (grace + _KILL_SECONDS, 137)
        name = container.name
        self._agenda.after(seconds, lambda: self._exit(name, code))
        return seconds + _MOMENT

    def _plan(self, container: ContainerSpec, started_at: float) -> None:
        name = container.name
        if container.startup_seconds > 0 and not self.now[name].init:
            self._agenda.at(started_at + container.startup_seconds, lambda: self._pass_probe(name, started_at))
        if container.run_seconds is not None:
            at = started_at + container.run_seconds
            self._exits[name] = self._agenda.at(at, lambda: self._end(container))

    def _pass_probe(self, name: str, started_at: float) -> None:
        status = self.now.get(name)
        if status is not None and status.phase is ContainerPhase.RUNNING and status.started_at == started_at:
            self.now[name] = replace(status, ready=True)
            self._became_ready(self.now[name])

    def _end(self, container: ContainerSpec) -> None:
        """The process ends by itself, with what it has to say."""
        message, code = "", container.exit_code
        if container.removals and self._removes is not None:
            report = self._removes(container.removals)
            message = encode_report(report).decode()
            code = 1 if any(entry.result is RemovalResult.FAILED for entry in report.results) else code
        self._exit(container.name, code, message)

    def _exit(self, name: str, exit_code: int, message: str = "") -> None:
        status = self.now.get(name)
        if status is None or status.phase is not ContainerPhase.RUNNING:
            return
        self.now[name] = replace(
            status,
            phase=ContainerPhase.TERMINATED,
            reason="Completed" if exit_code == 0 else "Error",
            message=message,
            exit_code=exit_code,
            finished_at=self._agenda.now,
            # An init container that completed counts as ready.
            ready=status.init and exit_code == 0,
        )
        timer = self._exits.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._changed()


def crash_loop(spec: PodSpec, container: ContainerSpec, delay: float) -> ImageProblem:
    """The waiting state of a container in back-off."""
    text = f"back-off {messages.go_duration(delay)} restarting failed container={container.name} pod={_pod(spec)}"
    return ImageProblem("CrashLoopBackOff", text)


def crash_loop_event(spec: PodSpec, container: ContainerSpec) -> str:
    """Warning BackOff of a container in back-off."""
    return f"Back-off restarting failed container {container.name} in pod {_pod(spec)}"


def _pod(spec: PodSpec) -> str:
    return f"{spec.name}_{spec.namespace}({spec.uid})"
