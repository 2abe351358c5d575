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
from e2e.placement.cases import FEATURES, Case, case
from e2e.placement.scoring import FACTORS, Score, score
from e2e.placement.trials import run_trial
from prewarm.model.nodes import Node
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import ContainerShape, PodShape, PodTemplate, Resources
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import place

GOAL_SECONDS = 1.0
"""For 1,000 nodes, 100 pods and 32 replays."""
GOAL_SHARE = 0.95
"""Of the ceiling, which is the scheduler against itself."""
_SIZES = ((60, 20, 32), (1_000, 20, 32), (1_000, 100, 32), (5_000, 500, 32))
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
    shape = PodShape((ContainerShape("web", "registry.example/web:2"),), Resources(500, _GIB // 2), 500, _GIB // 2)
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
    table = Table("nodes", "pods", "replays", "milliseconds", box=SIMPLE_HEAD, title="Time of one prediction")
    reached = True
    for nodes, pods, replays in _SIZES:
        demand, snapshot = timing_case(nodes, pods)
        best = min(_seconds(demand, snapshot, replays) for _ in range(3))
        table.add_row(f"{nodes:,}", str(pods), str(replays), f"{1000 * best:.1f}")
        if (nodes, pods) == (1_000, 100):
            reached = best < GOAL_SECONDS
    console.print(table)
    return reached


def _seconds(demand: Demand, snapshot: ClusterSnapshot, replays: int) -> float:
    started = time.perf_counter()
    place(demand, snapshot, replays=replays)
    return time.perf_counter() - started


def coverage_cases(sizes: Sequence[int], seed: int) -> list[Case]:
    """Every feature at every size, rollouts and scale-outs in turn; more nodes than are scored; equal empty nodes."""
    features = [*FEATURES, "gpu"]
    cases = [
        case(feature, nodes, seed, scale_out=index % 2 == 1)
        for nodes in sizes
        for index, feature in enumerate(features)
    ]
    return [*cases, case("plain", 150, seed), case("plain", min(sizes), seed, equal=True)]


async def measure(cases: Sequence[Case], console: Console) -> dict[str, Score]:
    """Let the real scheduler place every case three times."""
    scores = {}
    async with ControlPlane.start() as plane:
        for one in track(cases, "placing", console=console, transient=True):
            scores[one.name] = score(await run_trial(plane, one))
    return scores


def report_coverage(scores: dict[str, Score], console: Console) -> bool:
    """Print the share of pods inside 1 and 1.5 times the nodes really used, by each way to choose them."""
    table = Table(
        "case",
        *(f"{name} {factor:g}x" for name in ("predicted", "scheduler itself", "random") for factor in FACTORS),
        "nodes of old pods",
        "predictability",
        box=SIMPLE_HEAD,
        title="Share of the pods inside the set",
    )
    for name, found in scores.items():
        table.add_row(name, *(f"{share:.0%}" for share in _shares(found)))
    columns = zip(*(_shares(found) for found in scores.values()), strict=True)
    table.add_section()
    table.add_row("mean", *(f"{mean(column):.0%}" for column in columns))
    console.print(table)
    below = [name for name, found in scores.items() if found.predicted[0] < GOAL_SHARE * found.ceiling[0]]
    ratio = sum(s.predicted[0] for s in scores.values()) / sum(s.ceiling[0] for s in scores.values())
    console.print(f"{ratio:.1%} of the ceiling; {len(below)} of {len(scores)} cases below {GOAL_SHARE:.0%} of theirs")
    return ratio >= GOAL_SHARE


def _shares(found: Score) -> tuple[float, ...]:
    return (*found.predicted, *found.ceiling, *found.random, found.old_nodes, found.predictability)


def main(
    nodes: Annotated[list[int] | None, typer.Option(min=4, help="Cluster sizes; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of the clusters.")] = 1,
    times_only: Annotated[bool, typer.Option("--times-only", help="Without a control plane.")] = False,
) -> None:
    """Measure predictions: their time, and their coverage beside the real scheduler's choices."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    reached = report_times(console)
    if not times_only:
        cases = coverage_cases(nodes or [60], seed)
        reached = report_coverage(asyncio.run(measure(cases, console)), console) and reached
    if not reached:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
