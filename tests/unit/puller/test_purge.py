"""Removing images in motion: what goes, what stays and why, what is said of it, and that nothing is left behind."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from prewarm.api.names import LABEL_PURGER
from prewarm.model.image_caches import DeletionPolicy, ImageCache, ImageList
from prewarm.model.images import parse_reference
from prewarm.model.intents import Create
from prewarm.model.removals import RemovalResult
from prewarm.puller import PullerSettings, PurgeSettings
from prewarm.simulation.registry import synthetic_image
from tests.support.pulling import MB, World, registries

WEB = "registry.test/shop/web:v1"
TOOL = "registry.test/shop/tool:v1"
OWN = "registry.test/prewarm:v1"
SIZES = {WEB: 40 * MB, TOOL: 20 * MB, OWN: 5 * MB}
PURGE = PurgeSettings(enabled=True, image=OWN)


def cache(*images: str, name: str = "warm", purge: bool = True, **fields: object) -> ImageCache:
    policy = DeletionPolicy.PURGE if purge else DeletionPolicy.RETAIN
    values: dict[str, object] = {
        "uid": f"uid-{name}",
        "generation": 1,
        "refresh_seconds": 0.0,
        "lists": (ImageList(images),),
        "deletion_policy": policy,
        **fields,
    }
    return ImageCache("shop", name, **values)  # type: ignore[arg-type]


def world(*caches: ImageCache, nodes: int = 2, enabled: bool = True) -> World:
    """Nodes on which everything was pulled."""
    made = World(registries(SIZES), settings=PullerSettings(purge=replace(PURGE, enabled=enabled)))
    made.add_nodes(nodes)
    for entry in caches:
        made.add_cache(entry)
    made.settle(300)
    made.run(5)
    return made


def change(found: World, name: str = "warm", *, edited: bool = False, **fields: object) -> None:
    old = found.caches["shop", name]
    found.caches["shop", name] = replace(old, generation=old.generation + edited, **fields)


def delete(found: World, name: str = "warm") -> None:
    """Delete a cache; the garbage collector takes its pods."""
    gone = found.caches.pop(("shop", name))
    for key, pod in list(found.pods.items()):
        if pod.owner is not None and pod.owner.uid == gone.uid:
            found.delete_pod(key)


def stored(found: World, image: str) -> list[str]:
    """Nodes in whose store an image is."""
    reference = parse_reference(image)
    return [name for name in found.fleet.nodes if found.fleet.kubelet(name).store.find(reference) is not None]


def purged(found: World, name: str = "warm") -> tuple[bool, str]:
    return found.condition(name, "Purged")


def message(found: World, name: str = "warm") -> str:
    status = found.caches["shop", name].status
    return next(condition.message for condition in status.conditions if condition.type == "Purged")


def pods_left(found: World) -> list[str]:
    return [name for (_, name), pod in found.pods.items() if pod.labels.get(LABEL_PURGER)]


def run_pod(found: World, image: str, node: str = "n0") -> None:
    """A workload's pod with an image, running."""
    manifest: Mapping[str, object] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "busy", "uid": "busy"},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": image}]},
    }
    found.add_pod(manifest)
    found.run(10)


def test_deletion_removes_what_was_pulled_for_the_cache() -> None:
    found = world(cache(WEB, TOOL), cache(TOOL, name="zoo", purge=False))
    delete(found)
    found.run(60)
    assert stored(found, WEB) == []
    assert stored(found, TOOL) == ["n0", "n1"]
    assert pods_left(found) == []
    assert found.remembered == ()
    assert [event.reason for event in found.events if event.name == "warm"][-1] == "PurgeImagesStay"


def test_deletion_of_a_cache_that_retains_removes_nothing() -> None:
    found = world(cache(WEB, purge=False))
    delete(found)
    found.run(60)
    assert stored(found, WEB) == ["n0", "n1"]


def test_deletion_while_the_controller_is_down_is_acted_on() -> None:
    found = world(cache(WEB))
    delete(found)
    found.restart_controller()
    found.run(60)
    assert stored(found, WEB) == []
    assert found.remembered == ()


def test_what_was_there_before_stays() -> None:
    found = World(registries(SIZES), settings=PullerSettings(purge=PURGE))
    found.add_nodes(1)
    found.fleet.kubelet("n0").preload(WEB, synthetic_image(WEB, [SIZES[WEB]]))
    found.run(60)
    found.add_cache(cache(WEB, TOOL))
    found.settle(300)
    delete(found)
    found.run(60)
    assert (stored(found, WEB), stored(found, TOOL)) == (["n0"], [])


def test_an_image_taken_out_of_the_list_goes_and_the_others_stay() -> None:
    found = world(cache(WEB, TOOL))
    change(found, edited=True, lists=(ImageList((WEB,)),))
    found.run(60)
    assert (stored(found, WEB), stored(found, TOOL)) == (["n0", "n1"], [])
    assert purged(found) == (True, "Removed")
    assert "2 of 2" in message(found)
    assert found.condition("warm") == (True, "Warm")


def test_nodes_that_are_not_meant_any_more_lose_the_images() -> None:
    found = world(cache(WEB))
    change(found, edited=True, lists=(ImageList((WEB,), node_names=("n1",)),))
    found.run(60)
    assert stored(found, WEB) == ["n1"]


def test_an_image_in_use_stays_and_is_tried_again_at_the_next_edit() -> None:
    found = world(cache(WEB, TOOL))
    run_pod(found, TOOL)
    change(found, edited=True, lists=(ImageList((WEB,)),))
    found.run(60)
    assert stored(found, TOOL) == ["n0"]
    assert purged(found) == (False, "ImagesStay")
    assert "1 of 2" in message(found)
    assert "1 InUse" in message(found)
    created = len(found.created)
    found.run(600)
    assert len(found.created) == created
    found.delete_pod(("shop", "busy"))
    change(found, edited=True, priority=5)
    found.run(60)
    assert stored(found, TOOL) == []


def test_an_image_that_another_cache_wants_by_another_name_stays() -> None:
    alias = "registry.test/shop/web:stable"
    sizes = {**SIZES, alias: SIZES[WEB]}
    found = World(registries(sizes), settings=PullerSettings(purge=PURGE))
    same = synthetic_image("one and the same", [SIZES[WEB]])
    found.registries.push(alias, same)
    found.registries.push(WEB, same)
    found.add_nodes(1)
    found.add_cache(cache(WEB))
    found.add_cache(cache(alias, name="zoo", purge=False))
    found.settle(300)
    found.run(60)
    delete(found)
    found.run(60)
    assert stored(found, alias) == ["n0"]
    record = found.records["n0"]
    stays = {entry.image: entry.stays for entry in record.images}
    assert stays[WEB] is RemovalResult.WANTED


@pytest.mark.parametrize("value", ["", "2026-01-01"])
def test_a_purge_by_annotation_acts_once_and_the_cache_rests_until_it_is_refreshed(value: str) -> None:
    found = world(cache(WEB, purge=False))
    change(found, purge_request=value)
    found.run(120)
    assert stored(found, WEB) == []
    assert purged(found) == (True, "Removed")
    status = found.caches["shop", "warm"].status
    if value:
        assert status.purge_handled == value
    else:
        assert found.caches["shop", "warm"].purge_request is None
        assert status.purge_handled == ""
    assert (status.skipped, status.reasons) == (2, (("Purged", 2),))
    created = len(found.created)
    found.restart_controller()
    found.run(2000)
    assert len(found.created) == created
    change(found, refresh_request="now")
    found.run(120)
    assert stored(found, WEB) == ["n0", "n1"]
    assert found.condition("warm") == (True, "Warm")
    assert all(condition.type != "Purged" for condition in found.caches["shop", "warm"].status.conditions)


def test_an_edit_ends_the_rest_after_a_purge() -> None:
    found = world(cache(WEB, purge=False))
    change(found, purge_request="1")
    found.run(120)
    change(found, edited=True, priority=1)
    found.run(120)
    assert stored(found, WEB) == ["n0", "n1"]


def test_a_purge_asked_for_while_the_controller_is_down_is_acted_on() -> None:
    found = world(cache(WEB, purge=False))
    change(found, purge_request="1")
    found.restart_controller()
    found.run(120)
    assert stored(found, WEB) == []


def test_a_new_value_purges_again() -> None:
    found = world(cache(WEB, purge=False))
    change(found, purge_request="1")
    found.run(120)
    change(found, refresh_request="1")
    found.run(120)
    assert stored(found, WEB) == ["n0", "n1"]
    change(found, purge_request="2")
    found.run(120)
    assert stored(found, WEB) == []


@pytest.mark.parametrize("value", ["", "1"])
def test_where_it_is_switched_off_a_purge_says_so_at_once_and_nothing_changes(value: str) -> None:
    found = world(cache(WEB, purge=False), enabled=False)
    change(found, purge_request=value)
    found.run(5)
    assert purged(found) == (False, "SwitchedOff")
    assert [event.reason for event in found.events].count("PurgeSwitchedOff") == 1
    found.run(120)
    assert stored(found, WEB) == ["n0", "n1"]
    assert found.condition("warm") == (True, "Warm")
    assert purged(found) == (False, "SwitchedOff")
    assert found.caches["shop", "warm"].purge_request == (value or None)


def test_where_it_is_switched_off_a_policy_that_purges_says_so_at_once() -> None:
    """While the cache is there: once it is deleted, nobody can be told any more, and its images stay."""
    found = World(registries(SIZES), settings=PullerSettings(purge=replace(PURGE, enabled=False)))
    found.add_nodes(2)
    found.add_cache(cache(WEB))
    found.run(0.5)
    assert purged(found) == (False, "SwitchedOff")
    assert "removing images is switched off (setting purge)" in message(found)
    found.settle(60)
    found.run(60)
    told = [(event.warning, event.reason) for event in found.events]
    assert told.count((True, "PurgeSwitchedOff")) == 1
    assert found.condition("warm") == (True, "Warm")
    delete(found)
    found.run(60)
    assert stored(found, WEB) == ["n0", "n1"]
    assert pods_left(found) == []
    assert found.remembered == ()


def test_no_more_nodes_at_once_than_are_set() -> None:
    found = World(registries(SIZES), settings=PullerSettings(purge=replace(PURGE, nodes_at_once=2)))
    found.add_nodes(7)
    found.add_cache(cache(WEB))
    found.settle(300)
    found.run(5)
    delete(found)
    most = 0
    for _ in range(400):
        found.step(found.now + 0.5)
        most = max(most, len(pods_left(found)))
    assert most == 2
    assert stored(found, WEB) == []
    assert pods_left(found) == []


def test_a_node_that_starts_no_pod_is_waited_for_and_the_others_do_not_wait() -> None:
    found = world(cache(WEB))
    found.nodes["n1"] = replace(found.nodes["n1"], ready=False)
    change(found, edited=True, lists=(ImageList(()),))
    found.run(120)
    assert stored(found, WEB) == ["n1"]
    assert purged(found) == (False, "Removing")
    assert "1 on nodes that start no pod" in message(found)
    found.nodes["n1"] = replace(found.nodes["n1"], ready=True)
    found.run(60)
    assert stored(found, WEB) == []
    assert purged(found) == (True, "Removed")


def test_a_node_that_goes_takes_its_removals_along() -> None:
    found = world(cache(WEB))
    found.nodes["n1"] = replace(found.nodes["n1"], ready=False)
    delete(found)
    found.run(60)
    assert found.remembered
    del found.nodes["n1"]
    found.run(60)
    assert found.remembered == ()


def test_refused_pods_are_told_in_the_servers_words() -> None:
    found = world(cache(WEB))
    found.refusal = 'violates PodSecurity "baseline:latest": hostPath volumes'
    change(found, edited=True, lists=(ImageList(()),))
    found.run(20)
    assert purged(found) == (False, "Refused")
    assert "hostPath volumes" in message(found)
    found.refusal = ""
    found.run(90)
    assert purged(found) == (True, "Removed")


def test_pods_that_fail_are_tried_again_and_given_up() -> None:
    found = World(registries({WEB: SIZES[WEB]}), settings=PullerSettings(purge=PURGE))
    found.add_nodes(1)
    found.add_cache(cache(WEB))
    found.settle(300)
    found.run(5)
    change(found, edited=True, lists=(ImageList(()),))
    found.run(3600)
    assert purged(found) == (False, "ImagesStay")
    assert "1 Failed" in message(found)
    assert pods_left(found) == []


def test_a_restart_at_any_moment_loses_no_removal_and_leaves_no_pod() -> None:
    for steps in range(1, 40, 3):
        found = world(cache(WEB, TOOL), cache(TOOL, name="zoo", purge=False))
        delete(found)
        for _ in range(steps):
            found.step(found.now + 0.3)
        found.restart_controller()
        found.run(90)
        assert stored(found, WEB) == []
        assert stored(found, TOOL) == ["n0", "n1"]
        assert pods_left(found) == []
        assert found.remembered == ()


def test_switched_off_while_pods_remove_images_none_is_left_and_records_are_right() -> None:
    """Whatever the pods had done by then."""
    for steps in range(1, 40, 3):
        found = world(cache(WEB, TOOL), nodes=3)
        delete(found)
        for _ in range(steps):
            found.step(found.now + 0.3)
        found.settings = replace(found.settings, purge=replace(PURGE, enabled=False))
        found.restart_controller()
        begun = len(found.created)
        found.run(90)
        assert pods_left(found) == []
        assert not any(name.startswith("prewarm-purge-") for name in found.created[begun:])
        for image in (WEB, TOOL):
            known = [name for name, record in found.records.items() for entry in record.images if entry.image == image]
            assert sorted(known) == stored(found, image)


def test_of_too_many_the_newest_living_caches_are_the_ones_not_to_be_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of those that are gone, nothing else knows; the order says who is stored."""
    monkeypatch.setattr("prewarm.puller.purge.MAX_REMEMBERED", 2)
    found = world(cache(WEB, name="a-new", created_at=900.0), cache(WEB, name="b-old", created_at=800.0))
    found.add_cache(cache(TOOL, name="c-gone", created_at=950.0))
    found.run(30)
    assert [known.name for known in found.remembered] == ["b-old", "a-new", "c-gone"]
    for name in found.nodes:
        found.nodes[name] = replace(found.nodes[name], ready=False)
    delete(found, "c-gone")
    found.run(1)
    assert [known.name for known in found.remembered] == ["c-gone", "b-old", "a-new"]


def test_a_purge_pod_holds_the_socket_and_nothing_else() -> None:
    found = world(cache(WEB))
    delete(found)
    found.run(5)
    (made, *_) = [i.manifest for i in found.written if isinstance(i, Create) and i.namespace == "prewarm-system"]
    spec = made["spec"]
    assert isinstance(spec, dict)
    (volume,) = spec["volumes"]
    assert volume["hostPath"] == {"path": "/run/containerd/containerd.sock", "type": "Socket"}
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["command"] == ["prewarm", "remove-images"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert WEB in container["env"][0]["value"]
