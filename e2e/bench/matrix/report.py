"""The matrix as a table, each cell against its goal, and an account of every pod that was not warm."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from msgspec import Struct
from rich.table import Table

from e2e.bench.matrix.cells import WASTE_GOAL, Cell, Mode, Shape, Strategy
from e2e.bench.matrix.measure import CellResult
from e2e.bench.matrix.witness import HITS, disagreements
from e2e.demo.recorder import Start, percentile
from prewarm.model.outcomes import Outcome, hit_ratio


class Figures(Struct, frozen=True):
    """What a cell is judged by; None where nothing counts."""

    later: float | None
    """Prewarm hit ratio of the pods after the first burst."""
    every: float | None
    """Prewarm hit ratio of all pods."""
    waste: float | None
    """Share of the prewarmed bytes on nodes where no pod of the revision came."""


def by_cell(results: Sequence[CellResult]) -> list[list[CellResult]]:
    """The runs of each cell together, in the order of the enums."""
    ordered = sorted(results, key=lambda result: (_place(result.cell), result.seed))
    return [list(runs) for _, runs in groupby(ordered, key=lambda result: result.cell)]


def _place(cell: Cell) -> tuple[int, int, int]:
    return list(Strategy).index(cell.strategy), list(Shape).index(cell.shape), list(Mode).index(cell.mode)


def known(runs: Sequence[CellResult]) -> float | None:
    """What the first plans say of their own predictability, in the mean; None: nothing was planned."""
    said = [result.predictability for result in runs if result.predictability is not None]
    return fmean(said) if said else None


def figures(runs: Sequence[CellResult]) -> Figures:
    """The figures of a cell, all its runs taken together."""
    prewarmed = sum(result.rollout.bytes.prewarmed for result in runs)
    wasted = sum(result.rollout.bytes.wasted for result in runs)
    later, every = Counter[Outcome](), Counter[Outcome]()
    for result in runs:
        later.update(result.rollout.counts(result.rollout.recorder.after_first_burst))
        every.update(result.rollout.counts())
    return Figures(hit_ratio(later), hit_ratio(every), wasted / prewarmed if prewarmed else None)


def missed(runs: Sequence[CellResult], found: Figures) -> list[str]:
    """Goals that a cell missed, in words; empty if none."""
    cell, said = runs[0].cell, known(runs)
    return [
        f"{what} {_percent(value)}, goal {sign} {_percent(goal)}"
        for what, sign, value, goal in (
            ("hits after the first burst", ">=", found.later, cell.later_goal(said)),
            ("hits of all pods", ">=", found.every, cell.all_goal(said)),
            ("waste", "<=", found.waste, WASTE_GOAL),
        )
        if value is not None and goal is not None and (value > goal if sign == "<=" else value < goal)
    ]


COLUMNS = (
    *("strategy", "cluster", "help", "known", "pods", "later", "hits later", "goal", "hits of all", "goal"),
    *("pulls", "waste", "start, s", "cold, s", ""),
)
_WORDS = 3
"""Columns of words in front of those of figures."""


def table(results: Sequence[CellResult]) -> Table:
    """One row a cell."""
    shown = Table(title="Rollouts to a new image, by strategy, cluster and help", title_justify="left")
    for number, column in enumerate(COLUMNS):
        shown.add_column(column, justify="left" if number < _WORDS or not column else "right")
    before = ""
    for runs in by_cell(results):
        if before not in ("", runs[0].cell.strategy):
            shown.add_section()
        before = runs[0].cell.strategy
        shown.add_row(*_row(runs))
    return shown


def markdown(results: Sequence[CellResult]) -> list[str]:
    """The same rows as lines of a document."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(_row(runs) for runs in by_cell(results))]
    return [f"| {' | '.join(row)} |".replace("  ", " ") for row in rows]


def _row(runs: Sequence[CellResult]) -> list[str]:
    cell, found, said = runs[0].cell, figures(runs), known(runs)
    recorders = [result.rollout.recorder for result in runs]
    starts = [start for recorder in recorders for start in recorder.starts.values()]
    cold = [seconds for result in runs for seconds in result.cold]
    return [
        cell.strategy,
        cell.shape,
        cell.mode,
        _percent(said),
        str(len(starts)),
        str(sum(len(recorder.after_first_burst) for recorder in recorders)),
        _percent(found.later),
        _percent(cell.later_goal(said) if found.later is not None else None),
        _percent(found.every),
        _percent(cell.all_goal(said) if found.every is not None else None),
        str(sum(len(result.warm_at) for result in runs)),
        _percent(found.waste),
        _seconds(percentile(starts, 0.5), percentile(starts, 0.9)),
        _seconds(_rank(cold, 0.5), _rank(cold, 0.9)),
        "missed" if missed(runs, found) else "ok",
    ]


def in_all(results: Sequence[CellResult]) -> list[str]:
    """A line for each help that was tried: what it pulled in all its cells, and how much of that in vain.

    One run of a cell has some 10 to 40 pulls, so that one or two decide its share; together they tell what is usual.
    """
    lines = []
    for mode in Mode:
        bytes_of = [result.rollout.bytes for result in results if result.cell.mode is mode]
        pulled, wasted = sum(one.prewarmed for one in bytes_of), sum(one.wasted for one in bytes_of)
        if pulled:
            pulls = sum(len(result.warm_at) for result in results if result.cell.mode is mode)
            lines.append(f"{mode}, all cells: {pulls} pulls, {_percent(wasted / pulled)} of the bytes in vain")
    return lines


def account(result: CellResult) -> list[str]:
    """A line for each pod after the first burst that did not find its image, and for each pull in vain."""
    recorder = result.rollout.recorder
    began = min((start.created for start in recorder.starts.values()), default=0.0)
    lines = [f"{result.cell}, seed {result.seed}: times are seconds since the first pod's creation"]
    for uid, start in sorted(recorder.starts.items(), key=lambda item: item[1].created):
        outcome = result.rollout.outcomes.get(uid)
        if outcome in HITS or (start in recorder.first_burst and result.cell.all_goal(result.predictability) is None):
            continue
        lines.append(f"  {_pod(result, start, began)}; {outcome or 'not judged'}")
    used = {start.node for start in recorder.starts.values()}
    lines += [
        f"  {node}: pulled in vain; {_story(result, node, began)}" for node in sorted(result.warm_at.keys() - used)
    ]
    return lines


def _pod(result: CellResult, start: Start, began: float) -> str:
    asked = f"created {start.created - began:.1f}, started {_at(start.started, began)}"
    return f"{start.name} on {start.node}: {asked}; {_story(result, start.node, began)}"


def _story(result: CellResult, node: str, began: float) -> str:
    """When prewarm asked for the image on a node, and when it was there."""
    return f"ordered {_at(result.ordered_at.get(node), began)}, warm {_at(result.warm_at.get(node), began)}"


def disagreement(result: CellResult) -> list[str]:
    """Where the accounting and the kubelets differ."""
    found = disagreements(result.rollout.outcomes, result.said, result.rollout.recorder)
    return [f"{result.cell}, seed {result.seed}: {line}" for line in found]


def _rank(values: Sequence[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _at(moment: float | None, began: float) -> str:
    return "never" if moment is None else f"{moment - began:.1f}"


def _percent(value: float | None) -> str:
    return (
        "-" if value is None else f"{100 * value:.1f} %" if value not in (0.99, 0.95, 0.15) else f"{100 * value:.0f} %"
    )


def _seconds(*values: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)
