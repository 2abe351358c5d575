"""PriorityClasses, PodDisruptionBudgets and CSINodes as the API server sends them."""

import json

from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.pods import Pod, PodShape
from prewarm.model.scheduling import DisruptionBudget, PriorityClass, with_priority
from prewarm.model.selectors import LabelSelector
from prewarm.model.volumes import AttachLimits


def raw(**manifest: object) -> bytes:
    return json.dumps(manifest).encode()


def test_a_priority_class() -> None:
    found = Kinds().priority_classes.one(
        raw(metadata={"name": "high"}, value=1000, globalDefault=True, preemptionPolicy="Never")
    )
    assert found.value == PriorityClass("high", 1000, preempts=False, is_default=True)


def test_a_disruption_budget() -> None:
    found = Kinds().disruption_budgets.one(
        raw(
            metadata={"name": "db", "namespace": "shop"},
            spec={"selector": {"matchLabels": {"app": "db"}}, "minAvailable": 2},
            status={"disruptionsAllowed": 1, "disruptedPods": {"db-0": "2026-01-01T00:00:00Z"}},
        )
    )
    expected = DisruptionBudget("shop", "db", LabelSelector((("app", "db"),)), 1, frozenset({"db-0"}))
    assert found.value == expected
    assert expected.protects("shop", "db-1", {"app": "db"})
    assert not expected.protects("shop", "db-0", {"app": "db"})
    assert not expected.protects("other", "db-1", {"app": "db"})
    assert not expected.protects("shop", "db-1", {"app": "web"})


def test_a_budget_without_requirements_protects_nobody_from_the_scheduler() -> None:
    assert not DisruptionBudget("shop", "all", LabelSelector()).protects("shop", "web", {"app": "web"})
    assert not DisruptionBudget("shop", "none").protects("shop", "web", {"app": "web"})


def test_drivers_without_a_limit_are_left_out() -> None:
    drivers = [{"name": "ebs", "allocatable": {"count": 25}}, {"name": "nfs"}, {"name": "efs", "allocatable": {}}]
    found = Kinds().attach_limits.one(raw(metadata={"name": "a"}, spec={"drivers": drivers}))
    assert found.value == AttachLimits((("ebs", 25),))


def test_a_template_gets_the_priority_of_its_class() -> None:
    classes = {"high": PriorityClass("high", 1000), "calm": PriorityClass("calm", 500, preempts=False)}
    assert with_priority(PodShape(priority_class="high"), classes).priority == 1000
    assert not with_priority(PodShape(priority_class="calm"), classes).preempts
    assert with_priority(PodShape(priority_class="gone", priority=7), classes).priority == 7
    assert with_priority(PodShape(), classes).priority == 0


def test_the_lowest_default_class_counts_for_templates_that_name_none() -> None:
    classes = {name: PriorityClass(name, value, is_default=True) for name, value in (("one", 20), ("two", 10))}
    assert with_priority(PodShape(), classes).priority == 10


def test_a_pod_for_which_the_scheduler_found_no_node() -> None:
    def waiting(reason: str) -> Pod:
        condition = {"type": "PodScheduled", "status": "False", "reason": reason}
        manifest = raw(metadata={"name": "web-1"}, status={"phase": "Pending", "conditions": [condition]})
        found = Kinds().pods.one(manifest).value
        assert found is not None
        return found

    assert waiting("Unschedulable").unschedulable
    assert not waiting("SchedulingGated").unschedulable


def test_when_the_kubelet_first_saw_a_pod() -> None:
    found = Kinds().pods.one(raw(metadata={"name": "web-1"}, status={"startTime": "1970-01-01T00:01:00Z"})).value
    assert found is not None
    assert found.started_at == 60.0
