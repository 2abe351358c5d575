"""What a snapshot, a plan and judged starts teach. Measurements follow from state: learning twice changes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median, median_low

from prewarm.history.force import plans_in_force
from prewarm.history.state import History, Measured, repository
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence
from prewarm.model.outcomes import ContainerStart, Outcome
from prewarm.model.plans import Plan
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot

SCAN_INTERVAL = 30.0
"""Seconds between two readings of all nodes' images and pulls: they change slowly, and 5,000 nodes take a while."""
MAX_IMAGES = 4000
MAX_REPOSITORIES = 2000
MAX_NODES = 5000
MAX_WORKLOADS = 2000
MAX_STARTS = 500
MAX_READY_SAMPLES = 50
"""Youngest pods of a workload from which its time to ready is taken."""
LONGEST_TIME_TO_READY = 3600.0
"""Seconds; a pod that became ready later than this after its creation went through something else than starting."""


def learn(
    history: History, snapshot: ClusterSnapshot, plan: Plan | None = None, starts: Sequence[ContainerStart] = ()
) -> History:
    """The history after a snapshot, the plan made on it and newly judged starts; the same object if nothing is new.

    A plan withdraws what it no longer names among the workloads that it speaks for (Plan.only). Sizes, rates, times to
    ready and to stop are read at most every SCAN_INTERVAL.
    """
    now = snapshot.taken_at
    in_force = plans_in_force(history.plans_in_force, plan, now)
    due = not 0 <= now - history.scanned_at < SCAN_INTERVAL
    sizes = _sizes(snapshot) if due else {}
    measured = _pulls(snapshot) if due else {}
    # A late start waited for the rest of a pull only.
    whole = (start for start in starts if start.outcome is not Outcome.LATE)
    measured.update({start.image: start.pull_seconds for start in whole if start.pull_seconds is not None})
    learnt = History(
        image_sizes=_merged(history.image_sizes, sizes, now, MAX_IMAGES),
        repository_sizes=_merged(history.repository_sizes, _new_of_repository(history, sizes), now, MAX_REPOSITORIES),
        pulls=_merged(history.pulls, {canonical(image): s for image, s in measured.items()}, now, MAX_IMAGES),
        node_rates=_merged(history.node_rates, _rates(snapshot) if due else {}, now, MAX_NODES),
        ready=_merged(history.ready, _times_to_ready(snapshot) if due else {}, now, MAX_WORKLOADS),
        stopping=_merged(history.stopping, _times_to_stop(history, snapshot) if due else {}, now, MAX_WORKLOADS),
        plans_in_force=in_force,
        starts=_with_starts(history.starts, starts),
        scanned_at=now if due else history.scanned_at,
        reason=history.reason,
    )
    return history if learnt == history else learnt


def time_to_ready(pods: Iterable[Pod]) -> float | None:
    """Median seconds from creation to Ready of the youngest of these pods, waits for room and images left out.

    Left out is the time until a pod was bound, and that between sandbox and first start, and between the starts of
    containers, in which images are pulled; pods that ever restarted a container are no measure. None if no pod says.
    """
    samples: list[tuple[float, float]] = []
    for pod in pods:
        main = [status for status in pod.containers if not status.init]
        starts = [status.started_at for status in main if status.started_at is not None]
        if pod.ready_at is None or len(starts) < len(main) or not starts:
            continue
        if any(status.restart_count for status in pod.containers):
            continue
        bound_at = pod.scheduled_at or pod.created_at
        before = max(0.0, (pod.sandbox_ready_at or bound_at) - bound_at)
        inits = sum(
            status.finished_at - status.started_at
            for status in pod.containers
            if status.init and status.started_at is not None and status.finished_at is not None
        )
        seconds = before + inits + max(0.0, pod.ready_at - max(starts))
        if 0 <= seconds <= LONGEST_TIME_TO_READY:
            samples.append((pod.created_at, seconds))
    youngest = sorted(samples, reverse=True)[:MAX_READY_SAMPLES]
    return median(seconds for _, seconds in youngest) if youngest else None


def time_to_stop(samples: Sequence[float], known: float | None) -> float | None:
    """Seconds that a pod takes to stop, from those that went last; None if nothing says.

    The lower median: of two, the one that hung does not decide. A single pod does not overrule what is `known`.
    """
    if not samples or (len(samples) == 1 and known is not None):
        return known
    return median_low(samples)


def _sizes(snapshot: ClusterSnapshot) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for node in snapshot.nodes.values():
        for entry in node.images:
            for name in entry.names:
                if entry.size_bytes > sizes.get(name, 0):
                    sizes[name] = entry.size_bytes
    known: dict[str, float] = {}
    for name, size in sizes.items():
        known[canonical(name)] = max(size, known.get(canonical(name), 0))
    for record in snapshot.node_images.values():
        for image in record.images:
            if image.size_bytes > known.get(image.image, 0):
                known[image.image] = image.size_bytes
    return known


def _new_of_repository(history: History, sizes: Mapping[str, float]) -> dict[str, float]:
    """The largest of the images seen for the first time, by repository."""
    newest: dict[str, float] = {}
    for image, size in sizes.items():
        if image not in history.image_sizes and (name := repository(image)):
            newest[name] = max(size, newest.get(name, 0))
    return newest


def _pulls(snapshot: ClusterSnapshot) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for record in snapshot.node_images.values():
        for image in record.images:
            if image.evidence is Evidence.OUR_PULL and image.pull_seconds:
                seconds.setdefault(image.image, []).append(image.pull_seconds)
    return {image: median(samples) for image, samples in seconds.items()}


def _rates(snapshot: ClusterSnapshot) -> dict[str, float]:
    rates: dict[str, float] = {}
    for name, record in snapshot.node_images.items():
        timed = [image for image in record.images if image.pull_seconds and image.size_bytes]
        seconds = sum(image.pull_seconds or 0.0 for image in timed)
        if seconds > 0:
            rates[name] = sum(image.size_bytes for image in timed) / seconds
    return rates


def _times_to_ready(snapshot: ClusterSnapshot) -> dict[str, float]:
    times: dict[str, float] = {}
    for workload in snapshot.workloads.values():
        owners = [workload.uid, *(rs.uid for rs in snapshot.replica_sets_by_owner.get(workload.uid, {}).values())]
        pods = (pod for owner in owners for pod in snapshot.pods_by_owner.get(owner, {}).values())
        seconds = time_to_ready(pods)
        if seconds is not None:
            times[str(workload.key)] = seconds
    return times


def _times_to_stop(history: History, snapshot: ClusterSnapshot) -> dict[str, float]:
    times: dict[str, float] = {}
    for key, samples in snapshot.stops.items():
        seconds = time_to_stop(samples, history.time_to_stop(key))
        if seconds is not None:
            times[str(key)] = seconds
    return times


def _merged(old: Mapping[str, Measured], new: Mapping[str, float], now: float, limit: int) -> Mapping[str, Measured]:
    """The old values with the new ones over them, the longest unconfirmed ones dropped beyond the limit."""
    if not new:
        return old
    merged = {**old, **{key: Measured(value, now) for key, value in new.items()}}
    if len(merged) > limit:
        kept = sorted(merged.items(), key=lambda item: (-item[1].at, item[0]))[:limit]
        merged = dict(kept)
    return merged


def _with_starts(old: tuple[ContainerStart, ...], new: Sequence[ContainerStart]) -> tuple[ContainerStart, ...]:
    if not new:
        return old
    by_key: dict[tuple[str, str, str], ContainerStart] = {
        (start.pod_uid, start.container, start.image): start for start in (*old, *new)
    }
    return tuple(by_key.values())[-MAX_STARTS:]
