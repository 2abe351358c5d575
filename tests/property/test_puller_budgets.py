"""Budgets, order and patience with what is slow, while caches come, change and go, pulls fail and controllers restart.

The witness is the emulated kubelets' own account of their pulls, not what the puller believes.
"""

from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import registry_of
from prewarm.puller import PullerSettings
from prewarm.puller.order import precedence
from prewarm.simulation.outputs import PullFinished
from prewarm.simulation.registry import Behaviour, Registries, Registry, synthetic_image
from prewarm.simulation.specs import NodeProfile
from tests.support.clusters import node
from tests.support.pulling import HELPER, MB, World

SIZES = {
    "registry.test/web:v1": 100 * MB,
    "registry.test/proxy:v1": 10 * MB,
    "other.test/log:v1": 30 * MB,
    "other.test/agent:v1": 60 * MB,
}
MISSING = "other.test/log:gone"
NODES = 4

BUDGETS = st.builds(
    PullerSettings,
    cluster_pulls=st.integers(1, 5),
    node_pulls=st.integers(1, 3),
    registry_pulls=st.integers(1, 4),
    images_per_pod=st.integers(1, 3),
)


def world(budgets: PullerSettings) -> World:
    """Nodes that pull as many images at once as they are told to."""
    found = Registries()
    found.push(HELPER, synthetic_image(HELPER, [MB]))
    for image, size in SIZES.items():
        found.push(image, synthetic_image(image, [size]))
    made = World(found, settings=budgets)
    for index in range(NODES):
        add_node(made, f"n{index}")
    return made


def add_node(made: World, name: str, bandwidth: float = 50e6) -> None:
    made.nodes[name] = node(name)
    made.fleet.add_node(NodeProfile(name, bandwidth=bandwidth, pull_slots=None))


def cache(name: str, images: Iterable[str], **fields: object) -> ImageCache:
    made = ImageCache("shop", name, uid=f"uid-{name}", generation=1, lists=(ImageList(tuple(images)),))
    return replace(made, **fields)


def most_at_once(pulls: Sequence[PullFinished]) -> int:
    """How many of these pulls went on at the same time, at most."""
    moments = sorted(
        [(pull.started_at, 1) for pull in pulls] + [(pull.at, -1) for pull in pulls], key=lambda moment: moment
    )
    most = going_on = 0
    for _, change in moments:
        going_on += change
        most = max(most, going_on)
    return most


def assert_within(found: World, budgets: PullerSettings) -> None:
    assert most_at_once(found.pulls) <= budgets.cluster_pulls
    for registry in {registry_of(pull.image) for pull in found.pulls}:
        assert most_at_once([p for p in found.pulls if registry_of(p.image) == registry]) <= budgets.registry_pulls
    for name in found.nodes:
        assert most_at_once([pull for pull in found.pulls if pull.node == name]) <= budgets.node_pulls


CHANGES = st.lists(
    st.tuples(
        st.floats(0.0, 15.0),
        st.sampled_from(["cache", "cache", "cache", "edit", "suspend", "delete", "restart"]),
        st.lists(st.sampled_from([*SIZES, MISSING]), unique=True, min_size=1, max_size=3),
        st.integers(-1, 1),
    ),
    min_size=1,
    max_size=8,
)


@given(changes=CHANGES, budgets=BUDGETS)
@settings(max_examples=15, deadline=None)
def test_no_budget_is_exceeded_at_any_instant(
    changes: list[tuple[float, str, list[str], int]], budgets: PullerSettings
) -> None:
    found = world(budgets)
    start = found.now
    for number, (at, what, images, priority) in enumerate(sorted(changes, key=lambda change: change[0])):
        found.run(start + at - found.now)
        first = next(iter(found.caches.values()), None)
        match what:
            case "cache":
                found.add_cache(cache(f"c{number}", images, priority=priority))
            case "restart":
                found.restart_controller()
            case "edit" if first is not None:
                lists = (ImageList(tuple(images)),)
                found.add_cache(replace(first, lists=lists, priority=priority, generation=first.generation + 1))
            case "suspend" if first is not None:
                found.add_cache(replace(first, suspend=not first.suspend, generation=first.generation + 1))
            case "delete" if first is not None:
                del found.caches[first.key]
            case _:
                pass
    found.run(250)
    assert_within(found, budgets)
    for image in SIZES:
        assert all(count == 1 for count in found.pulls_of(image).values())


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 1.0, 3.0]),
        st.sampled_from(sorted(SIZES)),
        st.integers(-1, 1),
        st.none() | st.sampled_from([2000.0, 3000.0]),
    ),
    min_size=2,
    max_size=5,
)


@given(arrivals=ARRIVALS, cluster_pulls=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_pulls_start_in_order_of_priority_then_need(
    arrivals: list[tuple[float, str, int, float | None]], cluster_pulls: int
) -> None:
    """Whenever a pod is made, whatever is more urgent has been ordered, or its node is at work."""
    found = world(PullerSettings(cluster_pulls=cluster_pulls))
    start = found.now
    waiting = [
        (start + at, cache(f"c{number}", [image], priority=priority, needed_by=needed))
        for number, (at, image, priority, needed) in enumerate(sorted(arrivals, key=lambda arrival: arrival[0]))
    ]
    until = start + 200
    ordered: set[tuple[str, str]] = set()
    seen = 0
    while found.now < until:
        while waiting and waiting[0][0] <= found.now:
            found.add_cache(waiting.pop(0)[1])
        there = list(found.caches.values())
        present = {(pull.node, pull.image) for pull in found.pulls if not pull.error}
        found.step(min(until, waiting[0][0]) if waiting else until)
        made = [pod for pod in found.pods.values() if pod.name in set(found.created[seen:])]
        seen = len(found.created)
        busy = {pod.node_name for pod in found.pods.values()}
        ordered |= {(pod.node_name, pod.shape.containers[1].image) for pod in made}
        for pod in made:
            assert pod.owner is not None
            own = next(known for known in there if known.uid == pod.owner.uid)
            for other in there:
                if precedence(other) < precedence(own):
                    (image,) = other.lists[0].images
                    left = {name for name in found.nodes if (name, image) not in ordered | present}
                    assert left <= busy
    assert found.pulls


@given(
    healthy=st.lists(st.sampled_from(sorted(SIZES)), unique=True, min_size=1, max_size=3),
    cluster_pulls=st.integers(2, 6),
    restarts=st.lists(st.floats(1.0, 60.0), max_size=2),
)
@settings(max_examples=8, deadline=None)
def test_a_silent_registry_costs_the_others_two_timeouts(
    healthy: list[str], cluster_pulls: int, restarts: list[float]
) -> None:
    alone = world(PullerSettings(cluster_pulls=cluster_pulls))
    alone.add_cache(cache("healthy", healthy))
    alone.settle(600)
    needed = alone.now - alone.caches["shop", "healthy"].created_at

    found = world(PullerSettings(cluster_pulls=cluster_pulls))
    found.registries.declare(Registry("silent.test", behaviour=Behaviour.SILENT))
    found.add_cache(cache("stuck", ["silent.test/app:v1"], priority=1))
    found.add_cache(cache("healthy", healthy))
    start = found.now
    for at in sorted(restarts):
        found.run(start + at - found.now)
        found.restart_controller()
    # One timeout that nobody could foresee; then one more on one node at a time, whose turn comes last at worst.
    found.run(start + 2 * 33 + 2.5 * needed - found.now)
    assert found.condition("healthy") == (True, "Warm")


@given(cluster_pulls=st.integers(2, 4), images=st.lists(st.sampled_from(sorted(SIZES)), unique=True, min_size=1))
@settings(max_examples=8, deadline=None)
def test_a_slow_node_does_not_hold_up_the_others(cluster_pulls: int, images: list[str]) -> None:
    found = world(PullerSettings(cluster_pulls=cluster_pulls))
    # Its name puts it first.
    add_node(found, "a-slow", bandwidth=20e3)
    found.add_cache(cache("base", images))
    found.run(200)
    for image in images:
        assert found.pulls_of(image) == dict.fromkeys((f"n{index}" for index in range(NODES)), 1)
