"""The report of predictions beside the real scheduler's choices."""

import io

from rich.console import Console

from e2e.bench.placement import report_coverage
from e2e.placement.cases import case
from e2e.placement.scoring import Score


def scored(predicted: float, ceiling: float) -> Score:
    return Score((predicted,) * 3, (ceiling,) * 3, (0.0,) * 3, 0.0, predicted, 10.0)


def test_a_case_in_which_nothing_can_be_known_is_reported_and_costs_nothing() -> None:
    printed = io.StringIO()
    scores = [(case("plain", 30, 1), scored(0.9, 0.9)), (case("ports", 30, 2), scored(0.1, 0.0))]
    assert report_coverage(scores, Console(file=printed, width=200))
    assert "0 of 2 cases below" in printed.getvalue()
