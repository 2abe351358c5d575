"""The log says a thing once."""

from structlog.testing import capture_logs

from prewarm.controller.metrics import Metrics
from prewarm.controller.reporting import Reporter
from prewarm.model.plans import Plan, Problem
from prewarm.model.workloads import WorkloadKey

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
