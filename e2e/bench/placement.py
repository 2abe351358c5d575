"""How fast and how good are predictions? Time, and coverage beside the real kube-scheduler and simpler guesses."""

import asyncio
import sys
import time
from collections.abc import Sequence
from random import Random
from statistics import mean
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from e2e.cluster.control_plane import ControlPlane
from e2e.placement.cases import Case, cases_from_seed
from e2e.placement.scoring import FACTORS, Score, score
from e2e.placement.trials import run_trial
from prewarm.model.nodes import Node
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import ContainerShape, PodShape, PodTemplate, Resources
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import place

GOALS_SECONDS = {(1_000, 100): 1.0, (5_000, 500): 10.0}
"""By nodes and pods, for 32 replays."""
GOAL_SHARE = 0.95
"""Of the ceiling, which is the scheduler against itself."""
GOAL_INSIDE = 0.9
"""Of the pods, in a set of 1.5 times the nodes used."""
_SIZES, _LARGE_SIZES = (30, 60, 90), (300, 1_000)
_TIMED = ((60, 20, 32), (1_000, 20, 32), (1_000, 100, 32), (5_000, 500, 32))
_GIB = 1024**3
_WIDTH = 200
"""Columns where there is no terminal to ask."""


def timing_case(nodes: int, pods: int) -> tuple[Demand, ClusterSnapshot]:
    """A rollout on varied, partly used nodes in three zones."""
    random = Random(1)  # noqa: S311 - a repeatable cluster is wanted
    members: dict[str, Node] = {}
    usage: dict[str, NodeUsage] = {}
    for index in range(nodes):
        name, cpu = f"node-{index:05d}", random.choice((8, 16, 32))
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{index % 3}"}
        members[name] = Node(name, labels=labels, allocatable=Resources(cpu * 1000, cpu * 4 * _GIB))
        used, memory = random.randint(500, cpu * 600), random.randint(_GIB, cpu * 2 * _GIB)
        usage[name] = NodeUsage(used, memory, 0, used, memory, random.randint(1, 20))
    shape = PodShape(
        (ContainerShape("web", "registry.example/web:2"),),
        Resources(500, _GIB // 2),
        scoring_milli_cpu=500,
        scoring_memory=_GIB // 2,
    )
    demand = Demand(
        WorkloadKey("Deployment", "default", "web"),
        "uid",
        Trigger.ROLLOUT,
        "r2",
        ("registry.example/web:2",),
        PodTemplate({"app": "web"}, shape),
        (Batch(0.0, pods),),
    )
    return demand, ClusterSnapshot(nodes=members, usage=usage)


def report_times(console: Console) -> bool:
    """Print the best of three for several sizes; whether the goal is reached."""
    table = Table("nodes", "pods", "replays", "milliseconds", "goal", box=SIMPLE_HEAD, title="Time of one prediction")
    reached = True
    for nodes, pods, replays in _TIMED:
        demand, snapshot = timing_case(nodes, pods)
        best = min(_seconds(demand, snapshot, replays) for _ in range(3))
        goal = GOALS_SECONDS.get((nodes, pods))
        said = "" if goal is None else f"{1000 * goal:,.0f}"
        table.add_row(f"{nodes:,}", str(pods), str(replays), f"{1000 * best:,.1f}", said)
        reached = reached and (goal is None or best < goal)
    console.print(table)
    return reached


def _seconds(demand: Demand, snapshot: ClusterSnapshot, replays: int) -> float:
    started = time.perf_counter()
    place(demand, snapshot, replays=replays)
    return time.perf_counter() - started


async def measure(cases: Sequence[Case], runs: int, console: Console) -> list[tuple[Case, Score]]:
    """Let the real scheduler place every case so many times."""
    async with ControlPlane.start() as plane:
        return [
            (one, score(await run_trial(plane, one, runs=runs)))
            for one in track(cases, "placing", console=console, transient=True)
        ]


def report_coverage(scores: Sequence[tuple[Case, Score]], console: Console) -> bool:
    """Print the share of pods inside FACTORS times the nodes really used, by each way to choose them."""
    table = _table("case", "Share of the pods inside the set")
    for one, found in scores:
        table.add_row(one.name, *_percents([found]))
    table.add_section()
    table.add_row("mean", *_percents([found for _, found in scores]))
    console.print(table)
    for title, key in (("feature", _feature), ("nodes", _size)):
        groups: dict[str, list[Score]] = {}
        for one, found in scores:
            groups.setdefault(key(one), []).append(found)
        table = _table(title, f"By {title}", "below", "lost")
        for name, members in sorted(groups.items(), key=lambda group: -_lost(group[1])):
            below = sum(map(_is_below, members))
            table.add_row(name, *_percents(members), f"{below} of {len(members)}", f"{_lost(members):.1%}")
        console.print(table)
    ratio = 1 - _lost([found for _, found in scores])
    below = sum(_is_below(found) for _, found in scores)
    able = [found for _, found in scores if found.ceiling[1] >= GOAL_INSIDE]
    inside = sum(found.predicted[1] >= GOAL_INSIDE for found in able)
    console.print(
        f"{ratio:.1%} of the ceiling; {below} of {len(scores)} cases below {GOAL_SHARE:.0%} of theirs; "
        f"{inside} of {len(able)} cases whose ceiling allows it have {GOAL_INSIDE:.0%} of the pods inside 1.5x"
    )
    return ratio >= GOAL_SHARE


def _table(first: str, title: str, *more: str) -> Table:
    ways = (f"{name} {factor:g}x" for name in ("predicted", "itself", "random") for factor in FACTORS)
    return Table(first, *ways, "old nodes", "all nodes", "agree", *more, box=SIMPLE_HEAD, title=title)


def _feature(one: Case) -> str:
    return one.feature


def _size(one: Case) -> str:
    return f"{len(one.nodes):>5}"


def _is_below(found: Score) -> bool:
    return found.predicted[0] < GOAL_SHARE * found.ceiling[0]


def _lost(scores: Sequence[Score]) -> float:
    """Share of the ceiling that predictions miss at 1x; none of one that is 0, where nothing can be known."""
    ceiling = sum(found.ceiling[0] for found in scores)
    return 1 - sum(found.predicted[0] for found in scores) / ceiling if ceiling else 0.0


def _percents(scores: Sequence[Score]) -> list[str]:
    """Means; all nodes hold all pods, at as many times the nodes used as they are."""
    shares = [f"{mean(column):.0%}" for column in zip(*map(_shares, scores), strict=True)]
    excess = mean(found.all_nodes_factor for found in scores)
    return [*shares[:-1], f"100% at {excess:.0f}x", shares[-1]]


def _shares(found: Score) -> tuple[float, ...]:
    return (*found.predicted, *found.ceiling, *found.random, found.old_nodes, found.predictability)


def main(
    cases: Annotated[int, typer.Option(min=1, help="Number of clusters and workloads.")] = 30,
    nodes: Annotated[list[int] | None, typer.Option(min=4, help="Cluster sizes; repeatable.")] = None,
    large: Annotated[bool, typer.Option("--large", help="Clusters of 300 and 1,000 nodes.")] = False,
    first: Annotated[int, typer.Option(min=1, help="Begin with this one: for a run in slices.")] = 1,
    last: Annotated[int | None, typer.Option(min=1, help="End with this one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the clusters.")] = 1,
    runs: Annotated[
        int, typer.Option(min=2, help="Of the scheduler; each is compared with the others, which are the ceiling.")
    ] = 6,
    times_only: Annotated[bool, typer.Option("--times-only", help="Without a control plane.")] = False,
) -> None:
    """Measure predictions: their time, and their coverage beside the real scheduler's choices."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    reached = report_times(console)
    if not times_only:
        sizes = nodes or (_LARGE_SIZES if large else _SIZES)
        found = asyncio.run(measure(cases_from_seed(seed, cases, sizes)[first - 1 : last], runs, console))
        reached = report_coverage(found, console) and reached
    if not reached:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
