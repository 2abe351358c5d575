"""The figures that the demo has to reach, and by how much it missed one.

A few last pods land where the old ones happen to leave room: among equals, kube-scheduler and the ReplicaSet controller
draw. Some ten pods of the prewarmed rollout start on nodes that no pod of the first burst pulled on, so that one that
comes elsewhere is a tenth of them. One is therefore no shortfall, whatever share it is; a second one is a matter of
chance only where a node that is left out as unlikely is drawn as well. A controller that predicts badly, or pulls too
late, misses by more: without it, ten start cold.
"""

from collections.abc import Sequence

from e2e.demo.recorder import Start, percentile
from e2e.demo.report import RolloutResult
from prewarm.model.outcomes import Outcome

HIT_RATIO = 0.95
START_SECONDS = 5.0
TOSSES = 1
"""Pods after the first burst that may start cold where the share would allow less than one."""
_HITS = (Outcome.HIT_PREWARMED, Outcome.HIT_PRESENT)


def shortfalls(results: Sequence[RolloutResult]) -> list[str]:
    """One line for each figure that was missed; results are those of off, on and announced, in this order."""
    cold, prewarmed, announced = results
    later = prewarmed.recorder.after_first_burst
    missed: list[str] = []
    ratio = prewarmed.later_hit_ratio
    if ratio is None or (ratio < HIT_RATIO and _not_warm(prewarmed, later) > TOSSES):
        missed.append(f"prewarm hit ratio after the first burst is {ratio}, not >= {HIT_RATIO}")
    slow = [start for start in later if not _is_quick(start)]
    if len(slow) > TOSSES or not later:
        missed.append(
            f"{len(slow)} of {len(later)} pods after the first burst started after more than {START_SECONDS} s"
        )
    pull = percentile(list(cold.recorder.starts.values()), 0.99)
    if pull is None or pull <= START_SECONDS:
        missed.append(f"the cold rollout's p99 is {pull} s: it shows no pull")
    everyone = list(announced.recorder.starts.values())
    not_warm = _not_warm(announced, everyone)
    if not_warm or not everyone:
        missed.append(
            f"{len(everyone) - not_warm} of {len(everyone)} pods of the announced rollout started warm, not all"
        )
    return missed


def _not_warm(result: RolloutResult, starts: Sequence[Start]) -> int:
    """Pods whose image was not there, or of which nobody knows."""
    return sum(count for outcome, count in result.counts(starts).items() if outcome not in _HITS)


def _is_quick(start: Start) -> bool:
    return start.created_to_started is not None and start.created_to_started <= START_SECONDS
