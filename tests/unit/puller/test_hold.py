"""Held images: which finished pods stay, how long, and what becomes of them; emulated kubelets collect garbage."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList, PullerForm
from prewarm.model.pods import Pod, PodPhase
from prewarm.model.quotas import ResourceQuota
from prewarm.puller import PullerSettings
from prewarm.simulation.registry import synthetic_image
from prewarm.simulation.specs import NodeProfile
from tests.support.clusters import node
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
OTHER = "registry.test/shop/proxy:v1"
HOUR = 3600.0


def cache(*images: str, name: str = "warm", hold: float | None = HOUR, **fields: object) -> ImageCache:
    lists = (ImageList(images),)
    return ImageCache("shop", name, f"uid-{name}", 1, lists, hold_seconds=hold, **fields)  # type: ignore[arg-type]


def world(nodes: int = 1, *caches: ImageCache, settings: PullerSettings | None = None, disk: float = 100e9) -> World:
    made = World(registries({APP: 200 * MB, OTHER: 20 * MB}), settings=settings or PullerSettings())
    for index in range(nodes):
        name = f"n{index}"
        made.nodes[name] = replace(
            node(name), kubelet_version="v1.36.3", runtime_version="containerd://2.4.2", ready_since=made.now - 60
        )
        made.fleet.add_node(NodeProfile(name, bandwidth=50e6, image_disk=disk))
    for found in caches:
        made.add_cache(found)
    return made


def held(found: World) -> list[Pod]:
    return sorted(found.snapshot().puller_pods.values(), key=lambda pod: pod.key)


def held_until(found: World, name: str = "n0") -> dict[str, float | None]:
    return {entry.image: entry.held_until for entry in found.records[name].images}


@pytest.mark.parametrize("form", PullerForm)
def test_finished_pod_stays_until_the_hold_ends(form: PullerForm) -> None:
    found = world(2, cache(APP, puller_form=form))
    found.run(60)
    assert [pod.phase for pod in held(found)] == [PodPhase.SUCCEEDED] * 2
    until = held_until(found)[APP]
    assert until is not None
    assert until == next(entry.since for entry in found.records["n0"].images) + HOUR
    found.run(until - found.now - 5)
    assert len(held(found)) == 2
    found.run(30)
    assert not held(found)
    assert held_until(found) == {APP: None}
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}


def test_without_a_hold_no_pod_stays() -> None:
    found = world(1, cache(APP, hold=None))
    found.run(60)
    assert not held(found)
    assert held_until(found) == {APP: None}


def test_restart_keeps_holds_and_pulls_nothing_again() -> None:
    found = world(1, cache(APP))
    found.run(60)
    (before,) = held(found)
    found.restart_controller()
    found.run(60)
    assert [pod.uid for pod in held(found)] == [before.uid]
    assert len(found.created) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: replace(cache, hold_seconds=None, generation=2),
        lambda cache: replace(cache, lists=(ImageList(()),), generation=2),
        lambda cache: replace(cache, lists=(ImageList((APP,), node_names=("n9",)),), generation=2),
        lambda cache: replace(cache, hold_seconds=10.0, generation=2),
    ],
)
def test_hold_ends_when_the_cache_wants_it_no_more(change: object) -> None:
    found = world(1, cache(APP))
    found.run(60)
    found.caches["shop", "warm"] = change(found.caches["shop", "warm"])  # type: ignore[operator]
    found.run(10)
    assert not held(found)
    assert held_until(found).get(APP) is None


def test_hold_ends_with_the_cache() -> None:
    found = world(1, cache(APP))
    found.run(60)
    del found.caches["shop", "warm"]
    found.run(10)
    assert not held(found)


def test_cap_keeps_the_higher_priority_and_then_the_older() -> None:
    first, second = cache(APP, name="first"), cache(OTHER, name="second")
    found = world(3, first, settings=PullerSettings(hold_limit=3))
    found.run(60)
    assert {pod.owner.name for pod in held(found) if pod.owner} == {"first"}
    found.add_cache(second)
    found.run(60)
    assert [pod.owner.name for pod in held(found) if pod.owner] == ["first"] * 3
    found.add_cache(cache(synthetic(found), name="urgent", priority=100))
    found.run(60)
    assert [pod.owner.name for pod in held(found) if pod.owner] == ["urgent"] * 3
    assert found.condition("first") == (True, "Warm")


def synthetic(found: World) -> str:
    image = "registry.test/shop/urgent:v1"
    found.registries.push(image, synthetic_image(image, [MB]))
    return image


def test_held_pods_take_no_place_among_the_pulls() -> None:
    found = world(1, cache(APP), settings=PullerSettings(cluster_pulls=1, node_pulls=1))
    found.run(60)
    found.add_cache(cache(OTHER, name="next", hold=None))
    found.run(60)
    assert found.condition("next") == (True, "Warm")
    assert len(held(found)) == 1


def test_image_stays_over_the_kubelets_collection_while_it_is_held() -> None:
    # 200 MB take 400 of 1,000 MB on disk; the rest is filled to 90 %, beyond the threshold of 85 %.
    kept, bare = world(1, cache(APP), disk=1e9), world(1, cache(APP, hold=None, refresh_seconds=0.0), disk=1e9)
    for found in (kept, bare):
        found.run(120)
        found.fleet.kubelet("n0").collector.other_bytes = 450e6
        found.run(1200)
    assert kept.pulls_of(APP) == {"n0": 1}
    assert APP in {name for image in kept.nodes["n0"].images for name in image.names}
    assert (
        APP not in {name for image in bare.nodes["n0"].images for name in image.names} or bare.pulls_of(APP)["n0"] > 1
    )


def test_image_that_disk_pressure_took_is_pulled_again_though_its_pod_says_it_is_there() -> None:
    found = world(1, cache(APP), disk=1e9)
    # A node without any image would say nothing of what it has lost.
    container = {"name": "c", "image": OTHER}
    spec = {"nodeName": "n0", "priority": 1, "containers": [container]}
    found.add_pod({"metadata": {"namespace": "shop", "name": "busy"}, "spec": spec})
    found.run(120)
    (before,) = held(found)
    kubelet = found.fleet.kubelet("n0")
    kubelet.collector.fill(460e6)
    found.run(60)
    kubelet.collector.fill(0)
    found.run(600)
    assert found.pulls_of(APP) == {"n0": 2}
    assert [pod.uid for pod in held(found)] != [before.uid]
    assert found.condition("warm") == (True, "Warm")


def test_quota_on_pod_objects_is_not_used_up_by_holds() -> None:
    found = world(1, cache(APP))
    found.quotas = {"shop": (ResourceQuota("shop", "objects", {"count/pods": 10}),)}
    found.run(60)
    assert not held(found)
    assert found.condition("warm") == (True, "Warm")


def test_node_created_again_under_the_name_inherits_nothing() -> None:
    found = world(1, cache(APP))
    found.run(60)
    old = found.nodes["n0"]
    found.nodes["n0"] = replace(
        old, uid="uid-again", boot_id="boot-again", created_at=found.now, ready_since=found.now, images=()
    )
    found.fleet.remove_node("n0")
    found.fleet.add_node(NodeProfile("n0", bandwidth=50e6))
    found.run(60)
    assert found.pulls_of(APP) == {"n0": 2}


def used_before(disk: float = 1e9) -> World:
    """A node on which a workload's pod has used the image."""
    found = world(1, disk=disk)
    spec = {"nodeName": "n0", "priority": 1, "containers": [{"name": "c", "image": APP}]}
    pod = found.add_pod({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})
    found.run(60)
    assert found.pods[pod.key].phase is PodPhase.RUNNING
    return found


@pytest.mark.parametrize("present", [True, False])
def test_what_was_there_already_is_held_where_the_cache_asks_for_that(present: bool) -> None:
    found = used_before()
    found.add_cache(cache(APP, hold_present=present, refresh_seconds=0.0))
    found.run(60)
    assert len(held(found)) == present
    assert found.condition("warm") == (True, "Warm")
    found.delete_pod(("shop", "web"))
    found.run(400)
    found.fleet.kubelet("n0").collector.other_bytes = 450e6
    found.run(1200)
    there = APP in {name for image in found.nodes["n0"].images for name in image.names}
    assert there is present or found.pulls_of(APP)["n0"] > 1
    if present:
        assert found.pulls_of(APP) == {"n0": 1}, "it was used, not pulled again"


def test_what_was_there_already_is_held_once_and_no_longer_than_the_hold() -> None:
    found = used_before(disk=100e9)
    found.add_cache(cache(APP, hold_present=True, hold=300.0))
    found.run(60)
    assert len(held(found)) == 1
    found.restart_controller()
    found.run(600)
    assert not held(found)
    assert len(found.created) == 1


def test_nothing_of_what_a_pod_ran_before_has_still_to_pay_off() -> None:
    found = used_before(disk=100e9)
    found.add_cache(cache(APP, hold_present=True))
    found.run(60)
    (entry,) = (entry for entry in found.records["n0"].images if entry.image == APP)
    assert entry.used_at is not None
