"""Pods of other workloads that come while a demand's do: two rollouts must not count on the same room."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from prewarm.model.plans import Batch, Demand

TOGETHER_SECONDS = 0.5
"""Pods of two workloads that come no further apart take turns in the scheduler's queue."""


def in_time(demand: Demand, others: Iterable[Demand], most: int) -> tuple[Demand, ...]:
    """What others bring until the last pod of a demand comes, of all together at most so many pods, the next first.

    Pods whose nodes are certain take room, too, but no scheduler chooses for them: they are left out.
    """
    if not demand.batches:
        return ()
    last = demand.batches[-1].needed_at + TOGETHER_SECONDS
    coming = sorted(
        (batch.needed_at, other.workload, number)
        for other in others
        if other.workload != demand.workload
        for number, batch in enumerate(other.batches)
        if batch.needed_at <= last and batch.pods and not batch.nodes
    )
    kept: dict[object, list[Batch]] = {}
    by_key = {other.workload: other for other in others}
    left = most
    for _, key, number in coming:
        batch = by_key[key].batches[number]
        if left <= 0:
            break
        kept.setdefault(key, []).append(replace(batch, pods=min(batch.pods, left)))
        left -= batch.pods
    return tuple(replace(other, batches=tuple(kept[key])) for key, other in sorted(by_key.items()) if key in kept)


def due(batches: Sequence[Batch], played: int, until: float) -> int:
    """How many of the batches have come by a moment, at least those that were played."""
    while played < len(batches) and batches[played].needed_at <= until:
        played += 1
    return played
