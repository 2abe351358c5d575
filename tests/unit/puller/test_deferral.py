"""While many pulls are under way records wait for some seconds; nothing is lost by that, and status does not wait."""

from collections.abc import Callable

from prewarm.model.image_caches import DeletionPolicy, ImageCache, ImageList
from prewarm.model.intents import NODE_IMAGES, PODS, Apply, Delete
from prewarm.model.quotas import ResourceQuota
from prewarm.puller import PullerSettings
from prewarm.puller.deferral import RECORD_SECONDS
from tests.support.pulling import MB, World, registries

SMALL, SMALLER, LARGE = "registry.test/small:v1", "registry.test/smaller:v1", "registry.test/large:v1"
WRONG = "registry.test/small:v9"
NODES = 4


def world(*, busy_pulls: int, **fields: object) -> World:
    """Nodes that pull something small, one of them something large in a pod of its own at the same time."""
    sizes = {SMALL: 2 * MB, SMALLER: 1 * MB, LARGE: 4000 * MB}
    found = World(registries(sizes), settings=PullerSettings(busy_pulls=busy_pulls, node_pulls=1))
    found.add_nodes(NODES + 1)
    found.add_cache(ImageCache("shop", "long", uid="uid-long", generation=1, lists=_only((LARGE,), "n0")))
    names = tuple(f"n{number}" for number in range(1, NODES + 1))
    images = fields.pop("images", (SMALL,))
    assert isinstance(images, tuple)
    found.add_cache(
        ImageCache("shop", "short", uid="uid-short", generation=1, lists=_only(images, *names), **fields)  # type: ignore[arg-type]
    )
    return found


def _only(images: tuple[str, ...], *names: str) -> tuple[ImageList, ...]:
    return (ImageList(images, node_names=names),)


def until(found: World, condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Let time pass until a condition holds; when that was."""
    end = found.now + seconds
    while found.now < end and not condition():
        found.step(min(end, found.now + 0.5))
    assert condition()
    return found.now


def recorded(found: World) -> list[str]:
    return [intent.name for intent in found.written if isinstance(intent, Apply) and intent.resource == NODE_IMAGES]


def succeeded(found: World) -> int:
    return found.caches["shop", "short"].status.succeeded


def test_status_tells_of_pulls_before_their_records_are_written() -> None:
    found = world(busy_pulls=0)
    told = until(found, lambda: succeeded(found) == NODES)
    assert recorded(found) == []
    assert len(found.snapshot().puller_pods) == NODES + 1
    written = until(found, lambda: len(recorded(found)) == NODES)
    assert written - told <= RECORD_SECONDS + 0.001
    # The other pull goes on, and nothing waits a second time.
    assert until(found, lambda: len(found.snapshot().puller_pods) == 1) <= written + 1.0


def test_where_few_pulls_are_under_way_nothing_waits() -> None:
    waited, at_once = world(busy_pulls=0), world(busy_pulls=50)
    begun = waited.now
    after = [until(found, lambda found=found: len(recorded(found)) == NODES) - begun for found in (waited, at_once)]  # type: ignore[misc]
    assert after[1] < after[0]


def test_what_waits_goes_on_waiting_for_the_last_of_many_pulls() -> None:
    found = world(busy_pulls=NODES)
    until(found, lambda: succeeded(found) == NODES)
    found.run(1.0)
    assert recorded(found) == []
    few = world(busy_pulls=NODES + 1)
    until(few, lambda: succeeded(few) == NODES)
    few.run(1.0)
    assert sorted(recorded(few)) == ["n1", "n2", "n3", "n4"]


def test_what_waited_is_written_when_the_last_pull_is_done() -> None:
    found = world(busy_pulls=0)
    del found.caches["shop", "long"]
    until(found, lambda: succeeded(found) == NODES)
    found.run(3.0)
    assert sorted(recorded(found)) == ["n1", "n2", "n3", "n4"]
    assert found.snapshot().puller_pods == {}


def test_several_images_on_a_node_are_one_record() -> None:
    found = world(busy_pulls=0, images=(SMALL, SMALLER))
    until(found, lambda: succeeded(found) == 2 * NODES)
    assert recorded(found) == []
    until(found, lambda: bool(recorded(found)))
    found.run(1.0)
    assert sorted(recorded(found)) == ["n1", "n2", "n3", "n4"]
    assert {entry.image for entry in found.records["n1"].images} == {SMALL, SMALLER}


def test_a_restart_pulls_nothing_again() -> None:
    found = world(busy_pulls=0)
    until(found, lambda: succeeded(found) == NODES)
    assert recorded(found) == []
    found.restart_controller()
    found.run(300.0)
    assert found.pulls_of(SMALL) == dict.fromkeys(["n1", "n2", "n3", "n4"], 1)
    assert found.snapshot().puller_pods == {}


def test_failures_are_recorded_at_once() -> None:
    found = world(busy_pulls=0, images=(WRONG,))
    until(found, lambda: found.caches["shop", "short"].status.failed > 0)
    assert recorded(found)


def test_what_a_deleted_cache_leaves_to_purge_is_recorded_at_once() -> None:
    found = world(busy_pulls=0, deletion_policy=DeletionPolicy.PURGE)
    until(found, lambda: succeeded(found) == NODES)
    found.run(0.1)
    assert len(set(recorded(found))) == NODES


def test_pods_that_take_from_a_quota_do_not_wait() -> None:
    found = world(busy_pulls=0)
    quota = ResourceQuota("shop", "pods", hard={"pods": 100}, used={"pods": 10})
    found.quotas["shop"] = (quota,)
    until(found, lambda: succeeded(found) == NODES)
    found.run(0.1)
    assert any(isinstance(intent, Delete) and intent.resource == PODS for intent in found.written)
