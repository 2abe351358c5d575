"""Of which nodes is something else asked, now that an ImageCache changed?"""

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.presence import Wanted

BASE = ImageCache("shop", "base", lists=(ImageList(images=("base:v1",), node_names=("a", "b")),))


def wanted(*caches: ImageCache) -> Wanted:
    return Wanted({cache.key: cache for cache in caches})


def named(*nodes: str, image: str = "web:v2") -> ImageCache:
    return ImageCache("shop", "web", lists=(ImageList(images=(image,), node_names=nodes),))


def test_a_cache_that_names_its_nodes_concerns_those_alone() -> None:
    assert wanted(BASE, named("b", "c")).differs_on(wanted(BASE)) == frozenset({"b", "c"})
    assert wanted(BASE).differs_on(wanted(BASE, named("b", "c"))) == frozenset({"b", "c"})
    assert wanted(BASE, named("b", "c")).differs_on(wanted(BASE, named("b"))) == frozenset({"c"})
    assert wanted(BASE, named("b")).differs_on(wanted(BASE, named("b"))) == frozenset()
    assert wanted(named("b", image="base:v1"), BASE).differs_on(wanted(BASE)) == frozenset()


def test_one_for_every_node_or_for_chosen_ones_may_concern_any() -> None:
    everywhere = ImageCache("shop", "all", lists=(ImageList(images=("web:v2",)),))
    chosen = ImageCache("shop", "some", lists=(ImageList(images=("web:v2",), node_selector=(("pool", "a"),)),))
    for other in (everywhere, chosen):
        assert wanted(BASE, other).differs_on(wanted(BASE)) is None
        assert wanted(BASE).differs_on(wanted(BASE, other)) is None
        assert wanted(named("b"), other).differs_on(wanted(other)) == frozenset({"b"})
