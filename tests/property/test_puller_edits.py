"""Whatever people change and nodes go through, in any order: at the end each wish is met, once, and no pod is left."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.pods import ContainerShape, Pod, PodPhase, PodShape
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from prewarm.puller import PullerSettings
from prewarm.puller.targets import Targets
from tests.support.pulling import MB, World, registries

IMAGES = {"registry.test/web:v1": 60 * MB, "registry.test/proxy:v1": 10 * MB, "other.test/log:v1": 30 * MB}
NODES = 4
WISHES = st.builds(
    ImageList,
    st.lists(st.sampled_from(sorted(IMAGES)), unique=True, max_size=3).map(tuple),
    st.sampled_from([None, None, ("n0", "n2"), ("n3",)]),
    st.sampled_from([(), (), (("pool", "a"),)]),
    st.sampled_from([(), (), (NodeSelectorTerm((Requirement("pool", Operator.NOT_IN, ("b",)),)),)]),
    st.sampled_from([None, None, LabelSelector((("app", "web"),))]),
)
SPECS = st.lists(WISHES, min_size=1, max_size=2).map(tuple)
NAMES = st.sampled_from(["n0", "n1", "n2", "n3"])
HAPPENINGS = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(["one", "two"]), SPECS),
    st.tuples(st.just("delete"), st.sampled_from(["one", "two"])),
    st.tuples(st.just("cordon"), NAMES),
    st.tuples(st.just("uncordon"), NAMES),
    st.tuples(st.just("label"), NAMES, st.sampled_from(["a", "b"])),
    st.tuples(st.just("pod comes"), NAMES),
    st.tuples(st.just("pod goes"), NAMES),
    st.tuples(st.just("restart")),
)


def happen(found: World, what: tuple[object, ...]) -> None:
    """Do it, as people, the scheduler and the API server would."""
    match what:
        case ("edit", str(name), tuple(lists)):
            before = found.caches.get(("shop", name))
            if before is None:
                found.serial += 1
                before = ImageCache("shop", name, uid=f"uid-{name}-{found.serial}")
            found.add_cache(replace(before, lists=lists, generation=before.generation + 1))
        case ("delete", str(name)):
            found.caches.pop(("shop", name), None)
        case ("cordon" | "uncordon" as how, str(name)):
            found.nodes[name] = replace(found.nodes[name], unschedulable=how == "cordon")
        case ("label", str(name), str(pool)):
            found.nodes[name] = replace(found.nodes[name], labels={**found.nodes[name].labels, "pool": pool})
        case ("pod comes", str(name)):
            shape = PodShape((ContainerShape("c", "registry.test/old:v1"),))
            pod = Pod("shop", f"web-{name}", f"web-{name}", name, {"app": "web"}, shape=shape, phase=PodPhase.RUNNING)
            found.pods[pod.key] = pod
        case ("pod goes", str(name)):
            found.pods.pop(("shop", f"web-{name}"), None)
        case _:
            found.restart_controller()


@given(
    happenings=st.lists(st.tuples(st.floats(0.0, 4.0), HAPPENINGS), min_size=2, max_size=10),
    cluster_pulls=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_every_wish_is_met_once(happenings: list[tuple[float, tuple[object, ...]]], cluster_pulls: int) -> None:
    found = World(registries(IMAGES), settings=PullerSettings(cluster_pulls=cluster_pulls))
    found.add_nodes(NODES)
    for pause, what in happenings:
        happen(found, what)
        found.run(pause)
    found.run(200)
    snapshot = found.snapshot()
    for cache in found.caches.values():
        targets = Targets(cache)
        pairs = [(name, image) for name in snapshot.nodes for image in targets.images_on(name, snapshot)]
        there = {(name, image) for name, image in pairs if name in found.pulls_of(image)}
        status = cache.status
        missing = [name for name, image in pairs if (name, image) not in there]
        assert all(snapshot.nodes[name].unschedulable for name in missing)
        assert (status.desired, status.succeeded, status.skipped) == (len(pairs), len(there), len(missing))
        assert (status.active, status.failed, status.observed_generation) == (0, 0, cache.generation)
    for image in IMAGES:
        assert all(count == 1 for count in found.pulls_of(image).values())
    assert not snapshot.puller_pods
