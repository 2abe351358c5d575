"""How many small images share a pod, and on which nodes pods begin that hold few."""

from hypothesis import given
from hypothesis import strategies as st

from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.sharing import SPREAD_PAIRS, most_together
from tests.support.clusters import cluster, node
from tests.unit.puller.test_decisions import cache, decide, ordered

IMAGES = [f"registry.test/small:v{number}" for number in range(5)]
SMALL = History(pulls=dict.fromkeys(IMAGES, Measured(0.5, 1.0)))


def nodes_with(
    images: dict[int, int], count: int, *, parallelism: int | None = None, workload: str = ""
) -> ClusterSnapshot:
    """A cache of five small images; `images`: on how many nodes, by number, the first so many are there already."""
    nodes = [node(f"n{number:03}") for number in range(count)]
    records = [
        NodeImages(
            nodes[number].name,
            nodes[number].uid,
            nodes[number].boot_id,
            tuple(PresentImage(image, Evidence.OUR_PULL, 900.0) for image in IMAGES[:there]),
        )
        for number, there in images.items()
    ]
    return cluster(
        nodes, image_caches=[cache(*IMAGES, parallelism=parallelism, workload=workload)], node_images=records
    )


def sizes(found: ClusterSnapshot, **budgets: int) -> list[int]:
    return [len(images) for _, *images in ordered(decide(found, SMALL, **budgets))]


def test_first_pods_of_a_large_cache_tell_soon() -> None:
    assert sizes(nodes_with({}, 25)) == [1, 2, 3, 4, *[5] * 21]
    assert set(sizes(nodes_with({}, 19))) == {5}
    assert sizes(nodes_with({0: 5}, 30))[:3] == [3, 4, 5]


def test_pods_that_fill_the_places_first_end_one_after_the_other() -> None:
    found = nodes_with({}, 100)
    assert sizes(found, cluster_pulls=12) == [1, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4]
    assert sizes(found, registry_pulls=6) == [1, 2, 3, 4, 5, 2]
    assert sizes(nodes_with({}, 100, parallelism=6)) == [1, 2, 3, 4, 5, 2]


def test_pods_of_a_plan_are_not_made_to() -> None:
    found = nodes_with({}, 100, workload="deployment/shop/web")
    assert sizes(found, cluster_pulls=12) == [1, 2, 3, 4, *[5] * 8]


def test_pods_that_follow_hold_as_many_as_may_be() -> None:
    assert set(sizes(nodes_with(dict.fromkeys(range(12), 5), 100), cluster_pulls=12)) == {5}


def test_nodes_with_less_left_than_a_pod_holds_come_last() -> None:
    found = nodes_with({0: 4, 1: 2, 2: 3}, 6)
    assert [name for name, *_ in ordered(decide(found, SMALL))] == ["n003", "n004", "n005", "n001", "n002", "n000"]


def test_nodes_keep_the_order_that_a_plan_gives() -> None:
    found = nodes_with({0: 4, 1: 2}, 4, workload="deployment/shop/web")
    assert [name for name, *_ in ordered(decide(found, SMALL))] == ["n000", "n001", "n002", "n003"]


def test_nodes_keep_their_order_where_every_image_has_its_own_pod() -> None:
    found = nodes_with({0: 4, 1: 2}, 4)
    assert [name for name, *_ in ordered(decide(found))] == ["n000", "n001", "n002", "n003"]
    assert [name for name, *_ in ordered(decide(found, SMALL, images_per_pod=1))] == ["n000", "n001", "n002", "n003"]


@given(pairs=st.integers(1, 3000), places=st.integers(1, 300), most=st.integers(1, 6))
def test_every_pair_gets_its_pod_and_few_pods_are_small(pairs: int, places: int, most: int) -> None:
    begun, pods = 0, []
    while begun < pairs:
        size = most_together(begun, pairs - begun, places, most)
        assert 1 <= size <= most
        pods.append(size)
        begun += size
    assert sum(size < most for size in pods) <= (0 if pairs < SPREAD_PAIRS else most + places)
