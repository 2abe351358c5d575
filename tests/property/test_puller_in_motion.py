"""Whatever is killed or lost on the way, every node pulls every image once, within budgets, and no pod is left over."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.presence import warmth
from prewarm.puller import PullerMemory, PullerSettings
from prewarm.puller.pairs import Pairs
from prewarm.puller.work import Work
from tests.support.pulling import MB, World, assert_as_if_judged_anew, registries

IMAGES = {"registry.test/web:v1": 100 * MB, "registry.test/proxy:v1": 10 * MB, "other.test/log:v1": 30 * MB}
NODES = 5
TIMES = st.lists(st.floats(0.01, 20.0), max_size=4)


@given(
    restarts=TIMES,
    lost=st.frozensets(st.integers(0, 15), max_size=4),
    cluster_pulls=st.integers(1, 4),
    registry_pulls=st.integers(1, 3),
    busy_pulls=st.sampled_from([0, 1, 50]),
    arrivals=st.lists(st.tuples(st.floats(0.0, 10.0), st.sampled_from(sorted(IMAGES))), min_size=1, max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_restarts_and_lost_creates(
    restarts: list[float],
    lost: frozenset[int],
    cluster_pulls: int,
    registry_pulls: int,
    busy_pulls: int,
    arrivals: list[tuple[float, str]],
) -> None:
    budgets = PullerSettings(cluster_pulls=cluster_pulls, registry_pulls=registry_pulls, busy_pulls=busy_pulls)
    found = World(registries(IMAGES), settings=budgets, lost=lost)
    found.add_nodes(NODES)
    start = found.now
    happenings = sorted([(at, "") for at in restarts] + arrivals)
    for number, (at, image) in enumerate(happenings):
        watch(found, start + at, budgets)
        if image:
            lists = (ImageList((image,)),)
            found.add_cache(ImageCache("shop", f"c{number}", uid=f"uid-{number}", generation=1, lists=lists))
        else:
            found.restart_controller()
    watch(found, found.now + 300, budgets)
    for cache in found.caches.values():
        assert found.condition(cache.name) == (True, "Warm")
    for image in {image for _, image in arrivals}:
        assert found.pulls_of(image) == dict.fromkeys(found.nodes, 1)
    assert not found.snapshot().puller_pods


def watch(found: World, until: float, budgets: PullerSettings) -> None:
    """Let time pass; at every step the live pods are within the budgets."""
    while found.now < until:
        found.step(until)
        work = Work(found.snapshot())
        assert work.total <= budgets.cluster_pulls
        per_node = Counter(reading.pod.node_name for reading in work.readings if not reading.settled)
        assert max(per_node.values(), default=0) <= 1
        assert work.from_registry("registry.test") <= budgets.registry_pulls


@given(
    arrivals=st.lists(
        st.tuples(st.floats(0.0, 20.0), st.sampled_from([*sorted(IMAGES), "registry.test/absent:v1"])),
        min_size=1,
        max_size=4,
    ),
    lost=st.frozensets(st.integers(0, 15), max_size=4),
    node_pulls=st.integers(1, 2),
)
@settings(max_examples=15, deadline=None)
def test_what_is_kept_between_looks_changes_no_verdict(
    arrivals: list[tuple[float, str]], lost: frozenset[int], node_pulls: int
) -> None:
    """Only pods that changed are read, and only their nodes are judged."""
    found = World(registries(IMAGES), settings=PullerSettings(node_pulls=node_pulls, cluster_pulls=4), lost=lost)
    found.add_nodes(NODES)
    start, kept = found.now, PullerMemory()
    waiting = sorted(arrivals)
    while found.now < start + 60:
        if waiting and found.now >= start + waiting[0][0]:
            _, image = waiting.pop(0)
            lists = (ImageList((image,)),)
            name = f"c{len(waiting)}"
            found.add_cache(ImageCache("shop", name, uid=name, generation=1, lists=lists, attempt_timeout_seconds=20))
        found.step(start + (waiting[0][0] if waiting else 60))
        snapshot = found.snapshot()
        known = warmth(snapshot, kept.warmth)
        work = Work(snapshot, found.memory.orders, found.memory.failed_at, readings=kept.readings)
        courses = kept.courses(snapshot)
        judge = Pairs(snapshot, known, work, courses=courses)
        for standing in kept.standings(snapshot, judge, kept.read_nodes(snapshot, known), work.moved, courses):
            assert_as_if_judged_anew(standing, judge)
