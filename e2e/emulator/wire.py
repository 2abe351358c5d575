"""Between the model's values and the API server's JSON."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct, field

from prewarm.model.intents import Json, Manifest
from prewarm.model.nodes import NodeImageStatus
from prewarm.model.pods import ContainerPhase, ContainerStatus
from prewarm.simulation.manifests import PodManifest
from prewarm.simulation.outputs import Condition, EventEmitted, PodStatus

Wall = Callable[[float], float]
"""Model time as Unix seconds."""


class _Camel(Struct, rename="camel"):
    """Fields are spelt as in the API."""


class _Running(_Camel):
    started_at: str | None = None


class _Terminated(_Camel):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class _State(_Camel):
    running: _Running | None = None
    terminated: _Terminated | None = None


class _ContainerStatus(_Camel):
    name: str
    state: _State = field(default_factory=_State)
    image: str = ""
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")
    restart_count: int = 0
    ready: bool = False


class _Condition(_Camel):
    type: str
    status: str = ""


class _Status(_Camel):
    phase: str = "Pending"
    conditions: list[_Condition] | None = None
    start_time: str | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class ObservedPod(PodManifest):
    """A pod with what a kubelet before us wrote into its status."""

    status: _Status = field(default_factory=_Status)

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.status.phase in {"Succeeded", "Failed"}

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is true."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions or [])

    def known(self, model: Callable[[float], float]) -> tuple[ContainerStatus, ...]:
        """Containers that were started before; `model` turns Unix seconds into model time."""
        init = [_known(s, model, init=True) for s in self.status.init_container_statuses or []]
        return (*init, *(_known(s, model, init=False) for s in self.status.container_statuses or []))


def _known(s: _ContainerStatus, model: Callable[[float], float], *, init: bool) -> ContainerStatus:
    if s.state.running is not None:
        phase, ended = ContainerPhase.RUNNING, None
        started = _parse(s.state.running.started_at)
    elif s.state.terminated is not None:
        phase, ended = ContainerPhase.TERMINATED, s.state.terminated
        started = _parse(ended.started_at)
    else:
        return ContainerStatus(s.name, image=s.image, init=init)
    finished = _parse(ended.finished_at) if ended else None
    return ContainerStatus(
        s.name,
        phase,
        s.image,
        s.image_id,
        ended.reason if ended else "",
        ended.message if ended else "",
        ended.exit_code if ended else None,
        None if started is None else model(started),
        None if finished is None else model(finished),
        s.restart_count,
        s.ready,
        init,
        s.container_id,
    )


def parse_time(text: str | None, default: float) -> float:
    """A metav1.Time as Unix seconds."""
    parsed = _parse(text)
    return default if parsed is None else parsed


def _parse(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def timestamp(seconds: float) -> str:
    """Unix seconds as a metav1.Time: whole seconds."""
    return _timestamp(int(seconds))


@lru_cache(maxsize=4096)
def _timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_patch(status: PodStatus, wall: Wall) -> Manifest:
    """Strategic merge patch of a pod's status, as the kubelet sends it: conditions of others stay."""
    body: dict[str, Json] = {
        "phase": status.phase.value,
        "startTime": timestamp(wall(status.started_at)),
        "hostIP": status.host_ip,
        "hostIPs": [{"ip": status.host_ip}],
        "observedGeneration": status.observed_generation,
        "conditions": [_condition(c, wall, status.observed_generation) for c in status.conditions],
    }
    if status.containers:
        body["containerStatuses"] = [_container(c, wall) for c in status.containers]
    if status.init_containers:
        body["initContainerStatuses"] = [_container(c, wall) for c in status.init_containers]
    if status.pod_ip:
        body["podIP"] = status.pod_ip
        body["podIPs"] = [{"ip": status.pod_ip}]
    if status.reason:
        body |= {"reason": status.reason, "message": status.message}
    return {"status": body}


def _condition(c: Condition, wall: Wall, generation: int) -> Manifest:
    body: dict[str, Json] = {
        "type": c.type.value,
        "status": "True" if c.status else "False",
        "lastProbeTime": None,
        "lastTransitionTime": timestamp(wall(c.since)),
        "observedGeneration": generation,
        # Null removes what the condition said before.
        "reason": c.reason or None,
        "message": c.message or None,
    }
    return body


def _container(c: ContainerStatus, wall: Wall) -> Manifest:
    state: dict[str, Json]
    match c.phase:
        case ContainerPhase.WAITING:
            state = {"waiting": {"reason": c.reason} | ({"message": c.message} if c.message else {})}
        case ContainerPhase.RUNNING:
            state = {"running": {"startedAt": timestamp(wall(c.started_at or 0.0))}}
        case ContainerPhase.TERMINATED:
            ended: dict[str, Json] = {
                "exitCode": c.exit_code or 0,
                "reason": c.reason,
                # A container that never started started at the zero of Unix time (StartError) or not at all.
                "startedAt": timestamp(wall(c.started_at) if c.started_at else 0.0) if c.container_id else None,
                "finishedAt": timestamp(wall(c.finished_at)) if c.finished_at is not None else None,
            }
            if c.message:
                ended["message"] = c.message
            if c.container_id:
                ended["containerID"] = c.container_id
            state = {"terminated": ended}
    body: dict[str, Json] = {
        "name": c.name,
        "state": state,
        "ready": c.ready,
        "restartCount": c.restart_count,
        "image": c.image,
        "imageID": c.image_id,
        "started": c.phase is ContainerPhase.RUNNING,
        "lastState": {},
    }
    if c.container_id:
        body["containerID"] = c.container_id
    return body


def event_manifest(event: EventEmitted, wall: Wall) -> Manifest:
    """The Event object of a first occurrence, as client-go's recorder makes it."""
    about: dict[str, Json] = {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": event.namespace,
        "name": event.pod,
        "uid": event.uid,
    }
    if event.field_path:
        about["fieldPath"] = event.field_path
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event.event, "namespace": event.namespace},
        "involvedObject": about,
        "type": event.type.value,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": "kubelet", "host": event.node},
        "reportingComponent": "kubelet",
        "reportingInstance": event.node,
        "count": event.count,
        "firstTimestamp": timestamp(wall(event.first_at)),
        "lastTimestamp": timestamp(wall(event.at)),
    }


def event_patch(event: EventEmitted, wall: Wall) -> Manifest:
    """Patch of an Event that occurred again."""
    return {"count": event.count, "message": event.message, "lastTimestamp": timestamp(wall(event.at))}


def images_patch(images: tuple[NodeImageStatus, ...]) -> Manifest:
    """Patch of a node's status.images."""
    return {"status": {"images": [{"names": list(i.names), "sizeBytes": i.size_bytes} for i in images]}}


def pressure_patch(now: float, *, pressure: bool) -> Manifest:
    """Strategic merge patch of a node's DiskPressure condition."""
    condition: dict[str, Json] = {
        "type": "DiskPressure",
        "status": "True" if pressure else "False",
        "reason": "KubeletHasDiskPressure" if pressure else "KubeletHasNoDiskPressure",
        "message": "kubelet has disk pressure" if pressure else "kubelet has no disk pressure",
        "lastHeartbeatTime": timestamp(now),
        "lastTransitionTime": timestamp(now),
    }
    return {"status": {"conditions": [condition]}}
