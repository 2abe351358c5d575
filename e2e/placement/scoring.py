"""How good is a list of nodes? The share of the pods that land on its first ones, beside what else could be guessed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from e2e.placement.trials import Trial
from prewarm.placement import place

FACTORS = (1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Score:
    """Share of pods inside a set of FACTORS times the nodes that were really used, by each way to choose the set."""

    predicted: tuple[float, ...]
    ceiling: tuple[float, ...]
    """By the scheduler's other runs from the same start, most used nodes first. Few runs tell less than can be known:
    they name few nodes, and rank none beyond these."""
    random: tuple[float, ...]
    old_nodes: float
    predictability: float
    all_nodes_factor: float
    """How many times the nodes used all nodes of the cluster are: the price of warming every one."""


def coverage(run: Counter[str], ranked: Sequence[str], factor: float) -> float:
    """Share of a run's pods that land on the first `factor` x (nodes used) of a ranking."""
    chosen = set(ranked[: ceil(factor * len(run) - 1e-9)])
    return sum(number for name, number in run.items() if name in chosen) / run.total()


def score(trial: Trial, *, replays: int = 32) -> Score:
    """Mean over the runs of a trial."""
    found = place(trial.demand, trial.snapshot, replays=replays, rivals=trial.rivals)
    ranked = [node.name for node in found.nodes]
    runs = trial.runs
    return Score(
        predicted=tuple(_mean([coverage(run, ranked, factor) for run in runs]) for factor in FACTORS),
        ceiling=tuple(
            _mean([coverage(run, _ranking(runs, index), factor) for index, run in enumerate(runs)])
            for factor in FACTORS
        ),
        random=tuple(
            _mean([min(1.0, ceil(factor * len(run)) / len(trial.snapshot.nodes)) for run in runs]) for factor in FACTORS
        ),
        old_nodes=_mean([sum(run[name] for name in trial.old_nodes) / run.total() for run in runs]),
        predictability=found.predictability,
        all_nodes_factor=_mean([len(trial.snapshot.nodes) / len(run) for run in runs]),
    )


def _ranking(runs: Sequence[Counter[str]], without: int) -> list[str]:
    used: Counter[str] = Counter()
    for index, run in enumerate(runs):
        if index != without:
            used.update(run.keys())
    return [name for name, _ in sorted(used.items(), key=lambda item: (-item[1], item[0]))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
