"""What will Jobs and CronJobs need? The pods of the next run shortly before it, and those to come in a running one."""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from math import floor
from zoneinfo import ZoneInfo

from cronsim import CronSim

from prewarm.demand.revisions import own_pods
from prewarm.demand.rollout import SHORTEST_WAIT
from prewarm.demand.shapes import MAX_AHEAD, far_ahead, images
from prewarm.history import History
from prewarm.model.batch import Schedule
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload

LEAD_SECONDS = 600.0
"""How long before a run its images are pulled, at least."""
LEAD_PULLS = 3.0
"""And as many times the estimated pull: nodes pull one image after another, and budgets make pulls wait."""
STARTING_SECONDS = 60.0
"""How long after a run's time its plan stays, so that it is not withdrawn under the pods that just start."""


def job_demand(
    snapshot: ClusterSnapshot, workload: Workload, excluded: frozenset[str], history: History
) -> Demand | None:
    """The pods that a Job or CronJob will create next; None if none are to come soon.

    A suspended Job is an announcement: its pods come when somebody resumes it. So is a question what would be if.
    """
    needed = images(workload.template.shape, excluded)
    at_once = min(workload.replicas, MAX_AHEAD)
    now = snapshot.taken_at
    trigger = Trigger.SCHEDULED
    leaving: tuple[tuple[str, str], ...] = ()
    batches: tuple[Batch, ...] | None
    if workload.key in snapshot.asked:
        trigger, batches = Trigger.WHAT_IF, (Batch(far_ahead(now), at_once),)
    elif workload.paused and workload.job is not None:
        trigger, batches = Trigger.ANNOUNCED, (Batch(far_ahead(now), at_once),)
    elif workload.job is not None:
        following, leaving = _following(snapshot, [workload])
        batches = following or None
    else:
        running = snapshot.replica_sets_by_owner.get(workload.uid, {}).values()
        following, leaving = _following(snapshot, running)
        run = _next_run(snapshot, workload, needed, history)
        batches = None if run is None and not following else (*following, *(run or ()))
    if not needed or batches is None or (at_once == 0 and not any(batch.pods for batch in batches)):
        return None
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=trigger,
        revision=workload.template_hash,
        images=needed,
        template=workload.template,
        batches=tuple(sorted((batch for batch in batches if batch.pods > 0), key=lambda batch: batch.needed_at)),
        leaving=leaving,
    )


def looked_at_again(
    snapshot: ClusterSnapshot, workload: Workload, excluded: frozenset[str], history: History
) -> float | None:
    """When a CronJob has to be planned again though nothing changes (Unix seconds); None if never.

    That is when its next run comes near, and when the plan for its last one has done its part.
    """
    if workload.schedule is None or workload.paused:
        return None
    now = snapshot.taken_at
    lead = lead_seconds(images(workload.template.shape, excluded), history)
    before = next_run(workload.schedule, now - STARTING_SECONDS)
    after = next_run(workload.schedule, now)
    times = [] if after is None else [after - lead, after, after + STARTING_SECONDS]
    if before is not None:
        times.append(before + STARTING_SECONDS)
    return min((time for time in times if time > now), default=None)


def lead_seconds(needed: Iterable[str], history: History) -> float:
    """How long before a run the pulling of its images begins."""
    pull = sum(history.expected_pull_seconds(image) for image in needed)
    return max(LEAD_SECONDS, LEAD_PULLS * pull)


def next_run(schedule: Schedule, now: float) -> float | None:
    """The first run after a time (Unix seconds); None if there is none, as for the 30th of February."""
    if schedule.every_seconds > 0:
        passed = floor((now - schedule.since) / schedule.every_seconds)
        return schedule.since + max(1, passed + 1) * schedule.every_seconds
    return _next_minute(schedule.cron, schedule.time_zone, floor(now / 60))


@lru_cache(maxsize=4096)
def _next_minute(cron: str, time_zone: str, minute: int) -> float | None:
    """The first run after the beginning of a minute since the epoch."""
    found = next(CronSim(cron, datetime.fromtimestamp(minute * 60, ZoneInfo(time_zone))), None)
    return None if found is None else found.timestamp()


def _next_run(
    snapshot: ClusterSnapshot, workload: Workload, needed: tuple[str, ...], history: History
) -> tuple[Batch, ...] | None:
    """The next run, once it is near; without pods just after a run's time, so that its plan stays; else None."""
    if workload.schedule is None or workload.paused:
        return None
    now = snapshot.taken_at
    at = next_run(workload.schedule, now)
    if at is not None and at - now <= lead_seconds(needed, history):
        return (Batch(at, min(workload.replicas, MAX_AHEAD)),)
    last = next_run(workload.schedule, now - STARTING_SECONDS)
    return () if last is not None and last <= now else None


def _following(
    snapshot: ClusterSnapshot, jobs: Iterable[Workload]
) -> tuple[tuple[Batch, ...], tuple[tuple[str, str], ...]]:
    """Pods that running Jobs create as others end, and which end for them."""
    batches: list[Batch] = []
    leaving: list[tuple[str, str]] = []
    for job in sorted(jobs, key=lambda one: one.key):
        progress = job.job
        if progress is None or progress.finished or progress.completions is None or job.paused:
            continue
        active = sorted(
            (pod for pod in own_pods(snapshot, job) if pod.deleted_at is None),
            key=lambda pod: (pod.created_at, pod.key),
        )
        left = min(progress.completions - progress.succeeded - len(active), job.replicas, MAX_AHEAD)
        if left <= 0 or not active:
            continue
        lasts = _run_seconds(snapshot, job)
        first = active[0].created_at + lasts if lasts is not None else far_ahead(snapshot.taken_at)
        going = active[:left]
        batches.append(Batch(max(first, snapshot.taken_at + SHORTEST_WAIT), left, leaving=len(going)))
        leaving += (pod.key for pod in going)
    batches.sort(key=lambda batch: batch.needed_at)
    return tuple(batches), tuple(leaving)


def _run_seconds(snapshot: ClusterSnapshot, job: Workload) -> float | None:
    """The shortest time from creation to end of the Job's pods that have ended; None if none has."""
    lasted = [
        max(ends) - pod.created_at
        for pod in snapshot.pods_by_owner.get(job.uid, {}).values()
        if pod.finished and (ends := [one.finished_at for one in pod.containers if one.finished_at is not None])
    ]
    return min(lasted, default=None)
