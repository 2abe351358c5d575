"""Limits of a namespace: which policy's, how they are shared out, and how caches tell that they were reached."""

from typing import Any

from msgspec.structs import replace

from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, ImageCacheStatus, ImageList, Limits, Policy
from prewarm.model.selectors import LabelSelector
from prewarm.model.workloads import Namespace
from prewarm.puller.limits import LimitsMemory
from tests.support.clusters import cluster, node
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
SIDECAR = "registry.test/shop/proxy:v1"
OTHER = "elsewhere.test/web:v1"
TENANT = LabelSelector((("tenant", "a"),))


def cache(*images: str, name: str = "warm", namespace: str = "shop", **fields: Any) -> ImageCache:
    return ImageCache(
        namespace, name, uid=f"uid-{namespace}-{name}", generation=1, lists=(ImageList(images),), **fields
    )


def world(limits: Limits, nodes: int = 4) -> World:
    made = World(registries({APP: 20 * MB, SIDECAR: 20 * MB, OTHER: 20 * MB}))
    made.add_nodes(nodes)
    made.policies["default"] = Policy("default", limits=limits)
    return made


def counts(found: World, name: str = "warm", namespace: str = "shop") -> tuple[int, int, dict[str, int]]:
    """Succeeded, skipped, and reasons."""
    status = found.caches[namespace, name].status
    return status.succeeded, status.skipped, dict(status.reasons)


def test_images_beyond_the_limit_are_skipped_across_caches_the_older_cache_first() -> None:
    found = world(Limits(images=1))
    found.add_cache(cache(SIDECAR, name="younger", created_at=found.now - 5))
    found.add_cache(cache(APP, name="older", created_at=found.now - 50))
    found.settle(120)
    assert counts(found, "older") == (4, 0, {})
    assert counts(found, "younger") == (0, 4, {"LimitImages": 4})
    assert found.condition("younger") == (False, "AllSkipped")
    assert not found.pulls_of(SIDECAR)


def test_one_image_in_several_spellings_and_caches_counts_once() -> None:
    found = world(Limits(images=1))
    found.add_cache(cache("registry.test/shop/web:v1", name="a"))
    found.add_cache(cache("registry.test/shop/web:v1", name="b"))
    found.settle(120)
    assert counts(found, "a")[:2] == counts(found, "b")[:2] == (4, 0)


def test_priority_decides_whose_images_have_room_and_is_capped() -> None:
    found = world(Limits(images=1, priority=0))
    found.add_cache(cache(APP, name="older", created_at=found.now - 50))
    found.add_cache(cache(SIDECAR, name="loud", created_at=found.now - 5, priority=1000))
    found.settle(120)
    assert counts(found, "older")[0] == 4
    assert counts(found, "loud") == (0, 4, {"LimitImages": 4})


def test_nodes_beyond_the_limit_are_skipped() -> None:
    found = world(Limits(nodes=3))
    found.add_cache(cache(APP))
    found.settle(120)
    assert counts(found) == (3, 1, {"LimitNodes": 1})
    assert set(found.pulls_of(APP)) == {"n0", "n1", "n2"}


def test_bytes_count_pairs_by_the_sizes_that_are_known() -> None:
    found = world(Limits(bytes=50 * MB))
    found.history = History(image_sizes={APP: Measured(20.0 * MB, 0.0)})
    found.add_cache(cache(APP))
    found.settle(120)
    assert counts(found) == (2, 2, {"LimitBytes": 2})


def test_only_allowed_registries_are_pulled_from() -> None:
    found = world(Limits(registries=("registry.test/shop", "elsewhere.test/we")))
    found.add_cache(cache(APP, OTHER))
    found.settle(120)
    assert counts(found) == (4, 4, {"RegistryNotAllowed": 4})
    assert not found.pulls_of(OTHER)


def test_an_empty_list_of_registries_allows_none() -> None:
    found = world(Limits(registries=()))
    found.add_cache(cache(APP))
    found.settle(120)
    assert counts(found) == (0, 4, {"RegistryNotAllowed": 4})


def test_nodes_without_the_labels_are_not_allowed_even_if_named() -> None:
    found = world(Limits(node_selector=(("kubernetes.io/hostname", "n1"),), nodes=1))
    named = ImageList((APP,), ("n0", "n1"))
    found.add_cache(ImageCache("shop", "warm", uid="uid-warm", generation=1, lists=(named,)))
    found.settle(120)
    assert counts(found) == (1, 1, {"NodesNotAllowed": 1})
    assert set(found.pulls_of(APP)) == {"n1"}


def test_other_namespaces_are_untouched() -> None:
    found = world(Limits(images=0))
    found.policies = {"a": Policy("a", namespace_selector=TENANT, limits=Limits(images=0))}
    found.namespaces = {"shop": Namespace("shop", {"tenant": "a"}), "free": Namespace("free")}
    found.add_cache(cache(APP))
    found.add_cache(cache(APP, namespace="free"))
    found.settle(120)
    assert counts(found) == (0, 4, {"LimitImages": 4})
    assert counts(found, namespace="free") == (4, 0, {})


def test_a_changed_limit_takes_effect_at_once() -> None:
    found = world(Limits(nodes=1))
    found.add_cache(cache(APP))
    found.settle(120)
    assert counts(found)[:2] == (1, 3)
    found.policies["default"] = Policy("default", limits=Limits(nodes=4))
    found.settle(120)
    assert counts(found) == (4, 0, {})
    found.policies["default"] = Policy("default")
    found.run(60)
    assert counts(found) == (4, 0, {})


def test_planned_caches_are_limited_like_written_ones() -> None:
    found = world(Limits(images=0))
    found.add_cache(cache(APP, planned=True))
    found.settle(120)
    assert counts(found) == (0, 4, {"LimitImages": 4})


def test_equal_snapshots_leave_the_same_objects() -> None:
    memory = LimitsMemory()
    snapshot = cluster(
        [node("n0")], policies=[Policy("default", limits=Limits(images=1, nodes=1))], image_caches=[cache(APP)]
    )
    first = memory.apply(snapshot, History()).image_caches["shop", "warm"]
    assert first.allowance is not None
    assert memory.apply(snapshot, History()).image_caches["shop", "warm"] is first


def test_nothing_is_shared_out_anew_for_a_heartbeat_or_a_written_status() -> None:
    memory = LimitsMemory()
    policies = [Policy("default", limits=Limits(nodes=1, bytes=10))]
    first = memory.apply(cluster([node("n0")], policies=policies, image_caches=[cache(APP)]), History())
    shared = first.image_caches["shop", "warm"].allowance
    assert shared is not None
    written = cache(APP, status=ImageCacheStatus(desired=1), resource_version="2")
    beaten = cluster([node("n0", ready_since=7.0)], policies=policies, image_caches=[written])
    second = memory.apply(beaten, History()).image_caches["shop", "warm"]
    assert second.status.desired == 1
    assert second.allowance is shared
    relabelled = replace(beaten, nodes={"n0": replace(node("n0"), labels={"pool": "b"}), "n1": node("n1")})
    memory.apply(relabelled, History())
    limited = replace(relabelled, policies={"default": Policy("default", limits=Limits(nodes=0))})
    third = memory.apply(limited, History()).image_caches["shop", "warm"].allowance
    assert third is not None
    assert third.nodes == frozenset()


def test_without_limits_a_snapshot_stays_the_same_object() -> None:
    snapshot = cluster([node("n0")], policies=[Policy("default")], image_caches=[cache(APP)])
    assert LimitsMemory().apply(snapshot, History()) is snapshot


def test_holds_beyond_the_limit_are_let_go() -> None:
    found = world(Limits(holds=1))
    found.add_cache(cache(APP, hold_seconds=3600.0))
    found.settle(120)
    assert counts(found) == (4, 0, {})
    found.run(60)
    assert len(found.snapshot().puller_pods) == 1
    found.policies["default"] = Policy("default", limits=Limits(holds=0))
    found.run(60)
    assert not found.snapshot().puller_pods
