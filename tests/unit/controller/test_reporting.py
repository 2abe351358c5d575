"""The log says a thing once."""

from structlog.testing import capture_logs

from prewarm.controller.metrics import Metrics
from prewarm.controller.reporting import Reporter
from prewarm.model.plans import Plan, Problem
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey
from prewarm.puller import PullerDecision
from prewarm.puller.reasons import WithheldReason

WEB = WorkloadKey("Deployment", "shop", "web")


def test_a_problem_is_told_once_until_it_changes_or_comes_again() -> None:
    reporter = Reporter(Metrics(version="test"))
    broken = Plan(problems=(Problem(WEB, "annotation prewarm.dev/headroom is '1x'"),), only=(WEB,))
    with capture_logs() as lines:
        reporter.planned(broken)
        reporter.planned(broken)
        reporter.planned(Plan(only=(WorkloadKey("Deployment", "shop", "other"),)))
        reporter.planned(broken)
        assert len(lines) == 1
        reporter.planned(Plan(only=(WEB,)))
        reporter.planned(broken)
    assert [line["log_level"] for line in lines] == ["warning", "warning"]


def test_why_pulls_wait_is_told_when_it_begins_however_often_it_comes_and_goes() -> None:
    reporter = Reporter(Metrics(version="test"))
    busy, free = PullerDecision((), withheld={WithheldReason.BUDGET: 3}), PullerDecision(())
    with capture_logs() as lines:
        for second in range(100):
            reporter.pulling(busy if second % 2 else free, ClusterSnapshot(taken_at=1000.0 + second))
        assert len(lines) == 1
        reporter.pulling(busy, ClusterSnapshot(taken_at=2000.0))
    assert [line["reasons"] for line in lines] == [{"Budget": 3}, {"Budget": 3}]
