"""Labels and entries are written once, again if that had no effect, and removed in the end."""

from msgspec.structs import replace

from prewarm.api.steer_label import label_key
from prewarm.controller.steersman import AGAIN_SECONDS, Steersman
from prewarm.delivery.steering import ENTRY_SECONDS
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.intents import Apply, Intent, LabelNode
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer, SteerState
from prewarm.planning import plan
from prewarm.presence import warmth
from tests.support.clusters import WEB, cluster, deployment, node, template

IMAGE = "registry.test/web:v2"


def snapshot(*, warm: bool = True, now: float = 1000.0) -> ClusterSnapshot:
    names = [f"n{number}" for number in range(4)]
    image = (PresentImage(IMAGE, Evidence.OUR_PULL, 990.0),)
    return cluster(
        [node(name) for name in names],
        workloads=[deployment(template(IMAGE), replicas=4, paused=True)],
        policies=[Policy("default", steer=Steer.PREFER)],
        node_images=[NodeImages(name, f"uid-{name}", f"boot-{name}", image) for name in names] if warm else (),
        now=now,
    )


def look(steersman: Steersman, of: ClusterSnapshot, made: Plan | None = None) -> tuple[Intent, ...]:
    return steersman.look(of, made, warmth(of))


def labels(intents: tuple[Intent, ...]) -> list[str]:
    return [intent.name for intent in intents if isinstance(intent, LabelNode)]


def data(intents: tuple[Intent, ...]) -> list[object]:
    return [intent.manifest["data"] for intent in intents if isinstance(intent, Apply)]


def labelled(of: ClusterSnapshot, value: str = "v2") -> ClusterSnapshot:
    key = label_key(WEB)
    return replace(of, nodes={n: replace(one, labels={**one.labels, key: value}) for n, one in of.nodes.items()})


def test_the_entry_comes_with_the_plan_and_the_labels_with_the_image() -> None:
    steersman, cold = Steersman("system", None), snapshot(warm=False)
    first = look(steersman, cold, plan(cold, History()))
    assert labels(first) == []
    assert [list(entries) for entries in data(first) if isinstance(entries, dict)] == [["deployment.shop.web"]]
    assert labels(look(steersman, snapshot())) == ["n0", "n1", "n2", "n3"]
    assert steersman.unready(snapshot()) == {WEB}
    assert steersman.unready(labelled(snapshot())) == set()


def test_what_had_no_effect_is_written_again_and_what_had_is_not() -> None:
    steersman, warm = Steersman("system", None), snapshot()
    assert len(labels(look(steersman, warm, plan(warm, History())))) == 4
    assert look(steersman, warm) == ()
    assert len(labels(look(steersman, replace(warm, taken_at=1000.0 + AGAIN_SECONDS)))) == 4
    assert labels(look(steersman, labelled(replace(warm, taken_at=1100.0)))) == []


def test_entries_are_repeated_and_renewed_long_before_they_end() -> None:
    """Nobody tells whether they were written; the same again is nothing to the server."""
    steersman, warm = Steersman("system", None), labelled(snapshot())
    (first,) = data(look(steersman, warm, plan(warm, History())))
    assert data(look(steersman, replace(warm, taken_at=1000.0 + AGAIN_SECONDS - 1))) == []
    assert data(look(steersman, replace(warm, taken_at=1000.0 + AGAIN_SECONDS))) == [first]
    assert data(look(steersman, replace(warm, taken_at=1010.0))) == []
    assert steersman.wakes_at is not None
    assert steersman.wakes_at < 1000.0 + ENTRY_SECONDS / 2
    (later,) = data(look(steersman, replace(warm, taken_at=1000.0 + ENTRY_SECONDS * 2 / 3)))
    assert later != first


def test_when_the_demand_is_over_labels_and_entries_go() -> None:
    steersman, warm = Steersman("system", None), labelled(snapshot())
    look(steersman, warm, plan(warm, History()))
    ended = look(steersman, warm, Plan(only=(WEB,)))
    assert labels(ended) == ["n0", "n1", "n2", "n3"]
    assert data(ended) == [{}]
    bare = replace(warm, nodes={name: replace(one, labels={}) for name, one in warm.nodes.items()})
    assert data(look(steersman, replace(bare, taken_at=1000.0 + AGAIN_SECONDS))) == [{}]
    assert look(steersman, replace(bare, taken_at=2000.0)) == ()
    assert steersman.wakes_at is None
    assert steersman.workloads == steersman.nodes == 0


def test_a_new_instance_waits_for_a_whole_plan_and_removes_what_is_stale() -> None:
    steersman, stale = Steersman("system", None), labelled(snapshot(), "v1")
    bare = replace(stale, workloads={})
    assert look(steersman, bare) == ()
    assert look(steersman, bare, Plan(only=(WEB,))) == ()
    assert len(labels(look(steersman, bare, Plan()))) == 4


def test_without_the_api_stale_labels_go_and_without_the_setting_nothing_is_written() -> None:
    stale = labelled(snapshot())
    without = plan(stale, History(), unsteerable=SteerState.UNSUPPORTED)
    assert len(labels(look(Steersman("system", SteerState.UNSUPPORTED), stale, without))) == 4
    assert look(Steersman("system", SteerState.SWITCHED_OFF), stale, without) == ()
