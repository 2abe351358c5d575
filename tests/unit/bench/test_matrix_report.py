"""Runs of a cell are judged together, and show as one row."""

from e2e.bench.matrix.cells import Cell, Mode, Shape, Strategy
from e2e.bench.matrix.measure import CellResult
from e2e.bench.matrix.report import COLUMNS, by_cell, figures, known, markdown, missed
from e2e.bench.matrix.witness import kubelets_say
from e2e.demo.recorder import Recorder, Start
from e2e.demo.report import Bytes, RolloutResult
from prewarm.model.outcomes import Outcome

IMAGE = "registry.test/shop:v2"
SURGE = Cell(Strategy.SURGE, Shape.EQUAL, Mode.NONE)


def run(seed: int, *, hits: int, pods: int, wasted: int, prewarmed: int, cell: Cell = SURGE) -> CellResult:
    starts = {f"{seed}-{n}": Start(f"pod-{n}", 1.0, f"node-{n}", started=2.0) for n in range(pods)}
    recorder = Recorder(IMAGE, starts)
    outcomes = {
        uid: Outcome.HIT_PREWARMED if number < hits else Outcome.MISS_UNPREDICTED for number, uid in enumerate(starts)
    }
    rollout = RolloutResult(str(cell), recorder, outcomes, Bytes(prewarmed=prewarmed, wasted=wasted))
    return CellResult(cell, seed, rollout, kubelets_say([], recorder), (), 0.5 + 0.1 * seed, {}, {})


def test_waste_and_hits_are_those_of_all_runs_of_a_cell() -> None:
    runs = [run(1, hits=4, pods=4, wasted=20, prewarmed=100), run(2, hits=0, pods=4, wasted=10, prewarmed=200)]
    found = figures(runs)
    assert found.waste == 0.1
    assert found.every == 0.5
    assert missed(runs, found) == []
    assert missed(runs[:1], figures(runs[:1])) == ["waste 20.0 %, goal <= 15 %"]


def test_what_plans_know_is_a_mean_of_those_that_were_made() -> None:
    runs = [run(seed, hits=1, pods=1, wasted=0, prewarmed=0) for seed in (1, 3)]
    assert known(runs) == 0.7
    assert figures(runs).waste is None


def test_cells_come_in_their_order_whichever_run_ended_first() -> None:
    canary = Cell(Strategy.CANARY, Shape.VARIED, Mode.STEER)
    runs = [
        run(1, hits=1, pods=1, wasted=0, prewarmed=0, cell=canary),
        run(2, hits=1, pods=1, wasted=0, prewarmed=0),
        run(1, hits=1, pods=1, wasted=0, prewarmed=0),
    ]
    assert [[(result.cell.strategy, result.seed) for result in cell] for cell in by_cell(runs)] == [
        [(Strategy.SURGE, 1), (Strategy.SURGE, 2)],
        [(Strategy.CANARY, 1)],
    ]


def test_each_cell_is_one_row_of_a_document() -> None:
    header, rule, row = markdown([run(seed, hits=2, pods=4, wasted=0, prewarmed=100) for seed in (1, 2)])
    assert [cell.strip() for cell in header.split("|")[1:-1]] == list(COLUMNS)
    assert rule.count("---") == len(COLUMNS)
    cells = dict(zip(COLUMNS, (cell.strip() for cell in row.split("|")[1:-1]), strict=True))
    assert cells["strategy"] == "surge"
    assert cells["pods"] == "8"
    assert cells["hits of all"] == "50.0 %"
    assert cells[""] == "ok"
