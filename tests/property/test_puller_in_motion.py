"""Whatever is killed or lost on the way, every node pulls every image once, within budgets, and no pod is left over."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.puller import PullerSettings
from prewarm.puller.work import Work
from tests.support.pulling import MB, World, registries

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
