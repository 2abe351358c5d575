"""With steering, the plan chooses one spread of the pods and knows that they go there."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.api.plan_annotation import encode_summary, summary
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, ImageList, Policy
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage
from prewarm.model.plans import DemandPlan, SkipReason
from prewarm.model.pods import Affinity, OwnerReference, Pod, PodTemplate, PreferredNodeTerm, Taint, TaintEffect
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer, Steering, SteerState
from prewarm.model.workloads import Workload
from prewarm.planning import plan
from prewarm.planning.selection import Prospect
from prewarm.planning.steering import select_steered, unless_withheld
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, template

IMAGE = "registry.test/web:v2"
V2 = template(IMAGE)
HISTORY = History(pulls={IMAGE: Measured(20.0, 0.0)})
PREFER = Policy("default", steer=Steer.PREFER)
PODS = 20


def equal_nodes(count: int = 60, zones: str = "abc") -> list[Node]:
    return [node(f"n{number:03}", zone=zones[number % len(zones)]) for number in range(count)]


def announced(changed: PodTemplate = V2, replicas: int = PODS, **fields: Any) -> Workload:
    """A paused Deployment whose template was changed: all pods come later."""
    return deployment(changed, replicas=replicas, paused=True, **fields)


def snapshot(nodes: list[Node], workload: Workload | None = None, policy: Policy = PREFER) -> ClusterSnapshot:
    return cluster(nodes, workloads=[workload or announced()], policies=[policy])


def planned(of: ClusterSnapshot, unsteerable: SteerState | None = None) -> DemandPlan:
    (found,) = plan(of, HISTORY, unsteerable=unsteerable).demands
    return found


def steering(found: DemandPlan) -> Steering:
    assert found.steering is not None
    return found.steering


def preferring(value: str, weight: int) -> PodTemplate:
    """The template with a preference of its own for nodes of a zone."""
    zone = NodeSelectorTerm((Requirement("topology.kubernetes.io/zone", Operator.IN, (value,)),))
    affinity = Affinity(preferred_node_terms=(PreferredNodeTerm(weight, zone),))
    return replace(V2, shape=replace(V2.shape, affinity=affinity))


def test_equal_nodes_are_unpredictable_without_and_certain_with_steering() -> None:
    without = planned(snapshot(equal_nodes(), policy=Policy("default")))
    assert without.steering is None
    assert without.candidates.predictability < 0.5
    found = planned(snapshot(equal_nodes()))
    assert steering(found).state is SteerState.STEERED
    assert found.candidates.predictability > 0.95
    assert {entry.name for entry in found.nodes} == set(steering(found).nodes)


def test_one_node_for_each_pod_is_chosen_and_spread_over_the_zones() -> None:
    nodes = equal_nodes()
    chosen = steering(planned(snapshot(nodes))).nodes
    assert len(chosen) == PODS
    zones = {one.name: one.labels["topology.kubernetes.io/zone"] for one in nodes}
    per_zone = [sum(zones[name] == zone for name in chosen) for zone in "abc"]
    assert max(per_zone) - min(per_zone) <= 1


def test_fewer_nodes_than_pods_take_several_each_and_nodes_without_room_none() -> None:
    full = [node(f"full{number}", cpu=0) for number in range(3)]
    found = planned(snapshot([*equal_nodes(8), *full]))
    assert len(steering(found).nodes) == 8
    assert not {name for name in steering(found).nodes if name.startswith("full")}


def test_nodes_where_nothing_may_be_pulled_are_not_chosen() -> None:
    tainted = Taint("example.com/x", effect=TaintEffect.NO_EXECUTE)
    shunned = [replace(one, disk_pressure=True) for one in equal_nodes(30)[:10]]
    shunned += [replace(one, taints=(tainted,)) for one in equal_nodes(30)[10:15]]
    found = planned(snapshot([*shunned, *equal_nodes(60)[30:]]))
    assert not {one.name for one in shunned} & set(steering(found).nodes)


def test_what_was_pulled_already_is_chosen_again() -> None:
    nodes = equal_nodes()
    workload = announced(replicas=21)
    there = {one.name for one in nodes[30:51]}
    assert set(steering(planned(snapshot(nodes, workload))).nodes) != there
    records = {
        name: NodeImages(name, f"uid-{name}", f"boot-{name}", (PresentImage(IMAGE, Evidence.OUR_PULL, 990.0),))
        for name in there
    }
    warm = replace(snapshot(nodes, workload), node_images=records)
    assert set(steering(planned(warm)).nodes) == there


def test_what_was_planned_before_stays_chosen_while_pods_land() -> None:
    """Its pulls may begin at any moment: what falls out of the set then is pulled in vain."""
    workload = announced()
    before = {one.name for one in equal_nodes()[30:50]}
    caches = {("shop", "c"): planned_for(workload, before)}
    found = planned(replace(snapshot(equal_nodes(), workload), image_caches=caches))
    assert set(steering(found).nodes) == before

    owner = replica_set(workload, V2, 2, created_at=999.0)
    by = OwnerReference("ReplicaSet", owner.key.name, owner.uid)
    first = Pod("shop", "new0", "uid-new0", "n030", owner.template.labels, owner=by, created_at=999.5, shape=V2.shape)
    coming = replace(first, name="new1", uid="uid-new1", node_name="")
    of = cluster(equal_nodes(), [first, coming], [workload], [owner], policies=[PREFER])
    found = planned(replace(of, image_caches=caches))
    others = set(steering(found).nodes) - {"n030"}
    assert found.demand.pods == PODS - 2
    assert len(others) == found.demand.pods
    assert others < before


def planned_for(workload: Workload, names: set[str]) -> ImageCache:
    """An ImageCache as an earlier plan had it written."""
    said = encode_summary(
        summary("Rollout", workload.template_hash, pods=len(names), predictability=1, coverage=1, nodes=[])
    )
    lists = (ImageList((IMAGE,), node_names=tuple(sorted(names))),)
    return ImageCache("shop", "c", lists=lists, planned=True, workload=str(workload.key), plan_annotation=said)


def test_the_template_s_own_preference_decides_first() -> None:
    nodes = equal_nodes()
    zones = {one.name: one.labels["topology.kubernetes.io/zone"] for one in nodes}
    found = planned(snapshot(nodes, announced(preferring("b", 50))))
    assert {zones[name] for name in steering(found).nodes} == {"b"}


def test_nodes_to_which_nothing_is_steered_say_so() -> None:
    nodes = equal_nodes(12)
    workload = announced(replicas=4)
    found = planned(snapshot(nodes, workload))
    warm = [NodeImages("n000", "uid-n000", "boot-n000", (PresentImage(IMAGE, Evidence.OUR_PULL, 990.0),))]
    reasons = {skip.node: skip.reason for skip in found.skips}
    assert set(reasons.values()) <= {SkipReason.STEERED_ELSEWHERE}
    again = planned(replace(snapshot(nodes, workload), node_images={one.node_name: one for one in warm}))
    assert "n000" in {entry.name for entry in again.nodes}


@pytest.mark.parametrize("obstacle", [SteerState.SWITCHED_OFF, SteerState.UNSUPPORTED])
def test_where_nothing_can_be_steered_the_plan_is_as_without_and_says_so(obstacle: SteerState) -> None:
    found = planned(snapshot(equal_nodes()), obstacle)
    assert steering(found).state is obstacle
    assert replace(found, steering=None) == planned(snapshot(equal_nodes(), policy=Policy("default")))


def test_another_schedulers_pods_are_not_steered() -> None:
    foreign = replace(V2, shape=replace(V2.shape, scheduler_name="other"))
    found = planned(snapshot(equal_nodes(), announced(foreign)))
    assert steering(found).state is SteerState.OTHER_SCHEDULER


def test_a_workload_is_steered_for_one_demand_at_a_time() -> None:
    """A node carries one revision of a workload: what is announced waits for the rollout."""
    workload = announced(annotations={"prewarm.dev/enabled": "true", "prewarm.dev/next-images": "registry.test/web:v3"})
    first, second = plan(snapshot(equal_nodes(), workload), HISTORY).demands
    assert (steering(first).state, steering(second).state) == (SteerState.STEERED, SteerState.OTHER_DEMAND)


def test_the_label_is_the_workloads_and_its_value_the_revisions() -> None:
    found = steering(planned(snapshot(equal_nodes())))
    later = steering(planned(snapshot(equal_nodes(), announced(template("registry.test/web:v3")))))
    other = replace(WEB, name="api")
    elsewhere = steering(planned(snapshot(equal_nodes(), announced(key=other))))
    assert found.label == later.label != elsewhere.label
    assert found.value != later.value
    assert found.label.startswith("steer.prewarm.dev/")
    assert len(found.label.partition("/")[2]) <= 63


def test_pods_are_steered_to_no_node_where_a_pull_would_rather_be_in_vain() -> None:
    prospects = [Prospect(f"n{index}", 1.0, (IMAGE,), vain=0.02) for index in range(10)]
    prospects += [Prospect(f"full{index}", 0.4, (IMAGE,), vain=0.6) for index in range(10)]
    names = [one.name for one in prospects]
    found = select_steered(prospects, Steering(SteerState.STEERED, tuple(names)), 20, None, waste=0.1)
    assert found.chosen == {f"n{index}" for index in range(10)}
    assert set(found.reasons.values()) == {SkipReason.BEYOND_WASTE}
    left = unless_withheld(Steering(SteerState.STEERED, tuple(names), 10, "label", "value"), None, found)
    assert set(left.nodes) == found.chosen
    assert left.needed <= len(left.nodes) / 2


def test_what_is_held_is_pulled_on_less_likely_nodes_too_as_far_as_waste_allows() -> None:
    prospects = [Prospect(f"n{index}", 1.0, (IMAGE,), vain=0.0) for index in range(18)]
    prospects += [Prospect(f"full{index}", 0.2, (IMAGE,), vain=0.8) for index in range(10)]
    to = Steering(SteerState.STEERED, tuple(one.name for one in prospects), 10, "label", "value")
    bold = select_steered(prospects, to, 18, None, waste=0.1, held=True)
    assert len(bold.chosen) == 20, "two of twenty may be in vain, each by four fifths; a third would be too many"
    cautious = select_steered(prospects, to, 18, None, waste=0.1)
    assert len(cautious.chosen) == 18
    assert len(unless_withheld(to, None, bold).nodes) == 20, "the label is for nodes that are pulled on"
