"""Why is a pod, a node or a workload as it is? Sentences from the cluster and what the controller remembers. No I/O."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from prewarm.api.steer_label import label_key, our_labels
from prewarm.cli.advice import ADVICE
from prewarm.demand import Coverage, coverage
from prewarm.history import History
from prewarm.model.images import canonical
from prewarm.model.nodes import pull_obstacle
from prewarm.model.outcomes import ContainerStart, Outcome, PlanInForce, hit_ratio
from prewarm.model.plans import SkipReason
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer
from prewarm.model.workloads import Workload, WorkloadKey

SHOWN_STARTS = 50
"""Container starts that are listed, the latest ones."""
_SHOWN_NODES = 8


class StartExplained(Struct, frozen=True):
    """One container start and why it was as it was."""

    start: ContainerStart
    why: str


class WorkloadExplained(Struct, frozen=True):
    """How a workload is covered, what was planned for it, and what its container starts were."""

    workload: WorkloadKey
    covered: str
    plans: tuple[PlanInForce, ...]
    outcomes: tuple[tuple[Outcome, int], ...]
    ratio: float | None
    starts: tuple[StartExplained, ...]


def explain_workload(key: WorkloadKey, snapshot: ClusterSnapshot, history: History) -> WorkloadExplained | None:
    """What is known of a workload; None if it is neither in the cluster nor remembered."""
    workload = snapshot.workloads.get(key)
    plans = tuple(plan for plan in history.plans_in_force if plan.workload == key)
    starts = [start for start in history.starts if start.workload == key]
    if workload is None and not plans and not starts:
        return None
    counts = Counter(start.outcome for start in starts)
    return WorkloadExplained(
        workload=key,
        covered=covered(workload, snapshot),
        plans=plans,
        outcomes=tuple((outcome, counts[outcome]) for outcome in Outcome if counts[outcome]),
        ratio=hit_ratio(counts),
        starts=explained(starts, snapshot, history),
    )


def covered(workload: Workload | None, snapshot: ClusterSnapshot) -> str:
    """Whether and by what a workload is covered, in one sentence."""
    if workload is None:
        return "it is not in the cluster any more"
    wishes = coverage(snapshot, workload)
    if wishes.problem:
        return wishes.problem
    if wishes.policy is None:
        return (
            'it is not covered: annotate it with prewarm.dev/enabled="true", label its namespace so, or select it by a '
            "PrewarmPolicy"
        )
    return _under(wishes)


def _under(wishes: Coverage) -> str:
    policy = wishes.policy
    if policy is None:
        return ""
    words = [f"it is covered by PrewarmPolicy {policy.name} (mode {policy.mode.value}"]
    if not policy.rollout:
        words.append("rollouts left out")
    if not policy.scale_out:
        words.append("scale-outs left out")
    if policy.steer is Steer.PREFER:
        words.append("pods steered to warm nodes")
    if wishes.announced is not None:
        images = ", ".join(wishes.announced.template.shape.images)
        words.append(f"announced: {images}")
    return ", ".join(words) + ")"


def explained(
    starts: Sequence[ContainerStart], snapshot: ClusterSnapshot, history: History
) -> tuple[StartExplained, ...]:
    """The latest starts, the latest first, each with its reason."""
    latest = sorted(starts, key=lambda start: (-start.started_at, start.pod_uid, start.container))[:SHOWN_STARTS]
    return tuple(StartExplained(start, why(start, snapshot, history)) for start in latest)


def why(start: ContainerStart, snapshot: ClusterSnapshot, history: History) -> str:
    """Why a container start was as it was, in one sentence."""
    match start.outcome:
        case Outcome.HIT_PREWARMED:
            lead = f", {start.lead_seconds:.0f} s before the pod was created" if start.lead_seconds is not None else ""
            saved = f"; that saved about {start.saved_seconds:.0f} s" if start.saved_seconds is not None else ""
            return f"our pull had the image there{lead}{saved}"
        case Outcome.HIT_PRESENT:
            return "the image was there anyway"
        case Outcome.LATE:
            return f"our pull was still under way when the pod asked for the image{_waited(start)}"
        case Outcome.MISS_FAILED:
            return f"our pull of the image there had failed: {_failure(start, snapshot)}{_waited(start)}"
        case Outcome.MISS_UNPREDICTABLE:
            return f"where the pods land could not be known{_waited(start)}: {ADVICE[SkipReason.UNPREDICTABLE.value]}"
        case Outcome.MISS_SKIPPED | Outcome.MISS_UNPREDICTED:
            return f"{_not_planned(start, history)}{_waited(start)}"
        case Outcome.UNKNOWN:
            return "nothing shows how the image came: events were lost, or no controller was running"


def _waited(start: ContainerStart) -> str:
    return f" (pulling took {start.pull_seconds:.1f} s)" if start.pull_seconds is not None else ""


def _failure(start: ContainerStart, snapshot: ClusterSnapshot) -> str:
    record = snapshot.node_images.get(start.node)
    image = canonical(start.image)
    for failure in record.failures if record is not None else ():
        if failure.image == image:
            return f"{failure.reason}, {failure.message}"
    return f"see prewarm status node/{start.node}"


def _not_planned(start: ContainerStart, history: History) -> str:
    """What the plan in force at the time said of the node."""
    plan = _plan_of(start, history.plans_in_force)
    if plan is None:
        return (
            "no plan named the image: the workload was not covered yet, or the pod came with the change itself "
            f"({ADVICE['TooLate']})"
        )
    reason = dict(plan.skipped).get(start.node)
    if reason is not None:
        advice = ADVICE.get(reason)
        return f"{start.node} was left out: {reason}" + (f" ({advice})" if advice else "")
    if start.node in plan.nodes:
        if start.created_at < plan.since:
            return f"the pod was created before the plan ({_clock(plan.since)}) could help it: {ADVICE['TooLate']}"
        return f"{start.node} was planned, but its pull had not begun when the pod came"
    others = ", ".join(plan.nodes[:_SHOWN_NODES]) + (", ..." if len(plan.nodes) > _SHOWN_NODES else "")
    return f"{start.node} was not among the {len(plan.nodes)} nodes planned ({others or 'none'})"


def _plan_of(start: ContainerStart, plans: Iterable[PlanInForce]) -> PlanInForce | None:
    """The latest plan for the image that was in force when the pod was created or soon after."""
    image = canonical(start.image)
    fitting = [
        plan
        for plan in plans
        if plan.workload == start.workload
        and image in map(canonical, plan.images)
        and (plan.until is None or plan.until >= start.created_at)
        and plan.since <= max(start.started_at, start.created_at)
    ]
    return max(fitting, key=lambda plan: plan.since, default=None)


def explain_pod(pod: Pod | None, name: str, snapshot: ClusterSnapshot, history: History) -> tuple[str, ...]:
    """Why a pod's containers started as they did, a sentence each; what the pod waits for if they did not."""
    starts = [start for start in history.starts if start.pod_name == name or (pod and start.pod_uid == pod.uid)]
    if pod is not None:
        starts = [start for start in starts if start.workload.namespace == pod.namespace]
    lines = [
        f"{entry.start.container} ({entry.start.image}) on {entry.start.node} at {_clock(entry.start.started_at)}: "
        f"{entry.start.outcome.value}: {entry.why}"
        for entry in explained(starts, snapshot, history)
    ]
    if pod is None:
        return tuple(lines)
    judged = {start.container for start in starts}
    if not pod.node_name:
        lines.append("it has no node yet: the scheduler's events say why (kubectl describe pod)")
    for status in pod.containers:
        if status.name not in judged and not status.init:
            said = f"{status.phase.value} {status.reason}".strip()
            lines.append(f"{status.name}: not judged; {said}{': ' + status.message if status.message else ''}")
    return tuple(lines)


def explain_node(name: str, snapshot: ClusterSnapshot, history: History) -> tuple[str, ...]:
    """Whether a node takes pulls, which plans name it or left it out, and what starts there were."""
    node = snapshot.nodes.get(name)
    lines: list[str] = []
    if node is None:
        lines.append("it is not in the cluster")
    else:
        obstacle = pull_obstacle(node)
        lines.append("it takes pulls" if obstacle is None else f"nothing is pulled there now: {obstacle.value}")
    for key, value in sorted(our_labels(node.labels).items()) if node is not None else ():
        steered = next((str(workload) for workload in sorted(snapshot.workloads) if label_key(workload) == key), None)
        lines.append(f"pods of {steered or 'a workload that is gone'} are steered there: {key}={value}")
    for plan in history.plans_in_force:
        images = ", ".join(plan.images)
        since = _clock(plan.since)
        if name in plan.nodes:
            lines.append(f"planned for {plan.workload} since {since}: {images}")
        elif (reason := dict(plan.skipped).get(name)) is not None:
            lines.append(f"left out for {plan.workload} since {since}: {reason} ({images})")
    for entry in explained([start for start in history.starts if start.node == name], snapshot, history):
        start = entry.start
        lines.append(
            f"{start.workload} {start.pod_name or start.pod_uid} at {_clock(start.started_at)}: "
            f"{start.outcome.value}: {entry.why}"
        )
    return tuple(lines)


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
