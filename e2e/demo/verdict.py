"""The figures that the demo has to reach, and by how much it missed one."""

from collections.abc import Sequence

from e2e.demo.recorder import percentile
from e2e.demo.report import RolloutResult
from prewarm.model.outcomes import Outcome

HIT_RATIO = 0.95
START_SECONDS = 5.0


def shortfalls(results: Sequence[RolloutResult]) -> list[str]:
    """One line for each figure that was missed; results are those of off, on and announced, in this order."""
    cold, prewarmed, announced = results
    missed: list[str] = []
    ratio = prewarmed.later_hit_ratio
    if ratio is None or ratio < HIT_RATIO:
        missed.append(f"prewarm hit ratio after the first burst is {ratio}, not >= {HIT_RATIO}")
    later = percentile(prewarmed.recorder.after_first_burst, 0.99)
    if later is None or later > START_SECONDS:
        missed.append(f"p99 created to started after the first burst is {later} s, not <= {START_SECONDS} s")
    slow = percentile(list(cold.recorder.starts.values()), 0.99)
    if slow is None or slow <= START_SECONDS:
        missed.append(f"the cold rollout's p99 is {slow} s: it shows no pull")
    counts = announced.counts()
    warm = counts[Outcome.HIT_PREWARMED] + counts[Outcome.HIT_PRESENT]
    if warm < len(announced.recorder.starts):
        missed.append(f"{warm} of {len(announced.recorder.starts)} pods of the announced rollout started warm, not all")
    return missed
