"""Finds the run of the model that is nearest to a recorded case, and what differs in it."""

from dataclasses import dataclass
from functools import cache
from itertools import product

from prewarm.simulation.kubelet import Kubelet
from prewarm.simulation.messages import COMBINED
from tests.traces.account import Account, EventSeen, StatusSeen, counters
from tests.traces.emulated import Emulation
from tests.traces.recorded import trace

ORDER_IS_CHANCE = {
    "containerd-2.4.2/volume-6-pullers-then-real-pod": "six pods at once: which of them pulls when",
    "containerd-2.4.2/volume-14-pullers-at-once": "fourteen pods at once: which of them pulls when",
    "containerd-2.4.2/volume-24-tiny": "three pods at once race for ten pulls: which of them gets which",
}
"""Cases in which goroutines race, so that pods cannot be compared one by one; test_findings.py holds their totals."""
TIME_TOLERANCE = 1.25
"""Seconds: a relist (1 s) may fall the other way, and every step was slower on the busy machine of the traces."""
TIME_TOLERANCE_SHARE = 0.12
"""Of the time since the first pod's creation: throttled pulls on that machine varied by so much."""
MOMENT = 0.6
"""Seconds within which a status may be replaced before it is sent; the machine of the traces was busy."""


@dataclass(frozen=True)
class Match:
    """The run of the model that is nearest to a case, and what differs in it."""

    recorded: Account
    emulated: Account
    differences: list[str]
    kubelet: Kubelet


@cache
def nearest(case: str) -> Match:
    """The model's run that is nearest to the case.

    A trace does not tell at which fraction of a second its kubelet relisted, whether its loop was quick enough to
    make two syncs of two changes, nor whether the helper's process ended before that was looked at: so these are
    tried. Everything else is given or has to follow.
    """
    recorded = trace(case).account()
    best: Match | None = None
    for run_seconds, joins, step in product((0.02, 0.18), (True, False), range(40)):
        emulation = Emulation(trace(case), relist_phase=step / 40, relist_joins=joins, run_seconds=run_seconds)
        emulated = emulation.run()
        differences = compare(recorded, emulated) or ([] if case in ORDER_IS_CHANCE else late(recorded, emulated))
        if best is None or len(differences) < len(best.differences):
            best = Match(recorded, emulated, differences, emulation.kubelet)
        if not differences:
            break
    assert best is not None
    return best


def compare(recorded: Account, emulated: Account) -> list[str]:
    """Differences in events, statuses and counters; order and counts included, times aside."""
    found: list[str] = []
    for key in sorted(recorded.statuses.keys() | emulated.statuses.keys()):
        statuses = recorded.statuses.get(key, [])
        seen = written(statuses, emulated.statuses.get(key, []))
        found += _difference(f"{key} status", [s.value for s in statuses], [s.value for s in seen])
        found += _difference(
            f"{key} event", comparable(recorded.events.get(key, [])), comparable(emulated.events.get(key, []))
        )
    if counters(recorded.counters) != counters(emulated.counters):
        found.append(f"counters: recorded {counters(recorded.counters)}, emulated {counters(emulated.counters)}")
    return found


def late(recorded: Account, emulated: Account) -> list[str]:
    """Events of equal sequences whose times are too far apart."""
    found: list[str] = []
    for key, events in recorded.events.items():
        for one, other in zip(events, emulated.events[key], strict=True):
            if abs(one.t - other.t) > TIME_TOLERANCE + TIME_TOLERANCE_SHARE * one.t:
                found.append(f"{key}: recorded {one}, emulated at {other.t:.3f}")
    return found


def comparable(events: list[EventSeen]) -> list[tuple[object, ...]]:
    """Events as they have to agree.

    Once a tenth message made events of one type and reason similar, client-go drops one of the ten at random (PopAny
    of a set): which later ones are merged, and so their counts, is chance.
    """
    merged: set[tuple[str, str]] = set()
    found: list[tuple[object, ...]] = []
    for event in events:
        if event.message.startswith(COMBINED):
            merged.add((event.type, event.reason))
        if (event.type, event.reason) in merged:
            found.append((event.type, event.reason, event.message.removeprefix(COMBINED)))
        else:
            found.append(event.key)
    return found


def written(recorded: list[StatusSeen], emulated: list[StatusSeen]) -> list[StatusSeen]:
    """Emulated statuses without those that a slower status manager would have skipped.

    The kubelet writes the latest status only: one that stood for a moment may never have been sent.
    """
    kept: list[StatusSeen] = []
    wanted = [status.value for status in recorded]
    for status, following in zip(emulated, [*emulated[1:], None], strict=True):
        expected = wanted[len(kept)] if len(kept) < len(wanted) else None
        if status.value != expected and following is not None and following.t - status.t < MOMENT:
            continue
        kept.append(status)
    return kept


def _difference(what: str, recorded: list[tuple[object, ...]], emulated: list[tuple[object, ...]]) -> list[str]:
    found = [
        f"{what} {n}: recorded {a}, emulated {b}"
        for n, (a, b) in enumerate(zip(recorded, emulated, strict=False))
        if a != b
    ]
    found += [f"{what}: recorded only {value}" for value in recorded[len(emulated) :]]
    found += [f"{what}: emulated only {value}" for value in emulated[len(recorded) :]]
    return found
