from pathlib import Path

import pytest

from e2e.cluster.selection import Lane, Selection, SelectionError, select

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: c, user: u}}
- {name: two, context: {cluster: c, user: u}}
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    return path


def test_a_kubeconfig_of_daily_work_is_never_taken(kubeconfig: Path) -> None:
    assert select({"KUBECONFIG": str(kubeconfig)}) == Selection(Lane.LOCAL)


def test_kind_is_taken_when_asked_for() -> None:
    assert select({"PREWARM_TEST_CLUSTER": "kind"}) == Selection(Lane.KIND)


def test_an_existing_cluster_is_taken_with_its_current_context(kubeconfig: Path) -> None:
    chosen = select({"PREWARM_TEST_KUBECONFIG": str(kubeconfig)})
    assert chosen == Selection(Lane.EXISTING, kubeconfig, "one")


def test_an_existing_cluster_is_taken_with_the_named_context(kubeconfig: Path) -> None:
    chosen = select({"PREWARM_TEST_KUBECONFIG": str(kubeconfig), "PREWARM_TEST_CONTEXT": "two"})
    assert chosen.context == "two"


def test_an_unknown_context_is_refused_with_the_known_ones(kubeconfig: Path) -> None:
    with pytest.raises(SelectionError, match="no context 'three'; it has: one, two"):
        select({"PREWARM_TEST_KUBECONFIG": str(kubeconfig), "PREWARM_TEST_CONTEXT": "three"})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PREWARM_TEST_CLUSTER": "minikube"}, "expected local or kind"),
        ({"PREWARM_TEST_CONTEXT": "one"}, "without PREWARM_TEST_KUBECONFIG"),
        ({"PREWARM_TEST_KUBECONFIG": "/nowhere", "PREWARM_TEST_CLUSTER": "kind"}, "both set"),
        ({"PREWARM_TEST_KUBECONFIG": "/nowhere"}, "No such file"),
    ],
)
def test_contradictions_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select(environment)


@pytest.mark.parametrize("text", ["- a list", "{", "contexts: []"])
def test_a_file_that_is_no_kubeconfig_is_refused(kubeconfig: Path, text: str) -> None:
    kubeconfig.write_text(text)
    with pytest.raises(SelectionError, match=str(kubeconfig)):
        select({"PREWARM_TEST_KUBECONFIG": str(kubeconfig)})
