"""Updates in place by OpenKruise: nodes are certain, the order is known, and what it does itself is left to it."""

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, SkipReason, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.progressive import InPlace, PriorityTerm, Revision, UpdateOrder, api_kind
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.planning import plan
from tests.support.clusters import cluster, deployment, node, template

V1 = template("registry.test/db:v1", name="db")
V2 = template("registry.test/db:v2", name="db")
HISTORY = History(pulls={"registry.test/db:v2": Measured(20.0, 0.0)})
NOW = 1000.0
KINDS = ["CloneSet", "AdvancedStatefulSet", "AdvancedDaemonSet"]


def workload(kind: str = "CloneSet", replicas: int = 4, **fields: Any) -> Workload:
    values: dict[str, Any] = {
        "max_surge": 0,
        "max_unavailable": 1,
        "generation": 2,
        "observed_generation": 2,
        "update_revision": "db-2",
        "in_place": InPlace.IF_POSSIBLE,
        "api_version": "apps.kruise.io/v1alpha1",
        **fields,
    }
    return deployment(V2, replicas=replicas, key=WorkloadKey(kind, "shop", "db"), **values)


def pod(number: int, revision: str = "db-1", *, kind: str = "CloneSet", **fields: Any) -> Pod:
    found = Pod(
        "shop",
        f"db-{number}",
        f"uid-db-{number}",
        node_name=f"n{number}",
        labels={**V1.labels, "controller-revision-hash": revision},
        owner=OwnerReference(api_kind(kind), "db", "uid-db", "apps.kruise.io/v1alpha1"),
        shape=V1.shape if revision == "db-1" else V2.shape,
        phase=PodPhase.RUNNING,
        created_at=100.0,
        scheduled_at=100.0,
        ready_at=105.0 + number,
    )
    return replace(found, **fields)


def snapshot(found: Workload, *pods: Pod, revisions: tuple[Revision, ...] = ()) -> ClusterSnapshot:
    made = cluster([node(f"n{number}") for number in range(6)], pods, [found], now=NOW)
    return replace(made, revisions_by_owner={"uid-db": {("shop", entry.name): entry for entry in revisions}})


def wanted(found: ClusterSnapshot) -> Demand | None:
    (key,) = found.workloads
    asked = demands(found, key, Policy(), HISTORY)
    assert len(asked) <= 1
    return asked[0] if asked else None


def nodes(demand: Demand | None) -> list[tuple[str, ...]]:
    assert demand is not None
    return [batch.nodes for batch in demand.batches]


@pytest.mark.parametrize("kind", KINDS)
def test_the_nodes_of_all_pods_are_certain_and_taken_one_after_the_other(kind: str) -> None:
    demand = wanted(snapshot(workload(kind), *(pod(number, kind=kind) for number in range(4))))
    assert demand is not None
    assert demand.is_fixed
    assert demand.trigger is Trigger.ROLLOUT
    assert demand.pods == 4
    assert nodes(demand) == [("n3",), ("n2",), ("n1",), ("n0",)]
    times = [batch.needed_at for batch in demand.batches]
    assert times[0] == NOW
    assert all(later - earlier > 0 for earlier, later in pairwise(times))
    assert times[1] - times[0] >= 20.0 > times[2] - times[1]


@pytest.mark.parametrize("replicas", [1, 3])
def test_few_replicas_in_one_batch_count_too(replicas: int) -> None:
    pods = [pod(number) for number in range(replicas)]
    demand = wanted(snapshot(workload(replicas=replicas, max_unavailable="100%"), *pods))
    assert demand is not None
    assert [batch.pods for batch in demand.batches] == [replicas]


@pytest.mark.parametrize(
    ("kind", "left"),
    [("CloneSet", ["n3", "n2"]), ("AdvancedStatefulSet", ["n3", "n2"]), ("AdvancedDaemonSet", ["n3", "n2"])],
)
def test_what_a_partition_keeps_is_left_alone(kind: str, left: list[str]) -> None:
    demand = wanted(snapshot(workload(kind, partition=2), *(pod(number, kind=kind) for number in range(4))))
    assert [name for batch in nodes(demand) for name in batch] == left


def test_a_partition_that_is_reached_needs_nothing() -> None:
    pods = (pod(0), pod(1), pod(2, "db-2"), pod(3, "db-2"))
    assert wanted(snapshot(workload(partition=2), *pods)) is None


def test_pods_that_are_not_ready_go_first_and_cost_no_availability() -> None:
    pods = (pod(0), pod(1), pod(2), pod(3, ready_at=None))
    demand = wanted(snapshot(workload(max_unavailable=2), *pods))
    assert nodes(demand) == [("n3", "n2"), ("n1", "n0")]


def test_a_starting_pod_takes_the_place_of_the_next() -> None:
    demand = wanted(snapshot(workload(), pod(0), pod(1), pod(3, "db-2", ready_at=None)))
    assert demand is not None
    assert nodes(demand) == [("n1",), ("n0",)]
    assert demand.batches[0].needed_at > NOW


def test_priorities_come_before_activity() -> None:
    canary = LabelSelector(match_labels=(("canary", "yes"),))
    order = UpdateOrder(priority=(PriorityTerm(10, selector=canary),))
    pods = (pod(0, labels={**pod(0).labels, "canary": "yes"}), pod(1), pod(2), pod(3))
    assert nodes(wanted(snapshot(workload(update_order=order), *pods)))[0] == ("n0",)


def test_an_ordered_label_goes_by_the_number_at_its_end() -> None:
    order = UpdateOrder(priority=(PriorityTerm(ordered_key="rank"),))
    ranks = ("r-2", "r-10", None, "r-1")
    pods = [
        pod(number, labels={**pod(0).labels, **({} if rank is None else {"rank": rank})})
        for number, rank in enumerate(ranks)
    ]
    found = nodes(wanted(snapshot(workload(update_order=order), *pods)))
    assert found == [("n1",), ("n0",), ("n3",), ("n2",)]


def test_scattered_pods_are_spread_over_the_update() -> None:
    order = UpdateOrder(scatter=(("role", "main"),))
    pods = [pod(number, labels={**pod(0).labels, "role": "main" if number > 1 else "side"}) for number in range(4)]
    found = [batch[0] for batch in nodes(wanted(snapshot(workload(update_order=order), *pods)))]
    assert {frozenset(found[:2]) & {"n0", "n1"}, frozenset(found[2:]) & {"n0", "n1"}} == {
        frozenset({"n0"}),
        frozenset({"n1"}),
    }


def test_a_daemon_set_updates_only_nodes_that_its_selector_takes() -> None:
    order = UpdateOrder(selector=LabelSelector(match_labels=(("kubernetes.io/hostname", "n1"),)))
    kind = "AdvancedDaemonSet"
    demand = wanted(snapshot(workload(kind, update_order=order), *(pod(number, kind=kind) for number in range(4))))
    assert nodes(demand) == [("n1",)]


def test_only_the_revisions_tell_whether_anything_else_differs() -> None:
    same = (Revision("shop", "db-1", "uid-db", "a"), Revision("shop", "db-2", "uid-db", "a"))
    other = (same[0], replace(same[1], rest_hash="b"))
    pods = tuple(pod(number) for number in range(4))
    in_place = wanted(snapshot(workload(), *pods, revisions=same))
    recreated = wanted(snapshot(workload(), *pods, revisions=other))
    assert in_place is not None
    assert in_place.is_fixed
    assert recreated is not None
    assert not recreated.is_fixed
    assert recreated.pods == 4


def test_a_clone_set_that_recreates_its_pods_surges_like_a_deployment() -> None:
    pods = tuple(pod(number) for number in range(4))
    demand = wanted(snapshot(workload(in_place=InPlace.NEVER, max_surge=2, max_unavailable=0), *pods))
    assert demand is not None
    assert not demand.is_fixed
    assert demand.batches[0].pods == 2
    assert demand.batches[0].leaving == 0
    assert {name for _, name in demand.leaving} == {"db-0", "db-1", "db-2", "db-3"}


def test_a_paused_update_is_an_announcement() -> None:
    demand = wanted(snapshot(workload(paused=True), *(pod(number) for number in range(4))))
    assert demand is not None
    assert demand.batches[0].needed_at > NOW + 3600


def test_nothing_is_pulled_where_openkruise_pulls_or_has_not_decided_yet() -> None:
    pods = tuple(pod(number) for number in range(4))
    pulled = (Revision("shop", "db-2", "uid-db", "a", pre_downloaded=True),)
    for found, reason in (
        (snapshot(workload(), *pods, revisions=pulled), SkipReason.PULLED_BY_KRUISE),
        (snapshot(workload(observed_generation=1), *pods), SkipReason.UNOBSERVED),
    ):
        (entry,) = plan(found, HISTORY).demands
        assert not entry.nodes
        assert {skip.reason for skip in entry.skips} == {reason}
        assert len(entry.skips) == 4


def test_a_reserved_ordinal_is_not_missing() -> None:
    kind = "AdvancedStatefulSet"
    pods = [pod(number, "db-2", kind=kind) for number in (0, 2, 3, 4)]
    assert wanted(snapshot(workload(kind, reserved_ordinals=(1,)), *pods)) is None
