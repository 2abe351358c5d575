"""The demo's tables: what one rollout did, and the rollouts side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from e2e.demo.recorder import Recorder, Start, percentile
from prewarm.model.outcomes import Outcome, hit_ratio


@dataclass(frozen=True)
class Bytes:
    """Bytes that nodes pulled during a rollout, by the emulated kubelets' own account."""

    pulled: int = 0
    prewarmed: int = 0
    """Of `pulled`: by puller pods."""
    wasted: int = 0
    """Of `prewarmed`: on nodes where no pod of the workload started afterwards."""


@dataclass(frozen=True)
class RolloutResult:
    """One rollout, measured."""

    title: str
    recorder: Recorder
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By pod uid; empty where prewarm was off."""
    bytes: Bytes = Bytes()
    announced_seconds: float | None = None
    """How long `prewarm warm --wait` took before the rollout began."""

    def counts(self, starts: Sequence[Start] | None = None) -> dict[Outcome, int]:
        """Outcomes of the given pods (all if None); a pod that was not judged counts as unknown."""
        chosen = {id(start) for start in (self.recorder.starts.values() if starts is None else starts)}
        counted = dict.fromkeys(Outcome, 0)
        for uid, start in self.recorder.starts.items():
            if id(start) in chosen:
                counted[self.outcomes.get(uid, Outcome.UNKNOWN)] += 1
        return counted

    @property
    def later_hit_ratio(self) -> float | None:
        """Prewarm hit ratio of the pods after the first burst; None where prewarm was off or nothing counts."""
        return hit_ratio(self.counts(self.recorder.after_first_burst)) if self.outcomes else None


def comparison(results: Sequence[RolloutResult]) -> Table:
    """The rollouts side by side."""
    table = Table(title="Created to started, image pull included", title_justify="left", min_width=72)
    table.add_column("")
    for result in results:
        table.add_column(result.title, justify="right")
    for label, pods in (("all pods", "all"), ("first burst", "first"), ("after the first burst", "later")):
        table.add_row(f"[bold]{label}[/bold]", *(str(len(_starts(result, pods))) for result in results))
        for share in (0.5, 0.9, 0.99):
            row = (_seconds(percentile(_starts(result, pods), share)) for result in results)
            table.add_row(f"  p{round(share * 100)}", *row)
    table.add_section()
    table.add_row("[bold]prewarm hit ratio[/bold]", *(_ratio(_overall(result)) for result in results))
    table.add_row("  after the first burst", *(_ratio(result.later_hit_ratio) for result in results))
    for outcome in Outcome:
        counts = [result.counts()[outcome] if result.outcomes else None for result in results]
        if any(counts):
            table.add_row(f"  {outcome.value}", *("-" if count is None else str(count) for count in counts))
    table.add_section()
    table.add_row("bytes pulled", *(_gigabytes(result.bytes.pulled) for result in results))
    table.add_row("  by prewarm", *(_gigabytes(result.bytes.prewarmed) for result in results))
    table.add_row("  wasted", *(_waste(result.bytes) for result in results))
    table.add_row("announced before", *(_seconds(result.announced_seconds) for result in results))
    table.add_row("rollout duration", *(_seconds(result.recorder.duration) for result in results))
    return table


def _starts(result: RolloutResult, pods: str) -> list[Start]:
    recorder = result.recorder
    return {"all": list(recorder.starts.values()), "first": recorder.first_burst, "later": recorder.after_first_burst}[
        pods
    ]


def _overall(result: RolloutResult) -> float | None:
    return hit_ratio(result.counts()) if result.outcomes else None


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _gigabytes(value: int) -> str:
    return f"{value / 1e9:.1f} GB"


def _waste(account: Bytes) -> str:
    if not account.prewarmed:
        return "-"
    return f"{_gigabytes(account.wasted)} ({100 * account.wasted / account.prewarmed:.0f} %)"
