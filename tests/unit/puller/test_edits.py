"""Caches created, changed and deleted, also in the middle of a pull or while nobody looks."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import parse_reference
from prewarm.model.pods import Taint, Toleration
from prewarm.puller import PullerSettings
from tests.support.clusters import node
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
NEXT = "registry.test/shop/web:v2"
SIDECAR = "registry.test/shop/proxy:v1"
SIZES = {APP: 200 * MB, NEXT: 200 * MB, SIDECAR: 20 * MB}


def cache(*entries: ImageList, name: str = "warm", namespace: str = "shop", **fields: object) -> ImageCache:
    values: dict[str, object] = {"generation": 1, "lists": entries, **fields}
    return ImageCache(namespace, name, uid=f"uid-{namespace}-{name}", **values)  # type: ignore[arg-type]


def world(nodes: int, settings: PullerSettings | None = None) -> World:
    made = World(registries(SIZES), settings=settings or PullerSettings())
    made.add_nodes(nodes)
    return made


def edit(found: World, **fields: object) -> None:
    """Change the spec of the cache `warm` as the API server would."""
    before = found.caches["shop", "warm"]
    values: dict[str, object] = {**fields, "generation": before.generation + 1}
    found.caches["shop", "warm"] = replace(before, **values)


def counts(found: World, namespace: str = "shop", name: str = "warm") -> tuple[int, int, int, int]:
    """Desired, active, succeeded, failed."""
    status = found.caches[namespace, name].status
    return (status.desired, status.active, status.succeeded, status.failed)


def silent(found: World) -> None:
    """A node that is Ready and whose kubelet never looks at a pod."""
    found.nodes["n9"] = node("n9")


def test_added_image_is_pulled_and_unchanged_ones_are_left_alone() -> None:
    found = world(3)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    written = len(found.created)
    edit(found, lists=(ImageList((APP, SIDECAR)),))
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1, "n2": 1}
    assert found.pulls_of(SIDECAR) == {"n0": 1, "n1": 1, "n2": 1}
    assert len(found.created) == written + 3
    assert counts(found) == (6, 0, 6, 0)


def test_removed_image_stops_counting_at_once() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((APP, SIDECAR))))
    found.settle(120)
    edit(found, lists=(ImageList((SIDECAR,)),))
    found.run(1)
    assert counts(found) == (2, 0, 2, 0)
    assert found.condition("warm") == (True, "Warm")


def test_kube_fledged_trap_placement_may_change_and_lists_come_and_go() -> None:
    """There: "Mismatch in node selector" and "Mismatch in no. of image lists"."""
    found = world(3)
    found.nodes["n2"] = replace(found.nodes["n2"], labels={"pool": "a"})
    found.add_cache(cache(ImageList((APP,), ("n0",))))
    found.settle(120)
    edit(found, lists=(ImageList((SIDECAR,), None, (("pool", "a"),)), ImageList((APP,), ("n1",))))
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}
    assert found.pulls_of(SIDECAR) == {"n2": 1}
    assert counts(found) == (2, 0, 2, 0)
    edit(found, lists=(ImageList((APP,), ("n1",)), ImageList((SIDECAR,), None, (("pool", "a"),))))
    found.settle(120)
    assert counts(found) == (2, 0, 2, 0)
    assert sum(found.pulls_of(APP).values()) == 2


def test_kube_fledged_trap_empty_images_are_valid_and_clear_the_list() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    edit(found, lists=(ImageList(()),))
    found.run(1)
    assert counts(found) == (0, 0, 0, 0)
    assert found.condition("warm") == (True, "NoImages")
    assert found.caches["shop", "warm"].status.observed_generation == 2


def test_kube_fledged_trap_edit_in_the_middle_of_a_pull_takes_effect_at_once() -> None:
    """There it is dropped, or refused while the state is Processing."""
    found = world(2)
    silent(found)
    found.add_cache(cache(ImageList((APP,))))
    found.run(2)
    assert counts(found)[1] == 3
    edit(found, lists=(ImageList((NEXT,)),))
    found.run(0.5)
    # Nobody wants the old image: the pod that has not begun is gone, the others cannot be stopped and do not count.
    assert {pod.node_name for pod in found.snapshot().puller_pods.values() if pod.shape.images[-1] == APP} <= {
        "n0",
        "n1",
    }
    assert counts(found)[0] == 3
    del found.nodes["n9"]
    found.settle(300)
    assert found.pulls_of(NEXT) == {"n0": 1, "n1": 1}
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}
    assert counts(found) == (2, 0, 2, 0)


Edit = Callable[[World], None]
EDITS: dict[str, Edit] = {
    "image": lambda found: edit(found, lists=(ImageList((SIDECAR,), ("n0",)),)),
    "names": lambda found: edit(found, lists=(ImageList((APP,), ("n0",)),)),
    "selector": lambda found: edit(found, lists=(ImageList((APP,), None, (("pool", "a"),)),)),
    "no images": lambda found: edit(found, lists=(ImageList(()),)),
    "faulty": lambda found: edit(found, lists=(), error="spec.cacheSpec: field required"),
    "deleted": lambda found: found.caches.clear(),
    "being deleted": lambda found: edit(found, deleted_at=found.now),
}


@pytest.mark.parametrize("change", EDITS)
def test_pod_that_has_not_begun_goes_with_the_wish(change: str) -> None:
    found = world(1)
    silent(found)
    found.add_cache(cache(ImageList((APP,), ("n9",))))
    found.run(1)
    assert [pod.node_name for pod in found.snapshot().puller_pods.values()] == ["n9"]
    EDITS[change](found)
    found.run(1)
    assert not [pod for pod in found.snapshot().puller_pods.values() if pod.node_name == "n9"]


def test_other_credentials_take_effect_on_pods_that_wait() -> None:
    found = world(0)
    silent(found)
    found.add_cache(cache(ImageList((APP,)), pull_secrets=("wrong",)))
    found.run(1)
    edit(found, pull_secrets=("right",))
    found.run(1)
    assert [pod.shape.pull_secrets for pod in found.snapshot().puller_pods.values()] == [("right",)]


@pytest.mark.parametrize(("before", "after"), [("web2", "web"), ("web", "")])
def test_another_account_takes_effect_though_its_name_begins_alike(before: str, after: str) -> None:
    found = world(0)
    silent(found)
    found.add_cache(cache(ImageList((APP,)), service_account=before))
    found.run(5)
    edit(found, service_account=after)
    found.run(5)
    assert [pod.shape.service_account or "default" for pod in found.pods.values()] == [after or "default"]


def test_failures_under_many_long_secrets_are_retried_with_pauses() -> None:
    found = world(1)
    secrets = tuple(f"registry-credentials-of-a-team-with-a-long-name-{number:02}" for number in range(32))
    found.add_cache(cache(ImageList(("registry.test/shop/web:missing",)), pull_secrets=secrets))
    found.run(120)
    assert len(found.created) <= 4
    (failure,) = found.caches["shop", "warm"].status.failures
    assert failure.attempts == len(found.created)


def test_toleration_added_later_lets_the_skipped_node_in() -> None:
    found = world(1)
    found.nodes["n0"] = replace(found.nodes["n0"], taints=(Taint("node-role.kubernetes.io/control-plane"),))
    found.add_cache(cache(ImageList((APP,))))
    found.run(2)
    assert found.condition("warm") == (False, "AllSkipped")
    edit(found, tolerations=(Toleration(operator="Exists"),))
    found.settle(120)
    assert counts(found) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    "again", ["docker.io/library/nginx:latest", "docker.io/nginx", "index.docker.io/library/nginx", "nginx:latest"]
)
def test_same_image_under_several_names_is_pulled_once(again: str) -> None:
    found = World(registries({"docker.io/library/nginx:latest": 50 * MB}))
    found.add_nodes(2)
    found.add_cache(cache(ImageList(("nginx", again)), ImageList((again,), ("n0",))))
    found.add_cache(cache(ImageList((again,)), name="other"))
    found.settle(120)
    assert len(found.pulls) == 2
    assert counts(found) == (4, 0, 4, 0)
    edit(found, lists=(ImageList((again,)),))
    found.run(2)
    assert counts(found) == (2, 0, 2, 0)
    assert len(found.pulls) == 2


def test_kube_fledged_trap_same_name_in_two_namespaces_does_not_mix() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((APP,), ("n0",)), namespace="shop"))
    found.add_cache(cache(ImageList(("registry.test/shop/web:missing", SIDECAR), ("n1",)), namespace="else"))
    found.run(60)
    assert counts(found, "shop") == (1, 0, 1, 0)
    assert counts(found, "else")[2:] == (1, 1)
    failures = found.caches["else", "warm"].status.failures
    assert [(failure.image, failure.node) for failure in failures] == [("registry.test/shop/web:missing", "n1")]
    assert not found.caches["shop", "warm"].status.failures
    del found.caches["else", "warm"]
    found.run(10)
    assert counts(found, "shop") == (1, 0, 1, 0)


def test_kube_fledged_trap_cache_that_shrinks_takes_nothing_from_an_overlapping_one() -> None:
    found = world(2)
    silent(found)
    found.add_cache(cache(ImageList((APP, SIDECAR))))
    found.add_cache(cache(ImageList((APP,)), name="other"))
    found.run(1)
    edit(found, lists=(ImageList(()),))
    found.run(2)
    # The other cache's own pod takes the place of the one that goes.
    owners = {pod.owner.name for pod in found.snapshot().puller_pods.values() if pod.node_name == "n9" and pod.owner}
    assert owners == {"other"}
    del found.nodes["n9"]
    found.settle(120)
    assert counts(found, name="other") == (2, 0, 2, 0)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}


def test_kube_fledged_trap_what_changed_while_the_controller_was_down_is_not_lost() -> None:
    found = world(3)
    found.nodes["n2"] = replace(found.nodes["n2"], unschedulable=True)
    silent(found)
    found.add_cache(cache(ImageList((APP,))))
    found.add_cache(cache(ImageList((SIDECAR,), ("n9",)), name="gone"))
    found.run(30)
    # Down: one cache changes, one goes, a node comes back, one joins, one leaves.
    edit(found, lists=(ImageList((NEXT,)),))
    del found.caches["shop", "gone"]
    found.nodes["n2"] = replace(found.nodes["n2"], unschedulable=False)
    found.add_nodes(1)
    del found.nodes["n9"]
    found.restart_controller()
    found.settle(300)
    assert found.pulls_of(NEXT) == dict.fromkeys(found.nodes, 1)
    assert counts(found) == (4, 0, 4, 0)
    assert not found.snapshot().puller_pods


def test_cache_made_anew_under_its_name_starts_from_what_is_there() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    found.caches.clear()
    found.run(5)
    found.add_cache(replace(cache(ImageList((APP,))), uid="uid-new"))
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1}
    assert counts(found) == (1, 0, 1, 0)


def test_image_under_other_credentials_is_verified_for_them() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,)), pull_secrets=("regcred",)))
    found.settle(120)
    created = len(found.created)
    found.add_cache(cache(ImageList((APP,)), name="other", pull_secrets=("another",)))
    found.settle(120)
    # A pod of its own, though nothing is transferred again.
    assert len(found.created) == created + 1
    assert counts(found, name="other") == (1, 0, 1, 0)


@pytest.mark.parametrize("form", ["registry.test/shop/web@{}", "registry.test/shop/web:v1@{}"])
def test_openkruise_and_kube_fledged_trap_image_pinned_by_digest_is_pulled_once(form: str) -> None:
    """There it fails on every node, or is pulled anew at every refresh."""
    found = world(2)
    _, remote = found.registries.resolve(parse_reference(APP), None)
    assert remote is not None
    found.add_cache(cache(ImageList((form.format(remote.digest),))))
    found.settle(120)
    assert counts(found) == (2, 0, 2, 0)
    found.restart_controller()
    found.run(3600)
    assert len(found.pulls) == 2
    assert counts(found) == (2, 0, 2, 0)


def test_openkruise_trap_second_cache_for_a_warm_image_leaves_the_first_alone() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    before = found.caches["shop", "warm"].status
    found.add_cache(cache(ImageList((APP,)), name="second"))
    found.settle(120)
    assert counts(found, name="second") == (2, 0, 2, 0)
    assert found.caches["shop", "warm"].status == before
    assert len(found.created) == 2


def test_openkruise_trap_edit_of_a_settled_cache_is_acted_on() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    found.run(600)
    edit(found, lists=(ImageList((NEXT,)),))
    found.settle(120)
    assert found.pulls_of(NEXT) == {"n0": 1}
