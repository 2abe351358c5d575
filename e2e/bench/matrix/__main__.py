"""`python -m e2e.bench.matrix`: strategy x cluster x help, each cell a rollout on a real control plane."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from e2e.bench.matrix.cells import WASTE_GOAL, Cell, Mode, Shape, Strategy, cells
from e2e.bench.matrix.measure import CellResult, Ground, ground, run_cell
from e2e.bench.matrix.report import account, by_cell, disagreement, figures, in_all, markdown, missed, table
from e2e.cluster.gomodules import ToolError
from e2e.cluster.processes import ProcessError

_WIDTH = 150


def main(
    strategy: Annotated[list[Strategy] | None, typer.Option(help="Only these ways to replace pods.")] = None,
    cluster: Annotated[list[Shape] | None, typer.Option(help="Only these kinds of nodes.")] = None,
    mode: Annotated[list[Mode] | None, typer.Option(help="Only with this help.")] = None,
    seed: Annotated[int, typer.Option(help="Decides node sizes and their load; further runs take the next ones.")] = 1,
    runs: Annotated[int, typer.Option(min=1, max=20, help="Rollouts of each cell, taken together.")] = 1,
    together: Annotated[int, typer.Option(min=1, max=16, help="Rollouts that run at once.")] = 4,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the rows for a document, too.")] = False,
    explain: Annotated[bool, typer.Option(help="Account for cold pods and vain pulls of all cells.")] = False,
) -> None:
    """Measure the matrix; exit code 1 if a goal is missed, or if accounting and kubelets do not agree."""
    wanted = cells(set(strategy or ()), set(cluster or ()), set(mode or ()))
    console = Console(width=_WIDTH)
    if not wanted:
        raise typer.BadParameter("there is no such cell: DaemonSets, CloneSets and Argo Rollouts have no gate")
    began = time.monotonic()
    try:
        results = asyncio.run(_measure(wanted, range(seed, seed + runs), together, console))
    except* (ToolError, ProcessError, TimeoutError, RuntimeError) as failed:
        for error in failed.exceptions:
            console.print(f"matrix: {error}", style="red", markup=False)
        results = []
    if not results:
        raise typer.Exit(1)
    reached = _report(results, console, explain=explain)
    if as_markdown:
        for line in markdown(results):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not reached:
        raise typer.Exit(1)
    console.print(f"{len(results)} rollouts in {time.monotonic() - began:.0f} s", highlight=False)


async def _measure(wanted: Sequence[Cell], seeds: Sequence[int], together: int, console: Console) -> list[CellResult]:
    slots = asyncio.Semaphore(together)
    async with ground(wanted) as shared, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_in_turn(shared, cell, seed, slots, console), name=f"{cell} {seed}")
            for seed in seeds
            for cell in wanted
        ]
    return [task.result() for task in tasks]


async def _in_turn(shared: Ground, cell: Cell, seed: int, slots: asyncio.Semaphore, console: Console) -> CellResult:
    async with slots:
        began = time.monotonic()
        result = await run_cell(shared, cell, seed)
        words = "; ".join(missed([result], figures([result]))) or "ok"
        took = time.monotonic() - began
        console.print(f"{cell}, seed {seed}: {words} ({took:.0f} s)", highlight=False, markup=False)
        return result


def _report(results: Sequence[CellResult], console: Console, *, explain: bool) -> bool:
    console.print(table(results))
    console.print(
        "Known: share of the pods that two replays put on the same nodes, as the first plan says.\nHits: prewarm hit "
        "ratio, of the pods created after the first new one was ready, and of all.\nStart: p50 / p90 from a pod's "
        f"creation to its start; cold: of pods that pulled for themselves. Waste <= {WASTE_GOAL:.0%}.",
        highlight=False,
    )
    for line in in_all(results):
        console.print(line, highlight=False)
    short = [result for runs in by_cell(results) if missed(runs, figures(runs)) for result in runs]
    for result in results if explain else short:
        for line in account(result):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    differing = [line for result in results for line in disagreement(result)]
    for line in differing:
        console.print(f"accounting and kubelets differ: {line}", style="red", markup=False, soft_wrap=True)
    if not differing:
        console.print("Accounting and the kubelets' own counts agree on every start.")
    return not short and not differing


if __name__ == "__main__":
    typer.run(main)
