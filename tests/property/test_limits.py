"""Limits shared out with memory are those that are shared out anew, whatever changed in between."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, ImageCacheStatus, ImageList, Limits, Policy
from prewarm.model.pods import Pod
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.limits import LimitsMemory
from tests.support.clusters import cluster, node

IMAGES = [f"registry.test/{letter}:v1" for letter in "abc"]
PODS = LabelSelector((("app", "web"),))
some = st.none() | st.integers(0, 4)
entries = st.builds(
    ImageList,
    st.lists(st.sampled_from(IMAGES), max_size=3).map(tuple),
    st.none() | st.lists(st.sampled_from(["n0", "n1", "n2", "gone"]), max_size=3).map(tuple),
    st.sampled_from([(), (("pool", "a"),)]),
    pod_selector=st.sampled_from([None, PODS]),
)
caches = st.lists(
    st.builds(
        ImageCache,
        st.just("shop"),
        st.sampled_from(["first", "second", "third"]),
        lists=st.lists(entries, min_size=1, max_size=2).map(tuple),
        priority=st.integers(-1, 1),
        created_at=st.sampled_from([1.0, 2.0]),
        error=st.sampled_from(["", "", "spec.cacheSpec: this field is required"]),
        status=st.builds(ImageCacheStatus, desired=st.integers(0, 2)),
    ),
    max_size=3,
    unique_by=lambda cache: cache.name,
)
limits = st.builds(
    Limits,
    images=some,
    nodes=some,
    bytes=some,
    priority=st.none() | st.just(0),
    registries=st.sampled_from([None, ("registry.test/a", "registry.test/b")]),
    node_selector=st.sampled_from([(), (("pool", "a"),)]),
)
snapshots = st.builds(
    lambda nodes, pods, found, wanted: cluster(
        [replace(node(name), labels=labels) for name, labels in nodes.items()],
        [Pod("shop", f"pod-{name}", f"uid-{name}", node_name=name, labels={"app": "web"}) for name in pods],
        policies=[] if wanted is None else [Policy("default", limits=wanted)],
        image_caches=found,
    ),
    st.dictionaries(st.sampled_from(["n0", "n1", "n2"]), st.sampled_from([{"pool": "a"}, {"pool": "b"}])),
    st.sets(st.sampled_from(["n0", "n1"])),
    caches,
    st.none() | limits,
)
histories = st.builds(
    lambda sizes: History(image_sizes={image: Measured(float(size), 0.0) for image, size in sizes.items()}),
    st.dictionaries(st.sampled_from(IMAGES), st.integers(0, 3)),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(snapshots, histories), min_size=2, max_size=5))
def test_memory_makes_no_difference(moments: list[tuple[ClusterSnapshot, History]]) -> None:
    memory = LimitsMemory()
    for snapshot, history in moments:
        fresh = LimitsMemory().apply(snapshot, history)
        assert memory.apply(snapshot, history).image_caches == fresh.image_caches
        # A heartbeat of every node, and a written status, change nothing.
        nodes = {name: replace(found, ready_since=found.ready_since + 1) for name, found in snapshot.nodes.items()}
        assert memory.apply(replace(snapshot, nodes=nodes), history).image_caches == fresh.image_caches
