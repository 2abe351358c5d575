import pytest

from prewarm.model.nodes import Node, NodeState, pull_obstacle
from prewarm.model.pods import Taint, TaintEffect, Toleration
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        (Operator.IN, ("a", "b"), {"k": "b"}, True),
        (Operator.IN, ("a",), {}, False),
        (Operator.NOT_IN, ("a",), {}, True),
        (Operator.NOT_IN, ("a",), {"k": "a"}, False),
        (Operator.EXISTS, (), {"k": ""}, True),
        (Operator.DOES_NOT_EXIST, (), {"k": ""}, False),
        (Operator.GT, ("3",), {"k": "4"}, True),
        (Operator.LT, ("3",), {"k": "4"}, False),
        (Operator.GT, ("3",), {"k": "many"}, False),
        (Operator.GT, ("3",), {"k": "1_000"}, False),
        (Operator.GT, ("3",), {"k": "9223372036854775808"}, False),
    ],
)
def test_requirements_match_as_in_apimachinery(
    operator: Operator, values: tuple[str, ...], labels: dict[str, str], expected: bool
) -> None:
    assert Requirement("k", operator, values).matches(labels) is expected


def test_an_empty_label_selector_matches_everything_and_an_empty_node_term_nothing() -> None:
    assert LabelSelector().matches({"any": "label"})
    assert not NodeSelectorTerm().matches("node", {"any": "label"})


def test_a_node_term_can_name_the_node() -> None:
    term = NodeSelectorTerm(match_fields=(Requirement("metadata.name", Operator.IN, ("node-1",)),))
    assert term.matches("node-1", {})
    assert not term.matches("node-2", {})


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key="k", operator="Exists"), True),
        (Toleration(key="other", operator="Exists"), False),
        (Toleration(key="k", value="v"), True),
        (Toleration(key="k", value="w"), False),
        (Toleration(key="k", value="v", effect="NoExecute"), False),
        (Toleration(key="k", value="v", operator="Gt"), False),
    ],
)
def test_tolerations_match_as_in_the_api(toleration: Toleration, expected: bool) -> None:
    assert toleration.tolerates(Taint("k", "v", TaintEffect.NO_SCHEDULE)) is expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Node("n"), None),
        (Node("n", taints=(Taint("dedicated", "gpu"),)), None),
        (Node("n", unschedulable=True), NodeState.CORDONED),
        (Node("n", ready=False), NodeState.NOT_READY),
        (Node("n", disk_pressure=True), NodeState.DISK_PRESSURE),
        (Node("n", deleted_at=1.0), NodeState.LEAVING),
        (Node("n", taints=(Taint("karpenter.sh/disrupted"),)), NodeState.LEAVING),
        (Node("n", taints=(Taint("node-role.kubernetes.io/control-plane"),)), NodeState.TAINTED),
        (Node("n", taints=(Taint("x", effect=TaintEffect.NO_EXECUTE),)), NodeState.TAINTED),
        (Node("n", labels={"type": "virtual-kubelet"}), NodeState.VIRTUAL),
        (Node("n", operating_system="windows"), NodeState.OPERATING_SYSTEM),
    ],
)
def test_nodes_that_take_no_pull_say_why(node: Node, expected: NodeState | None) -> None:
    assert pull_obstacle(node) is expected
