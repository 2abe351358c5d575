"""The pods of a demand in the order in which they come: when, after which pause, and which they are."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from prewarm.api.fields import api_time
from prewarm.demand import far_ahead
from prewarm.model.intents import Json
from prewarm.model.plans import Batch, Demand, Trigger

MAX_STEPS = 200
"""Batches that are told one by one in data: bound volumes make one of every pod of a StatefulSet, up to thousands."""
MAX_NAMES = 100
"""Names of one batch's pods, and nodes, in data; `pods` counts them all."""
SHOWN_STEPS = 8
_SHOWN_NAMES = 6
_TOGETHER_SECONDS = 1.0
"""A Deployment's pods follow each other as others become ready: those that come closer than this are one row."""
_HOUR = 3600.0
"""Pods of which nobody knows when they come are put an hour behind what comes before them, or more."""
_MINUTE = 60
_NEVER_PAUSED = frozenset({Trigger.SCALE_OUT, Trigger.SCHEDULED})


class Step(Struct, frozen=True):
    """One batch, or several that come one right after the other."""

    needed_at: float | None
    """Unix seconds; None: nobody knows."""
    after: float | None
    """Seconds since the first pods of the step before came, or until the first step; None: nobody knows."""
    lasts: float
    """Seconds between the first and the last of its pods."""
    pods: int
    paused: bool
    """Whether the rollout stands still before."""
    names: tuple[str, ...]
    nodes: tuple[str, ...]


def steps(demand: Demand, now: float, *, together: float = 0.0) -> tuple[Step, ...]:
    """What comes, in order; batches whose pods are not known by name or node are joined if they come `together`."""
    found: list[Step] = []
    before = now
    far = far_ahead(now)
    for group in _groups([batch for batch in demand.batches if batch.pods], together):
        first = group[0]
        gap = max(0.0, first.needed_at - before)
        is_open = first.needed_at >= far and gap >= _HOUR
        found.append(
            Step(
                needed_at=first.needed_at if first.needed_at < far else None,
                after=None if is_open else gap,
                lasts=group[-1].needed_at - first.needed_at,
                pods=sum(batch.pods for batch in group),
                paused=first.after_rest or (is_open and bool(found) and demand.trigger not in _NEVER_PAUSED),
                names=tuple(name for batch in group for name in batch.names),
                nodes=tuple(node for batch in group for node in batch.nodes),
            )
        )
        before = first.needed_at
    return tuple(found)


def _groups(batches: Sequence[Batch], together: float) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        known = batch.names or batch.nodes or (group and (group[0].names or group[0].nodes))
        if group and (known or batch.after_rest or batch.needed_at - group[-1].needed_at > together):
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def data(demand: Demand, now: float) -> dict[str, Json]:
    """The batches as JSON, and how many there are beyond those that are told."""
    found = steps(demand, now)
    result: dict[str, Json] = {"batches": [_told(step) for step in found[:MAX_STEPS]]}
    if rest := found[MAX_STEPS:]:
        result["moreBatches"] = {"batches": len(rest), "pods": sum(step.pods for step in rest)}
    return result


def _told(step: Step) -> Json:
    told: dict[str, Json] = {
        "neededAt": None if step.needed_at is None else api_time(float(int(step.needed_at))),
        "afterSeconds": None if step.after is None else round(step.after, 1),
        "afterPause": step.paused,
        "pods": step.pods,
    }
    if step.names:
        told["names"] = list(step.names[:MAX_NAMES])
    if step.nodes:
        told["nodes"] = list(step.nodes[:MAX_NAMES])
    return told


def rows(demand: Demand, now: float) -> tuple[list[tuple[str, ...]], str]:
    """The first rows of a table (number, when, pods, which), and a line about what is not in them.

    Nothing where one batch is all there is to say.
    """
    found = steps(demand, now, together=_TOGETHER_SECONDS)
    if len(found) < 2 and not any(step.names or step.nodes for step in found):
        return [], ""
    shown: list[tuple[str, ...]] = [
        (str(number), _when(step, number), str(step.pods), _which(step))
        for number, step in enumerate(found[:SHOWN_STEPS], 1)
    ]
    rest = found[SHOWN_STEPS:]
    if not rest:
        return shown, ""
    more = f"and {len(rest)} more batches, {sum(step.pods for step in rest)} pods; more with --output json"
    return shown, more


def _when(step: Step, number: int) -> str:
    if step.after is None:
        return "after a pause of which nobody knows the end" if step.paused else "nobody knows when"
    if number == 1:
        at = step.needed_at
        when = "now" if at is None or step.after < 1 else f"at {datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
    else:
        when = f"{_lasting(step.after)} later" + (", after a pause" if step.paused else "")
    return when + (f", within {_lasting(step.lasts)}" if step.lasts >= 1 else "")


def _lasting(seconds: float) -> str:
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, _MINUTE)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _which(step: Step) -> str:
    if step.names and len(step.names) == len(step.nodes):
        words = [f"{name} on {node}" for name, node in zip(step.names, step.nodes, strict=True)]
    else:
        words = list(step.names or (f"on {node}" for node in step.nodes))
    return ", ".join(words[:_SHOWN_NAMES]) + (", ..." if len(words) > _SHOWN_NAMES else "")
