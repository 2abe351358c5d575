"""Which nodes a cache means, and what happens when they and their pods come, change and go."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.nodes import Node
from prewarm.model.pods import ContainerShape, Pod, PodPhase, PodShape, Taint, TaintEffect, Toleration
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from prewarm.puller import PullerSettings
from tests.support.clusters import node
from tests.support.pulling import MB, World, registries

APP = "registry.test/shop/web:v1"
OTHER = "registry.test/shop/proxy:v1"
SIZES = {APP: 200 * MB, OTHER: 20 * MB}
ONE_AT_ONCE = PullerSettings(cluster_pulls=1)


def cache(*entries: ImageList, name: str = "warm", **fields: object) -> ImageCache:
    return ImageCache("shop", name, uid=f"uid-{name}", generation=1, lists=entries, **fields)  # type: ignore[arg-type]


def world(nodes: int, settings: PullerSettings | None = None) -> World:
    made = World(registries(SIZES), settings=settings or PullerSettings())
    made.add_nodes(nodes)
    return made


def label(found: World, **labels: str) -> None:
    """Give nodes a label `pool`."""
    for name, pool in labels.items():
        found.nodes[name] = replace(found.nodes[name], labels={**found.nodes[name].labels, "pool": pool})


def requirement(key: str, operator: Operator, *values: str) -> NodeSelectorTerm:
    return NodeSelectorTerm((Requirement(key, operator, values),))


def web(name: str, node_name: str, namespace: str = "shop", **labels: str) -> Pod:
    """A pod of the workload, its image there already."""
    return Pod(
        namespace,
        name,
        f"uid-{namespace}-{name}",
        node_name=node_name,
        labels=labels or {"app": "web"},
        shape=PodShape((ContainerShape("c", "registry.test/shop/old:v1"),)),
        phase=PodPhase.RUNNING,
    )


def succeeded(found: World, name: str = "warm") -> int:
    return found.caches["shop", name].status.succeeded


def reasons(found: World, name: str = "warm") -> dict[str, int]:
    return dict(found.caches["shop", name].status.reasons)


# Expressions


def test_terms_are_alternatives_and_everything_else_must_hold() -> None:
    found = world(5)
    label(found, n0="a", n1="b", n2="c", n3="b")
    entry = ImageList(
        (APP,),
        ("n0", "n1", "n2", "n4"),
        (),
        (requirement("pool", Operator.IN, "a", "b"), requirement("pool", Operator.DOES_NOT_EXIST)),
    )
    found.add_cache(cache(entry))
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1, "n4": 1}
    assert found.condition("warm") == (True, "Warm")


def test_node_that_gets_the_label_is_taken_up_and_one_that_loses_it_stops_counting() -> None:
    found = world(2)
    label(found, n0="a")
    found.add_cache(cache(ImageList((APP,), None, (), (requirement("pool", Operator.IN, "a"),))))
    found.settle(120)
    label(found, n0="b", n1="a")
    found.run(1)
    assert succeeded(found) == 0
    found.settle(120)
    assert (succeeded(found), found.caches["shop", "warm"].status.desired) == (1, 1)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}


# Pods


def test_images_follow_the_pods_of_their_own_namespace() -> None:
    found = world(4)
    found.add_cache(cache(ImageList((APP,), pod_selector=LabelSelector((("app", "web"),)))))
    for pod in (web("a", "n0"), web("b", "n1", namespace="else"), web("c", "n2", app="db")):
        found.pods[pod.key] = pod
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1}
    assert found.condition("warm") == (True, "Warm")
    moved = web("d", "n3")
    del found.pods["shop", "a"]
    found.pods[moved.key] = moved
    found.run(1)
    assert found.caches["shop", "warm"].status.desired == 1
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n3": 1}
    # What was pulled stays, and is still known.
    assert found.records["n0"].images


@pytest.mark.parametrize("change", ["finished", "deleted", "relabelled"])
def test_node_whose_last_matching_pod_left_is_not_meant_any_more(change: str) -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,), pod_selector=LabelSelector((("app", "web"),)))))
    pod = web("a", "n0")
    found.pods[pod.key] = pod
    found.settle(120)
    assert succeeded(found) == 1
    if change == "deleted":
        del found.pods[pod.key]
    elif change == "finished":
        found.pods[pod.key] = replace(pod, phase=PodPhase.SUCCEEDED)
    else:
        found.pods[pod.key] = replace(pod, labels={"app": "db"})
    found.run(5)
    assert found.caches["shop", "warm"].status.desired == 0
    assert found.condition("warm") == (False, "NoNodes")


def test_puller_pods_make_no_node_meant() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((OTHER,), ("n1",)), name="other"))
    found.add_cache(cache(ImageList((APP,), pod_selector=LabelSelector())))
    found.settle(60)
    assert found.pulls_of(OTHER) == {"n1": 1}
    assert found.pulls_of(APP) == {}


# Selectors that match nothing


def test_openkruise_trap_selector_matching_nothing_is_not_done_and_waits() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,), None, (("pool", "typo"),))))
    found.run(5)
    assert found.condition("warm") == (False, "NoNodes")
    assert found.caches["shop", "warm"].status.completed_at is None
    assert [(event.reason, event.warning) for event in found.events] == [("NoNodes", True)]
    found.add_nodes(1)
    label(found, n1="typo")
    found.settle(120)
    assert found.condition("warm") == (True, "Warm")
    assert found.pulls_of(APP) == {"n1": 1}


def test_openkruise_trap_entry_matching_nothing_beside_others_is_named() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,)), ImageList((OTHER,), None, (("pool", "typo"),))))
    found.settle(60)
    status = found.caches["shop", "warm"].status
    assert found.condition("warm") == (False, "NoNodes")
    assert status.succeeded == 1
    (ready,) = [condition for condition in status.conditions if condition.type == "Ready"]
    assert "no node matches cacheSpec[1]" in ready.message


def test_named_node_that_does_not_exist_is_told() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,), ("n0", "n-typo"))))
    found.settle(60)
    assert (succeeded(found), reasons(found)) == (1, {"NodeNotFound": 1})


# Obstacles

LEAVING = (
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "node.cloudprovider.kubernetes.io/shutdown",
)
OBSTACLES: list[tuple[str, Node]] = [
    ("Cordoned", replace(node("n1"), unschedulable=True)),
    ("NotReady", replace(node("n1"), ready=False)),
    ("DiskPressure", replace(node("n1"), disk_pressure=True)),
    ("Leaving", replace(node("n1"), deleted_at=900.0)),
    *(("Leaving", replace(node("n1"), taints=(Taint(key),))) for key in LEAVING),
    ("Virtual", replace(node("n1"), labels={"type": "virtual-kubelet"})),
    ("Virtual", replace(node("n1"), taints=(Taint("virtual-kubelet.io/provider", "azure"),))),
    ("OperatingSystem", replace(node("n1"), operating_system="windows")),
    ("Tainted", replace(node("n1"), taints=(Taint("node-role.kubernetes.io/control-plane"),))),
    ("Tainted", replace(node("n1"), taints=(Taint("team", "a", TaintEffect.NO_EXECUTE),))),
]


@pytest.mark.parametrize(("reason", "there"), OBSTACLES)
def test_node_that_takes_no_pull_is_skipped_with_its_reason_and_taken_up_when_it_does(reason: str, there: Node) -> None:
    found = world(3, ONE_AT_ONCE)
    usual = found.nodes["n1"]
    found.nodes["n1"] = there
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    # One pull at once, and the others were pulled: it held no place.
    assert found.pulls_of(APP) == {"n0": 1, "n2": 1}
    assert reasons(found) == {reason: 1}
    assert found.condition("warm") == (True, "Warm")
    found.nodes["n1"] = usual
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1, "n2": 1}
    assert reasons(found) == {}


@pytest.mark.parametrize(("reason", "there"), [entry for entry in OBSTACLES if entry[0] != "OperatingSystem"])
def test_openkruise_trap_pod_that_waits_on_such_a_node_keeps_no_slot(reason: str, there: Node) -> None:
    """The state comes after the order, and the kubelet never looks at the pod."""
    found = world(2, ONE_AT_ONCE)
    found.nodes["n2"] = node("n2")
    found.add_cache(cache(ImageList((APP,), ("n2", "n0", "n1"))))
    found.run(1)
    assert [pod.node_name for pod in found.snapshot().puller_pods.values()] == ["n2"]
    found.nodes["n2"] = replace(there, name="n2", uid="uid-n2", boot_id="boot-n2")
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}
    assert reasons(found) == {reason: 1}
    assert not found.snapshot().puller_pods


def test_no_schedule_taint_excludes_no_worker_unless_the_cache_selects_others() -> None:
    found = world(2)
    found.nodes["n1"] = replace(found.nodes["n1"], taints=(Taint("gpu", "true"),))
    label(found, n1="gpu")
    found.add_cache(cache(ImageList((APP,))))
    found.add_cache(
        cache(ImageList((OTHER,), None, (), (requirement("pool", Operator.NOT_IN, "gpu"),)), name="not-gpu")
    )
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}
    assert found.pulls_of(OTHER) == {"n0": 1}


def test_toleration_lifts_a_control_plane_taint() -> None:
    found = world(1)
    found.nodes["n0"] = replace(found.nodes["n0"], taints=(Taint("node-role.kubernetes.io/control-plane"),))
    tolerations = (Toleration(key="node-role.kubernetes.io/control-plane", operator="Exists"),)
    found.add_cache(cache(ImageList((APP,)), tolerations=tolerations))
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1}


# Coming and going


def test_kube_fledged_trap_node_that_joins_later_is_pulled_to_at_once() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    found.run(30)
    found.add_nodes(1)
    found.nodes["n1"] = replace(found.nodes["n1"], ready=False)
    found.run(1)
    assert reasons(found) == {"NotReady": 1}
    found.nodes["n1"] = replace(found.nodes["n1"], ready=True)
    found.step(found.now + 1)
    assert [pod.node_name for pod in found.snapshot().puller_pods.values()] == ["n1"]
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 1}


def test_kube_fledged_trap_node_that_leaves_in_the_middle_is_no_failure() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((APP,))))
    found.run(2)
    found.fleet.remove_node("n1")
    del found.nodes["n1"]
    found.settle(120)
    status = found.caches["shop", "warm"].status
    assert (status.desired, status.succeeded, status.failed) == (1, 1, 0)
    assert found.condition("warm", "Degraded") == (False, "NoFailures")
    assert not found.snapshot().puller_pods


def test_node_made_anew_under_its_name_inherits_nothing() -> None:
    found = world(2)
    found.add_cache(cache(ImageList((APP,))))
    found.settle(120)
    found.fleet.remove_node("n1")
    del found.nodes["n1"]
    found.add_nodes(1)
    found.nodes["n1"] = replace(found.nodes["n1"], uid="uid-new", boot_id="boot-new")
    found.settle(120)
    assert found.pulls_of(APP) == {"n0": 1, "n1": 2}


def test_disk_pressure_that_ends_pods_counts_as_no_attempt() -> None:
    found = world(1)
    found.add_cache(cache(ImageList((APP,))))
    found.run(1)
    (pod,) = found.snapshot().puller_pods.values()
    found.nodes["n0"] = replace(found.nodes["n0"], disk_pressure=True)
    found.pods[pod.key] = replace(pod, phase=PodPhase.FAILED, reason="Evicted", message="DiskPressure", containers=())
    found.run(2)
    assert not any(record.failures for record in found.records.values())
    assert reasons(found) == {"DiskPressure": 1}
