"""While many pulls are under way records wait for some seconds; nothing is lost by that, and status does not wait."""

from collections.abc import Callable
from itertools import pairwise

from msgspec.structs import replace

from prewarm.model.image_caches import DeletionPolicy, ImageCache, ImageList
from prewarm.model.intents import NODE_IMAGES, PODS, Apply, Delete
from prewarm.model.quotas import ResourceQuota
from prewarm.puller import PullerSettings
from prewarm.puller.deferral import LATEST_SECONDS, RECORD_SECONDS, RECORDS_AT_ONCE, RECORDS_MOST, Deferral
from prewarm.puller.pods import order_for
from prewarm.puller.work import Work
from tests.support.clusters import cluster, node
from tests.support.pulling import MB, World, registries

SMALL, SMALLER, LARGE = "registry.test/small:v1", "registry.test/smaller:v1", "registry.test/large:v1"
WRONG = "registry.test/small:v9"
NODES = 4


def world(*, busy_pulls: int, nodes: int = NODES, **fields: object) -> World:
    """Nodes that pull something small, one of them something large in a pod of its own at the same time."""
    sizes = {SMALL: 2 * MB, SMALLER: 1 * MB, LARGE: 4000 * MB}
    found = World(
        registries(sizes), settings=PullerSettings(busy_pulls=busy_pulls, cluster_pulls=1000, registry_pulls=1000)
    )
    found.add_nodes(nodes + 1)
    found.add_cache(ImageCache("shop", "long", uid="uid-long", generation=1, lists=_only((LARGE,), "n0")))
    names = tuple(f"n{number}" for number in range(1, nodes + 1))
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


def test_records_that_waited_are_made_out_a_few_at_a_look() -> None:
    nodes = 2 * RECORDS_AT_ONCE + 10
    found = world(busy_pulls=0, nodes=nodes)
    until(found, lambda: succeeded(found) == nodes)
    assert recorded(found) == []
    found.settings = replace(found.settings, busy_pulls=1000)
    at_looks = [0]
    while len(recorded(found)) < nodes:
        found.step(found.now + 1.0)
        at_looks.append(len(recorded(found)))
    steps = [after - before for before, after in pairwise(at_looks) if after > before]
    assert len(steps) == 3
    assert max(steps) <= RECORDS_AT_ONCE


def test_no_record_waits_for_its_turn_for_ever() -> None:
    """More become due than are made out at a look: those that wait longest go first, whatever their names."""
    deferral, names = Deferral(), [f"n{number:04d}" for number in range(3000)]
    began: dict[str, float] = {}
    longest, most = 0.0, 0
    snapshot = cluster([node(name) for name in names])
    order = order_for(ImageCache("shop", "busy", uid="uid-busy"), "n0000", "uid-n0000", (SMALL,), 1, 1000.0)
    for look in range(300):
        # A hundred nodes have news at each look, a second apart, and never is the cluster less busy.
        fresh = frozenset(names[(look * 100 + offset) % len(names)] for offset in range(100)) - deferral.waiting
        began |= dict.fromkeys(fresh, float(look))
        at = replace(snapshot, taken_at=1000.0 + look)
        due = deferral.due(fresh, at, Work(at, [order]), PullerSettings(busy_pulls=0))
        longest = max([longest, *(look - began.pop(name) for name in due)])
        most = max(most, len(deferral.waiting))
    assert longest <= LATEST_SECONDS
    assert most <= RECORDS_MOST
    assert min(began.values(), default=299.0) >= 299 - LATEST_SECONDS


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
