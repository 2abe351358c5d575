"""How does an Argo Rollout go on? Counts of pods, stepped as its controller steps them through weights and pauses."""

import heapq
from collections.abc import Iterator

from prewarm.demand.progress import Bounds, Counts, Run, Times, bounds, spread
from prewarm.demand.shapes import far_ahead
from prewarm.model.plans import Batch
from prewarm.model.progressive import Rollout
from prewarm.model.workloads import Workload

REST_SECONDS = 10.0
"""A pause of so many seconds, at least as many as pods take to stop, is rest: most that were told before have ended."""
MAX_WEIGHT = 100
"""Weights are percentages unless a traffic router has another maximum."""


def canary_batches(workload: Workload, rollout: Rollout, counts: Counts, now: float, times: Times) -> tuple[Batch, ...]:
    """Pods to come and stable pods to go, from the step that is on to the end.

    A step is over when its pods are available and its pause has passed; what waits for a person or an analysis ends
    nobody knows when. With a traffic router the canary comes beside the stable pods, which go after the last step.

    Raises:
        ValueError: if maxSurge or maxUnavailable cannot be read.
    """
    limits = bounds(workload)
    if rollout.routed:
        limits = Bounds(counts.replicas, 0)
    run = Run(counts, limits, times.ends, times.stop_seconds)
    expected = [max(at, now) for at in times.available]
    heapq.heapify(expected)
    at, cold, rested = now, True, False
    rest_seconds = max(REST_SECONDS, times.stop_seconds)
    for index in _steps(rollout):
        wanted, kept = step_counts(rollout, index, counts.replicas, limits.surge)
        created = run.created
        run.aim(max(wanted, counts.new), kept)
        at = _settle(run, expected, at, times, cold=cold, rested=rested)
        if run.missing > 0:
            run.emit(at + times.cold_seconds, run.missing)
        cold = False
        rested = rested and run.created == created
        if index < len(rollout.steps) and not rollout.promoted:
            step, since = rollout.steps[index], at
            if index == rollout.step and rollout.paused_at is not None:
                since = rollout.paused_at
            at = max(at, since + (step.pause_seconds or 0.0))
            at = max(at, far_ahead(now)) if step.waits else at
            rested = rested or step.waits or (step.pause_seconds or 0.0) >= rest_seconds
    return run.batches()


def step_counts(rollout: Rollout, step: int, replicas: int, surge: int) -> tuple[int, int]:
    """Pods of the new and of the stable revision while a step is on; after the last one all are new.

    Rules of CalculateReplicaCountsForBasicCanary and ...ForTrafficRoutedCanary (utils/replicaset/canary.go).
    """
    if step >= len(rollout.steps) or rollout.promoted:
        return replicas, 0
    before = rollout.steps[: step + 1]
    weight = next((found.weight for found in reversed(before) if found.weight is not None), 0)
    if not rollout.routed:
        return weighted_counts(replicas, weight, surge)
    stable = -(-replicas * (MAX_WEIGHT - weight) // MAX_WEIGHT) if rollout.shrinks_stable else replicas
    for found in reversed(before):
        if found.match_traffic:
            break
        if found.scale_replicas is not None:
            return found.scale_replicas, stable
        if found.scale_weight is not None:
            return -(-replicas * found.scale_weight // MAX_WEIGHT), stable
    return -(-replicas * weight // MAX_WEIGHT), stable


def weighted_counts(replicas: int, weight: int, surge: int) -> tuple[int, int]:
    """New and stable pods whose share comes closest to a weight (approximateWeightedCanaryStableReplicaCounts).

    One pod more than the replicas is allowed with a surge; between 1 and 99 percent both have at least one pod if there
    are two or more.
    """
    if replicas == 0:
        return 0, 0
    up, down = -(-replicas * weight // MAX_WEIGHT), replicas * weight // MAX_WEIGHT
    none_allowed = weight in {0, MAX_WEIGHT} or (replicas == 1 and surge == 0)
    options: list[tuple[int, int]] = []
    for total in (replicas, replicas + 1) if surge > 0 else (replicas,):
        if total > replicas or up < replicas or none_allowed:
            options.append((up, total))
        tied = (total * weight * 2) % (2 * MAX_WEIGHT) == MAX_WEIGHT
        if not tied and (down != 0 or none_allowed):
            options.append((down, total))
    if not options:
        return 0, replicas
    new, total = min(options, key=lambda option: abs(option[0] * MAX_WEIGHT / option[1] - weight))
    return new, total - new


def blue_green_batches(rollout: Rollout, counts: Counts, now: float, times: Times) -> tuple[Batch, ...]:
    """All pods beside the old ones at once, or as many as the preview has, and the others when it is promoted."""
    preview = counts.replicas if rollout.preview_replicas is None else min(rollout.preview_replicas, counts.replicas)
    first = max(0, (counts.replicas if rollout.promoted else preview) - counts.new)
    rest = counts.replicas - counts.new - first
    if rollout.promotion_seconds is None:
        later = far_ahead(now)
    else:
        later = now + times.cold_seconds + rollout.promotion_seconds
    return tuple(batch for batch in (Batch(now, first), Batch(later, rest)) if batch.pods > 0)


def first_canary(rollout: Rollout, replicas: int, surge: int) -> int:
    """Pods of the first step that has any: those that have to prove the image."""
    if rollout.blue_green:
        return replicas if rollout.preview_replicas is None else min(rollout.preview_replicas, replicas)
    sizes = (step_counts(rollout, index, replicas, surge)[0] for index in range(len(rollout.steps)))
    return next((size for size in sizes if size > 0), replicas)


def _steps(rollout: Rollout) -> Iterator[int]:
    yield from range(len(rollout.steps) if rollout.promoted else rollout.step, len(rollout.steps) + 1)


def _settle(run: Run, expected: list[float], at: float, times: Times, *, cold: bool, rested: bool) -> float:
    """Let a step come about; gives when the last of its pods is available.

    Pods that come while nothing could be pulled yet take their pull longer.
    """
    before = run.created
    run.step(at, after_rest=rested)
    created = run.created - before
    for index in range(created):
        takes = spread(times.cold_seconds, index, created) if cold else times.warm_seconds
        heapq.heappush(expected, at + takes)
    while expected:
        at = max(at, heapq.heappop(expected))
        run.new_available += 1
        before = run.created
        run.settle(at)
        for _ in range(run.created - before):
            heapq.heappush(expected, at + times.warm_seconds)
    return at
