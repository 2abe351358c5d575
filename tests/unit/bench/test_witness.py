from e2e.bench.matrix.witness import Seen, disagreements, kubelets_say
from e2e.demo.recorder import Recorder, Start
from prewarm.model.outcomes import Outcome
from prewarm.simulation.outputs import PullFinished

IMAGE = "registry.test/shop:v2"


def pull(uid: str, node: str, downloaded: int, *, waited: float = 0.0, error: str = "") -> PullFinished:
    return PullFinished(20.0, node, "shop", uid, uid, IMAGE, 10.0, 10.0 + waited, downloaded, 100, error)


def recorder(**nodes: str) -> Recorder:
    return Recorder(IMAGE, {uid: Start(uid, 1.0, node) for uid, node in nodes.items()})


def test_each_pod_is_warm_waited_or_cold_by_its_own_pulls() -> None:
    said = kubelets_say(
        [
            pull("puller", "n1", 100),
            pull("b", "n2", 0, waited=5.0),
            pull("c", "n3", 0, error="x"),
            pull("c", "n3", 100),
        ],
        recorder(a="n1", b="n2", c="n3"),
    )
    assert said.starts == {"a": Seen.WARM, "b": Seen.WAITED, "c": Seen.COLD}


def test_a_download_of_ours_is_used_once_and_not_by_a_pod_that_waited_for_it() -> None:
    pulls = [pull("puller-1", "n1", 100), pull("puller-2", "n2", 100), pull("puller-3", "n3", 100)]
    pulls.append(pull("c", "n2", 0, waited=3.0))
    said = kubelets_say(pulls, recorder(a="n1", b="n1", c="n2", d="n2"))
    assert said.prewarmed == 1
    assert said.ours.keys() == {"n1", "n2", "n3"}


def test_what_the_accounting_and_the_kubelets_tell_differently_is_named() -> None:
    recorded = recorder(a="n1", b="n2")
    said = kubelets_say([pull("puller", "n1", 100), pull("b", "n2", 100)], recorded)
    assert disagreements({"a": Outcome.HIT_PREWARMED, "b": Outcome.MISS_UNPREDICTED}, said, recorded) == []
    wrong = disagreements({"a": Outcome.HIT_PREWARMED, "b": Outcome.HIT_PREWARMED}, said, recorded)
    assert wrong == [
        "b: the accounting says hit_prewarmed, its kubelet cold",
        "hit_prewarmed: 2 by the accounting, 1 by the kubelets",
    ]
    assert disagreements({"b": Outcome.LATE}, said, recorded)[0] == "a: the accounting says nothing, its kubelet warm"
