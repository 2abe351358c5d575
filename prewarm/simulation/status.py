"""Pod status as the kubelet makes it (kubelet_pods.go generateAPIPodStatus, status/generate.go)."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.simulation.messages import CONTAINER_LOST
from prewarm.simulation.outputs import Condition, ConditionType, PodStatus
from prewarm.simulation.pulls import ImageProblem
from prewarm.simulation.specs import ContainerSpec, PodSpec, RestartPolicy


class Observed(Struct):
    """What the kubelet knows when it makes a status."""

    spec: PodSpec
    containers: Mapping[str, ContainerStatus]
    """By name, as the runtime cache has them; init containers too."""
    problems: Mapping[str, ImageProblem]
    """Why containers that are not there could not be started."""
    sandbox: bool
    started_at: float
    pod_ip: str
    host_ip: str
    stopped: bool = False
    """All containers have been stopped: terminal phases may be shown."""
    lost: bool = False
    """Final status: containers that never ran are reported as lost."""
    failed_reason: str = ""
    failed_message: str = ""
    disrupted: bool = False


def make_status(seen: Observed, previous: PodStatus | None, now: float) -> tuple[PodStatus, PodPhase]:
    """The status to show, and the phase that the containers amount to: a terminal one is shown only once stopped."""
    spec = seen.spec
    init = tuple(_container(seen, container, init=True) for container in spec.init_containers)
    main = tuple(_container(seen, container, init=False) for container in spec.containers)
    phase = PodPhase.FAILED if seen.failed_reason else _phase(spec, init, main, stopped=seen.stopped)
    shown = phase
    if phase in {PodPhase.SUCCEEDED, PodPhase.FAILED} and not seen.stopped:
        shown = previous.phase if previous is not None else PodPhase.PENDING
    conditions = _conditions(seen, init, main, phase, previous, now)
    if seen.lost:
        # TerminatePod of the status manager: after the conditions are made, and without touching them.
        init, main = tuple(map(_lost, init)), tuple(map(_lost, main))
        shown = shown if shown is PodPhase.SUCCEEDED else PodPhase.FAILED
    status = PodStatus(
        shown,
        seen.started_at,
        conditions,
        init,
        main,
        # Reason and message come with the terminal phase, not before.
        seen.failed_reason if seen.stopped else "",
        seen.failed_message if seen.stopped else "",
        seen.host_ip,
        seen.pod_ip,
        spec.generation,
    )
    return status, phase


def _container(seen: Observed, spec: ContainerSpec, *, init: bool) -> ContainerStatus:
    known = seen.containers.get(spec.name)
    problem = seen.problems.get(spec.name)
    if known is not None and (known.phase is not ContainerPhase.TERMINATED or problem is None):
        return known
    restarts = 0 if known is None else known.restart_count
    if problem is not None:
        reason, message = problem.reason, problem.message
    else:
        reason, message = ("PodInitializing" if seen.spec.init_containers else "ContainerCreating"), ""
    return ContainerStatus(
        spec.name,
        ContainerPhase.WAITING,
        spec.image,
        "" if known is None else known.image_id,
        reason,
        message,
        restart_count=restarts,
        init=init,
    )


def _lost(status: ContainerStatus) -> ContainerStatus:
    """A container that never ran when its pod ends."""
    if status.phase is not ContainerPhase.WAITING:
        return status
    return replace(
        status,
        phase=ContainerPhase.TERMINATED,
        image_id="",
        reason="ContainerStatusUnknown",
        message=CONTAINER_LOST,
        exit_code=137,
    )


def _initialized(spec: PodSpec, init: Sequence[ContainerStatus]) -> list[str]:
    """Names of init containers that are not done."""
    waiting = []
    for container, status in zip(spec.init_containers, init, strict=True):
        if container.sidecar:
            if status.phase is not ContainerPhase.RUNNING:
                waiting.append(container.name)
        elif status.phase is not ContainerPhase.TERMINATED or status.exit_code != 0:
            waiting.append(container.name)
    return waiting


def _phase(
    spec: PodSpec, init: Sequence[ContainerStatus], main: Sequence[ContainerStatus], *, stopped: bool
) -> PodPhase:
    """GetPhase of kubelet_pods.go; a pod that was stopped restarts nothing, whatever its restart policy."""
    never = stopped or spec.restart_policy is RestartPolicy.NEVER
    ended = [status for status in main if status.phase is ContainerPhase.TERMINATED]
    if _initialized(spec, init) and not ended:
        failed = any(s.phase is ContainerPhase.TERMINATED and s.exit_code != 0 for s in init)
        return PodPhase.FAILED if failed and never else PodPhase.PENDING
    if any(status.phase is ContainerPhase.WAITING and not status.restart_count for status in main):
        return PodPhase.PENDING
    if len(ended) < len(main) or (spec.restart_policy is RestartPolicy.ALWAYS and not stopped):
        return PodPhase.RUNNING
    if all(status.exit_code == 0 for status in ended):
        return PodPhase.SUCCEEDED
    return PodPhase.FAILED if never else PodPhase.RUNNING


def _conditions(
    seen: Observed,
    init: Sequence[ContainerStatus],
    main: Sequence[ContainerStatus],
    phase: PodPhase,
    previous: PodStatus | None,
    now: float,
) -> tuple[Condition, ...]:
    incomplete = _initialized(seen.spec, init)
    unready = [status.name for status in main if not status.ready]
    conditions = [(ConditionType.READY_TO_START, seen.sandbox, "", "")]
    if phase is PodPhase.SUCCEEDED:
        conditions.append((ConditionType.INITIALIZED, True, "PodCompleted", ""))
    elif incomplete:
        text = f"containers with incomplete status: [{' '.join(incomplete)}]"
        conditions.append((ConditionType.INITIALIZED, False, "ContainersNotInitialized", text))
    else:
        conditions.append((ConditionType.INITIALIZED, True, "", ""))
    if phase is PodPhase.SUCCEEDED:
        readiness = (False, "PodCompleted", "")
    elif phase is PodPhase.FAILED:
        readiness = (False, "PodFailed", "")
    elif unready:
        readiness = (False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    else:
        readiness = (True, "", "")
    conditions.append((ConditionType.READY, *readiness))
    conditions.append((ConditionType.CONTAINERS_READY, *readiness))
    if seen.disrupted:
        conditions.append((ConditionType.DISRUPTED, True, "TerminationByKubelet", seen.failed_message))
    since = {c.type: (c.status, c.since) for c in previous.conditions} if previous is not None else {}
    made = []
    for kind, value, reason, message in conditions:
        before = since.get(kind)
        changed = before is None or before[0] is not value
        made.append(Condition(kind, value, now if changed or before is None else before[1], reason, message))
    return tuple(made)
