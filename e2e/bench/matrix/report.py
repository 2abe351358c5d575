"""The matrix as a table, each cell against its goal, and an account of every pod that was not warm."""

from collections.abc import Sequence

from msgspec import Struct
from rich.table import Table

from e2e.bench.matrix.cells import WASTE_GOAL, Mode
from e2e.bench.matrix.measure import CellResult
from e2e.bench.matrix.witness import HITS, disagreements
from e2e.demo.recorder import Start, percentile
from prewarm.model.outcomes import hit_ratio


class Figures(Struct, frozen=True):
    """What a cell is judged by; None where nothing counts."""

    later: float | None
    """Prewarm hit ratio of the pods after the first burst."""
    every: float | None
    """Prewarm hit ratio of all pods."""
    waste: float | None
    """Share of the prewarmed bytes on nodes where no pod of the revision came."""


def figures(result: CellResult) -> Figures:
    """The figures of a cell."""
    rollout = result.rollout
    waste = rollout.bytes.wasted / rollout.bytes.prewarmed if rollout.bytes.prewarmed else None
    return Figures(hit_ratio(rollout.counts(rollout.recorder.after_first_burst)), hit_ratio(rollout.counts()), waste)


def missed(result: CellResult, found: Figures) -> list[str]:
    """Goals that a cell missed, in words; empty if none."""
    cell, said = result.cell, result.orders.predictability
    return [
        f"{what} {_percent(value)}, goal {sign} {_percent(goal)}"
        for what, sign, value, goal in (
            ("hits after the first burst", ">=", found.later, cell.later_goal(said)),
            ("hits of all pods", ">=", found.every, cell.all_goal(said)),
            ("waste", "<=", found.waste, WASTE_GOAL),
        )
        if value is not None and goal is not None and (value > goal if sign == "<=" else value < goal)
    ]


def table(results: Sequence[CellResult]) -> Table:
    """One row a cell."""
    shown = Table(title="Rollouts to a new image, by strategy, cluster and help", title_justify="left")
    for column in ("strategy", "cluster", "help"):
        shown.add_column(column)
    for column in (
        "known",
        "pods",
        "later",
        "hits later",
        "goal",
        "hits of all",
        "goal",
        "waste",
        "start, s",
        "cold, s",
    ):
        shown.add_column(column, justify="right")
    shown.add_column("")
    before = ""
    for result in results:
        if before not in ("", result.cell.strategy):
            shown.add_section()
        before = result.cell.strategy
        shown.add_row(*_row(result))
    return shown


def _row(result: CellResult) -> list[str]:
    cell, recorder, found = result.cell, result.rollout.recorder, figures(result)
    starts, said = list(recorder.starts.values()), result.orders.predictability
    return [
        cell.strategy,
        cell.shape,
        cell.mode,
        _percent(said),
        str(len(starts)),
        str(len(recorder.after_first_burst)),
        _percent(found.later),
        _percent(cell.later_goal(said) if found.later is not None else None),
        _percent(found.every),
        _percent(cell.all_goal(said) if found.every is not None else None),
        _percent(found.waste),
        _seconds(percentile(starts, 0.5), percentile(starts, 0.9)),
        _seconds(_rank(result.cold, 0.5), _rank(result.cold, 0.9)),
        "missed" if missed(result, found) else "ok",
    ]


def in_all(results: Sequence[CellResult]) -> list[str]:
    """A line for each help that was tried: what it pulled in all its cells, and how much of that in vain.

    A cell has some 10 to 40 pulls, so that one or two decide its share; together they tell what is usual.
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
    lines = [f"{result.cell}: times are seconds since the first pod's creation"]
    for uid, start in sorted(recorder.starts.items(), key=lambda item: item[1].created):
        outcome = result.rollout.outcomes.get(uid)
        if outcome in HITS or (
            start in recorder.first_burst and result.cell.all_goal(result.orders.predictability) is None
        ):
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
    return f"ordered {_at(result.orders.first.get(node), began)}, warm {_at(result.warm_at.get(node), began)}"


def disagreement(result: CellResult) -> list[str]:
    """Where the accounting and the kubelets differ."""
    found = disagreements(result.rollout.outcomes, result.said, result.rollout.recorder)
    return [f"{result.cell}: {line}" for line in found]


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
