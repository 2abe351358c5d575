"""Pods."""

from sys import intern

from msgspec import Struct, field

from prewarm.cluster.decoding.common import (
    WireCondition,
    WireMeta,
    controlling_owner,
    kept_annotations,
    shared_mapping,
    unix,
)
from prewarm.cluster.decoding.pod_spec import WirePodSpec, shape_of_pod
from prewarm.cluster.decoding.problems import Report
from prewarm.model.pods import ContainerPhase, ContainerStatus, Pod, PodPhase

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_LONGEST_MESSAGE = 4096
"""Kubelet messages are cut to this many characters; pull errors state their cause well before."""


class WireWaiting(Struct, gc=False):
    """v1.ContainerStateWaiting."""

    reason: str = ""
    message: str = ""


class WireRunning(Struct, rename="camel", gc=False):
    """v1.ContainerStateRunning."""

    started_at: str | None = None


class WireTerminated(Struct, rename="camel", gc=False):
    """v1.ContainerStateTerminated."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class WireState(Struct, gc=False):
    """v1.ContainerState."""

    waiting: WireWaiting | None = None
    running: WireRunning | None = None
    terminated: WireTerminated | None = None


class WireContainerStatus(Struct, rename="camel", gc=False):
    """v1.ContainerStatus."""

    name: str = ""
    image: str = ""
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")
    state: WireState | None = None
    restart_count: int = 0
    ready: bool = False


class WirePodStatus(Struct, rename="camel", gc=False):
    """v1.PodStatus."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    conditions: list[WireCondition] | None = None
    init_container_statuses: list[WireContainerStatus] | None = None
    container_statuses: list[WireContainerStatus] | None = None


class WirePod(Struct, gc=False):
    """v1.Pod."""

    metadata: WireMeta
    spec: WirePodSpec = field(default_factory=WirePodSpec)
    status: WirePodStatus = field(default_factory=WirePodStatus)


_PHASES = {phase.value: phase for phase in PodPhase}


def pod(wire: WirePod, report: Report) -> Pod:
    """A pod; the hot path of the whole controller."""
    meta, spec, status = wire.metadata, wire.spec, wire.status
    phase = _PHASES.get(status.phase or "Pending")
    if phase is None:
        report(f"status.phase {status.phase!r} is unknown")
        phase = PodPhase.UNKNOWN
    scheduled_at = sandbox_ready_at = ready_at = None
    unschedulable = False
    for condition in status.conditions or ():
        if condition.status == "True":
            match condition.type:
                case "PodScheduled":
                    scheduled_at = unix(condition.last_transition_time)
                case "PodReadyToStartContainers":
                    sandbox_ready_at = unix(condition.last_transition_time)
                case "Ready":
                    ready_at = unix(condition.last_transition_time)
                case _:
                    pass
        elif condition.type == "PodScheduled":
            unschedulable = condition.reason == "Unschedulable"
    containers = [_container_status(state, init=True) for state in status.init_container_statuses or ()]
    containers += [_container_status(state, init=False) for state in status.container_statuses or ()]
    node_name = intern(spec.node_name)
    deleted_at = unix(meta.deletion_timestamp)
    return Pod(
        namespace=intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        node_name=node_name,
        labels=shared_mapping(meta.labels),
        annotations=kept_annotations(meta.annotations),
        owner=controlling_owner(meta),
        shape=shape_of_pod(spec, meta.name, report),
        phase=phase,
        reason=intern(status.reason),
        message=status.message[:_LONGEST_MESSAGE],
        created_at=unix(meta.creation_timestamp) or 0.0,
        deleted_at=deleted_at,
        stopping_since=None if deleted_at is None else deleted_at - (meta.deletion_grace_period_seconds or 0),
        scheduled_at=scheduled_at,
        started_at=unix(status.start_time),
        unschedulable=unschedulable,
        sandbox_ready_at=sandbox_ready_at,
        ready_at=ready_at,
        containers=tuple(containers),
        deletion_cost=_deletion_cost(meta, report),
        resource_version=meta.resource_version,
    )


def _deletion_cost(meta: WireMeta, report: Report) -> int:
    text = (meta.annotations or {}).get(_DELETION_COST)
    if text is None:
        return 0
    try:
        return int(text)
    except ValueError:
        report(f"annotation {_DELETION_COST} is {text[:20]!r}, not a whole number")
        return 0


def _container_status(wire: WireContainerStatus, *, init: bool) -> ContainerStatus:
    state = wire.state
    phase, reason, message = ContainerPhase.WAITING, "", ""
    exit_code: int | None = None
    started_at = finished_at = None
    if state is not None:
        if state.terminated is not None:
            phase = ContainerPhase.TERMINATED
            ended = state.terminated
            reason, message, exit_code = ended.reason, ended.message, ended.exit_code
            started_at, finished_at = unix(ended.started_at), unix(ended.finished_at)
        elif state.running is not None:
            phase = ContainerPhase.RUNNING
            started_at = unix(state.running.started_at)
        elif state.waiting is not None:
            reason, message = state.waiting.reason, state.waiting.message
    return ContainerStatus(
        name=intern(wire.name),
        phase=phase,
        image=intern(wire.image),
        image_id=intern(wire.image_id),
        reason=intern(reason),
        message=message[:_LONGEST_MESSAGE],
        exit_code=exit_code,
        started_at=started_at,
        finished_at=finished_at,
        restart_count=wire.restart_count,
        ready=wire.ready,
        init=init,
        container_id=wire.container_id,
    )
