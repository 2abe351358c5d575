"""Caches driven to their verdict by emulated kubelets, the puller's intents carried out as the API server would."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.nodes import Evidence
from prewarm.puller import PullerSettings
from prewarm.simulation.registry import Behaviour, Registry, synthetic_image
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
SIDECAR = "registry.test/shop/proxy:v1"
WRONG = "registry.test/shop/web:v9"
SILENT = "silent.test/app:v1"
SIZES = {APP: 200 * MB, SIDECAR: 20 * MB}


def cache(*images: str, name: str = "warm", **fields: object) -> ImageCache:
    lists = (ImageList(images),)
    return ImageCache("shop", name, uid=f"uid-{name}", generation=1, lists=lists, **fields)  # type: ignore[arg-type]


def world(nodes: int, settings: PullerSettings | None = None) -> World:
    made = World(registries(SIZES), settings=settings or PullerSettings())
    made.add_nodes(nodes)
    return made


def test_every_node_pulls_once_and_nothing_is_left_behind() -> None:
    found = world(20)
    found.add_cache(cache(APP, SIDECAR))
    found.settle(120)
    assert found.condition("warm") == (True, "Warm")
    status = found.caches["shop", "warm"].status
    assert (status.desired, status.succeeded, status.failed) == (40, 40, 0)
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)
    assert found.pulls_of(SIDECAR) == dict.fromkeys(found.nodes, 1)
    assert not found.snapshot().puller_pods
    assert [event.reason for event in found.events] == ["Warm"]


def test_settled_cluster_is_left_alone() -> None:
    found = world(5)
    found.add_cache(cache(APP, SIDECAR))
    found.settle(120)
    found.run(120)
    quiet = len(found.written)
    found.run(1800)
    assert len(found.written) == quiet


def test_records_tell_digest_size_time_and_first_use() -> None:
    found = world(1)
    found.add_cache(cache(APP))
    found.settle(120)
    found.run(90)
    entry = next(entry for entry in found.records["n0"].images if entry.image == APP)
    assert entry.evidence is Evidence.OUR_PULL
    assert entry.digest.startswith("sha256:")
    assert entry.size_bytes > 200 * MB
    assert entry.cache == "shop/warm"
    assert entry.pull_seconds is not None
    assert 3 <= entry.pull_seconds <= 8
    assert entry.used_at is None
    found.add_pod(ordinary_pod("n0", APP))
    found.run(60)
    entry = next(entry for entry in found.records["n0"].images if entry.image == APP)
    assert entry.used_at is not None


def test_wrong_image_is_reported_in_the_kubelets_words_and_harms_no_other() -> None:
    found = world(3)
    found.add_cache(cache(APP, WRONG))
    found.run(60)
    status = found.caches["shop", "warm"].status
    assert status.succeeded == 3
    assert status.failed + status.active == 3
    assert {failure.reason for failure in status.failures} == {"NotFound"}
    assert all("not found" in failure.message and WRONG in failure.message for failure in status.failures)
    assert found.condition("warm", "Degraded")[0]
    assert [event.reason for event in found.events] == ["PullsFailed"]
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)


def test_wrong_image_is_tried_as_often_as_set_and_then_hourly() -> None:
    found = world(1)
    found.add_cache(cache(WRONG, attempt_limit=3, refresh_seconds=0.0))
    found.run(1800)
    assert len(found.created) == 3
    assert not found.snapshot().puller_pods
    conditions = {condition.type: condition for condition in found.caches["shop", "warm"].status.conditions}
    assert conditions["Degraded"].message == "1 pair failed: 1 NotFound"
    found.run(4500)
    assert len(found.created) == 4
    assert len(found.events) == 1


def test_image_pushed_later_is_pulled_at_the_next_attempt() -> None:
    found = world(2)
    found.add_cache(cache(WRONG))
    found.run(30)
    found.registries.push(WRONG, synthetic_image("pushed later", [20 * MB]))
    found.run(300)
    assert found.condition("warm") == (True, "Warm")
    assert not found.records["n0"].failures


def test_restart_counts_attempts_on() -> None:
    found = world(1)
    found.add_cache(cache(WRONG, attempt_limit=3, refresh_seconds=0.0))
    for _ in range(30):
        found.run(60)
        found.restart_controller()
    assert len(found.created) == 3


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.0, 2.5, 4.0, 5.5, 7.0])
def test_restart_in_the_middle_repeats_no_pull_and_loses_none(seconds: float) -> None:
    found = world(12, PullerSettings(cluster_pulls=4))
    found.add_cache(cache(APP, SIDECAR))
    for _ in range(4):
        found.run(seconds)
        found.restart_controller()
    found.settle(300)
    assert found.condition("warm") == (True, "Warm")
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)
    assert found.pulls_of(SIDECAR) == dict.fromkeys(found.nodes, 1)
    assert len(found.created) == len(set(found.created))


def test_budget_holds_and_is_used() -> None:
    found = world(12, PullerSettings(cluster_pulls=4))
    found.add_cache(cache(APP))
    found.settle(300)
    assert found.most_at_once == 4
    assert found.condition("warm") == (True, "Warm")


def test_silent_registry_holds_up_few_nodes_and_no_other_registry() -> None:
    found = world(10)
    found.registries.declare(Registry("silent.test", behaviour=Behaviour.SILENT))
    found.add_cache(cache(SILENT, name="silent"))
    found.add_cache(cache(APP, name="good", priority=1))
    found.run(240)
    assert found.condition("good") == (True, "Warm")
    status = found.caches["shop", "silent"].status
    assert {failure.reason for failure in status.failures} == {"RegistrySilent"}
    # All ten try once, as nothing is known; then one node at a time.
    assert len([pull for pull in found.pulls if pull.image == SILENT]) <= 10 + 240 / 30


def test_same_image_for_two_caches_is_pulled_once() -> None:
    found = world(4)
    found.add_cache(cache(APP, name="one"))
    found.add_cache(cache(APP, name="two"))
    found.settle(120)
    assert found.condition("one") == found.condition("two") == (True, "Warm")
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)


def test_refused_pods_are_reported_and_tried_again() -> None:
    found = world(6)
    found.refusal = 'pods "x" is forbidden: exceeded quota: small'
    found.add_cache(cache(APP))
    found.run(5)
    status = found.caches["shop", "warm"].status
    assert dict(status.reasons)["Refused"] >= 1
    assert "exceeded quota" in status.failures[0].message
    found.run(60)
    found.refusal = ""
    found.run(400)
    assert found.condition("warm") == (True, "Warm")
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)


def test_request_to_refresh_has_the_server_asked_anew_at_once() -> None:
    """Whoever has mended what refused the pods does not wait for the next attempt."""
    found = world(3)
    found.refusal = 'pods "x" is forbidden: a policy of the mesh'
    found.add_cache(cache(APP, attempt_limit=1))
    found.run(5)
    assert dict(found.caches["shop", "warm"].status.reasons)["Refused"] >= 1
    found.refusal = ""
    warm = found.caches["shop", "warm"]
    found.caches[warm.key] = replace(warm, refresh_request="now")
    found.run(60)
    assert found.condition("warm") == (True, "Warm")
    assert found.pulls_of(APP) == dict.fromkeys(found.nodes, 1)


def test_real_pod_that_waits_for_its_image_goes_first() -> None:
    found = world(1)
    found.add_pod(ordinary_pod("n0", APP))
    found.run(0.5)
    found.add_cache(cache(SIDECAR))
    found.run(2)
    assert not found.created
    found.settle(120)
    assert found.condition("warm") == (True, "Warm")


def test_node_that_goes_silent_is_skipped_and_taken_up_again() -> None:
    found = world(2)
    found.nodes["n1"] = replace(found.nodes["n1"], ready=False)
    found.add_cache(cache(APP))
    found.settle(120)
    status = found.caches["shop", "warm"].status
    assert (status.succeeded, status.skipped, dict(status.reasons)) == (1, 1, {"NotReady": 1})
    found.nodes["n1"] = replace(found.nodes["n1"], ready=True)
    found.settle(120)
    assert found.caches["shop", "warm"].status.succeeded == 2


def test_evicted_image_is_pulled_again_without_being_told() -> None:
    found = world(1)
    found.add_cache(cache(APP, SIDECAR))
    found.settle(120)
    found.run(90)
    kubelet = found.fleet.kubelet("n0")
    kubelet.store.remove(next(image for image in kubelet.store.images() if image.remote.size > 100 * MB))
    kubelet._images_changed()
    found.run(90)
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 2}
    assert found.pulls_of(SIDECAR) == {"n0": 1}


def test_withdrawn_cache_leaves_no_pod() -> None:
    found = world(4)
    found.add_cache(cache(APP))
    found.run(2)
    del found.caches["shop", "warm"]
    found.run(30)
    assert not found.snapshot().puller_pods
    # What was under way could not be stopped, and is known.
    assert all(any(entry.image == APP for entry in record.images) for record in found.records.values())


def ordinary_pod(node_name: str, image: str) -> dict[str, object]:
    return {
        "metadata": {"namespace": "shop", "name": f"web-{node_name}"},
        "spec": {
            "nodeName": node_name,
            "containers": [{"name": "web", "image": image, "imagePullPolicy": "IfNotPresent"}],
        },
    }
