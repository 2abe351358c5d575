"""Labels follow evidence: none before an image is there, none once it is not wanted."""

from collections.abc import Mapping

from msgspec.structs import replace

from prewarm.api.steer_label import label_key, label_value
from prewarm.delivery import GateReason, decide_gates
from prewarm.delivery.steering import after, entries, label_changes, labels_wanted, steered_by
from prewarm.history import History
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage
from prewarm.model.plans import Plan
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer
from prewarm.model.workloads import WorkloadKey
from prewarm.planning import plan
from prewarm.presence import warmth
from tests.support.clusters import ENABLED, WEB, cluster, deployment, node, replica_set, template

IMAGE = "registry.test/web:v2"
PREFER = Policy("default", steer=Steer.PREFER)
KEY = label_key(WEB)
VALUE = label_value("v2")
STRANGE = "steer.prewarm.dev/feedfeedfeedfeed"


def snapshot(nodes: int = 8, replicas: int = 4, policy: Policy = PREFER) -> ClusterSnapshot:
    workload = deployment(template(IMAGE), replicas=replicas, paused=True)
    return cluster([node(f"n{number}") for number in range(nodes)], workloads=[workload], policies=[policy])


def warm(of: ClusterSnapshot, *names: str) -> ClusterSnapshot:
    found = (PresentImage(IMAGE, Evidence.OUR_PULL, 990.0),)
    return replace(of, node_images={name: NodeImages(name, f"uid-{name}", f"boot-{name}", found) for name in names})


def with_labels(of: ClusterSnapshot, labels: Mapping[str, Mapping[str, str]]) -> ClusterSnapshot:
    def labelled(one: Node) -> Node:
        return replace(one, labels={**one.labels, **labels.get(one.name, {})})

    return replace(of, nodes={name: labelled(one) for name, one in of.nodes.items()})


def steered_nodes(of: ClusterSnapshot) -> list[str]:
    (found,) = steered_by(plan(of, History())).values()
    return list(found.to.nodes)


def wanted(of: ClusterSnapshot) -> dict[str, dict[str, str]]:
    steered = steered_by(plan(of, History()))
    return {name: dict(labels) for name, labels in labels_wanted(steered.values(), of, warmth(of)).items()}


def test_nothing_is_labelled_before_the_image_is_there() -> None:
    assert wanted(snapshot()) == {}


def test_the_first_labels_wait_until_the_next_pods_do_not_crowd_them() -> None:
    """One warm node among four would draw all four pods."""
    cold = snapshot()
    nodes = steered_nodes(cold)
    assert wanted(warm(cold, *nodes[:1])) == {}
    assert set(wanted(warm(cold, *nodes[:2]))) == set(nodes[:2])
    assert wanted(warm(cold, *nodes)) == {key: {KEY: VALUE} for key in nodes}


def test_once_begun_every_node_is_labelled_as_it_becomes_warm() -> None:
    cold = snapshot()
    nodes = steered_nodes(cold)
    begun = with_labels(cold, {nodes[0]: {KEY: VALUE}})
    assert set(wanted(warm(begun, *nodes[:2]))) == set(nodes[:2])


def test_a_node_that_lost_the_image_or_takes_no_pods_loses_the_label() -> None:
    cold = snapshot()
    nodes = steered_nodes(cold)
    begun = with_labels(cold, {key: {KEY: VALUE} for key in nodes})
    assert nodes[0] not in wanted(warm(begun, *nodes[1:]))
    cordoned = replace(begun.nodes[nodes[0]], unschedulable=True)
    still = replace(begun, nodes={**begun.nodes, nodes[0]: cordoned})
    assert nodes[0] not in wanted(warm(still, *nodes))


def test_labels_of_a_scale_out_follow_its_nodes() -> None:
    """It may never come, so its labels would never go."""
    workload = deployment(template(IMAGE), replicas=4, annotations={**ENABLED, "prewarm.dev/headroom": "50%"})
    owned = replica_set(workload, template(IMAGE), 4)
    of = replace(snapshot(), workloads={WEB: workload}, replica_sets_by_owner={workload.uid: {("shop", "rs"): owned}})
    (found,) = steered_by(plan(of, History())).values()
    assert found.lasting
    everywhere = with_labels(of, {name: {found.to.label: found.to.value} for name in of.nodes})
    there = warm(everywhere, *of.nodes)
    (found,) = steered_by(plan(there, History())).values()
    assert set(labels_wanted([found], there, warmth(there))) == set(found.to.nodes)
    assert len(found.to.nodes) < len(of.nodes)


def test_changes_remove_what_is_not_wanted_and_touch_no_other_label() -> None:
    stale = with_labels(snapshot(3), {"n0": {KEY: "old", STRANGE: "x"}, "n1": {KEY: VALUE}, "n2": {"other": "label"}})
    changes = {change.name: dict(change.labels) for change in label_changes({"n1": {KEY: VALUE}}, stale)}
    assert changes == {"n0": {KEY: None, STRANGE: None}}
    changes = {change.name: dict(change.labels) for change in label_changes({"n0": {KEY: VALUE}}, stale)}
    assert changes == {"n0": {KEY: VALUE, STRANGE: None}, "n1": {KEY: None}}
    assert {change.uid for change in label_changes({}, stale)} == {"uid-n0", "uid-n1"}


def test_shadow_and_off_steer_nothing() -> None:
    assert not steered_by(plan(snapshot(policy=replace(PREFER, mode=PolicyMode.SHADOW)), History()))
    assert not steered_by(plan(snapshot(policy=Policy("default")), History()))


def test_a_plan_for_some_workloads_leaves_the_others_steered() -> None:
    known = steered_by(plan(snapshot(), History()))
    other = WorkloadKey("Deployment", "shop", "api")
    assert after(known, Plan(only=(other,))) == known
    assert after(known, Plan(only=(WEB,))) == {}
    assert after(known, Plan()) == {}


def test_entries_name_the_workload_as_the_policy_finds_it() -> None:
    steered = steered_by(plan(snapshot(), History()))
    written = entries(steered.values(), "prewarm-system", 1_000_000.0)
    assert (written.namespace, written.name) == ("prewarm-system", "prewarm-steer")
    assert written.manifest["data"] == {"deployment.shop.web": f"{KEY} {VALUE} 1970-01-12T13:46:40Z"}


def test_a_held_rollout_waits_for_its_labels_and_not_beyond_its_time() -> None:
    held = {**ENABLED, "prewarm.dev/gate": "5m", "prewarm.dev/gate-held": "1970-01-01T00:16:00Z"}
    workload = deployment(template(IMAGE), replicas=4, paused=True, annotations=held)
    of = replace(warm(snapshot(), *(f"n{number}" for number in range(8))), workloads={WEB: workload})
    made = plan(of, History())
    assert [one.reason for one in decide_gates(of, made).opened] == [GateReason.NOTHING_TO_PULL]
    assert not decide_gates(of, made, unready={WEB}).opened
    late = replace(of, taken_at=960.0 + 300.0)
    assert [one.reason for one in decide_gates(late, made, unready={WEB}).opened] == [GateReason.TIMEOUT]
