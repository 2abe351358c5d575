"""Which pods a StatefulSet has still to create, by stateful_set_control.go."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.volumes import Volume, VolumeClaim
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey
from tests.support.clusters import cluster, deployment, node, template

KEY = WorkloadKey("StatefulSet", "shop", "db")
V1 = template("registry.test/db:v1", name="db")
V2 = template("registry.test/db:v2", name="db")
HISTORY = History(pulls={"registry.test/db:v2": Measured(20.0, 0.0)})
NOW = 1000.0


def stateful_set(replicas: int = 4, **fields: Any) -> Workload:
    values: dict[str, Any] = {
        "max_surge": 0,
        "max_unavailable": 1,
        "generation": 2,
        "observed_generation": 2,
        "update_revision": "db-2",
        **fields,
    }
    return deployment(V2, replicas=replicas, key=KEY, **values)


def pod(number: int, revision: str = "db-1", **fields: Any) -> Pod:
    found = Pod(
        "shop",
        f"db-{number}",
        f"uid-db-{number}",
        node_name=f"n{number}",
        labels={**V1.labels, "controller-revision-hash": revision},
        owner=OwnerReference("StatefulSet", "db", "uid-db"),
        shape=V1.shape if revision == "db-1" else V2.shape,
        phase=PodPhase.RUNNING,
        created_at=100.0,
        scheduled_at=100.0,
        ready_at=105.0,
    )
    return replace(found, **fields)


def snapshot(workload: Workload, *pods: Pod) -> ClusterSnapshot:
    return cluster([node(f"n{number}") for number in range(6)], pods, [workload], now=NOW)


def wanted(found: ClusterSnapshot, policy: Policy | None = None) -> Demand | None:
    asked = demands(found, KEY, policy or Policy(), HISTORY)
    assert len(asked) <= 1
    return asked[0] if asked else None


def names(demand: Demand) -> list[str]:
    return [name for _, name in demand.leaving]


def test_nothing_is_needed_where_all_pods_are_of_the_revision() -> None:
    assert wanted(snapshot(stateful_set(3), *(pod(number, "db-2") for number in range(3)))) is None


def test_ordinals_are_replaced_from_the_highest_down_one_after_the_other() -> None:
    demand = wanted(snapshot(stateful_set(4), *(pod(number) for number in range(4))))
    assert demand is not None
    assert demand.trigger is Trigger.ROLLOUT
    assert names(demand) == ["db-3", "db-2", "db-1", "db-0"]
    assert [batch.pods for batch in demand.batches] == [1, 1, 1, 1]
    assert [batch.leaving for batch in demand.batches] == [1, 1, 1, 1]
    assert demand.leaves_in_order
    times = [batch.needed_at for batch in demand.batches]
    # Pods take 10 s from creation to ready where nothing was measured, and about 1 s to stop.
    assert times == [pytest.approx(NOW + 1 + 11 * index) for index in range(4)]


def test_ordinals_below_the_partition_stay() -> None:
    demand = wanted(snapshot(stateful_set(4, partition=2), *(pod(number) for number in range(4))))
    assert demand is not None
    assert names(demand) == ["db-3", "db-2"]
    assert wanted(snapshot(stateful_set(4, partition=4), *(pod(number) for number in range(4)))) is None


def test_the_partition_counts_from_the_first_ordinal() -> None:
    workload = stateful_set(2, partition=1, first_ordinal=3)
    demand = wanted(snapshot(workload, pod(3), pod(4)))
    assert demand is not None
    assert names(demand) == ["db-4"]


def test_max_unavailable_replaces_several_together() -> None:
    demand = wanted(snapshot(stateful_set(4, max_unavailable="50%"), *(pod(number) for number in range(4))))
    assert demand is not None
    assert [batch.pods for batch in demand.batches] == [2, 2]


def test_a_changed_template_counts_before_the_controller_has_seen_it() -> None:
    workload = stateful_set(2, generation=3, update_revision="db-1")
    demand = wanted(snapshot(workload, pod(0), pod(1)))
    assert demand is not None
    assert demand.pods == 2


def test_a_pod_that_ends_comes_again_before_the_next_goes() -> None:
    ending = pod(3, deleted_at=NOW + 4)
    demand = wanted(snapshot(stateful_set(4), pod(0), pod(1), pod(2), ending))
    assert demand is not None
    assert names(demand) == ["db-3", "db-2", "db-1", "db-0"]
    assert demand.batches[0].needed_at == NOW + 4
    assert demand.batches[1].needed_at > NOW + 4 + 20


def test_the_next_pod_waits_for_one_that_starts() -> None:
    starting = pod(3, "db-2", ready_at=None, created_at=NOW - 2)
    demand = wanted(snapshot(stateful_set(4), pod(0), pod(1), pod(2), starting))
    assert demand is not None
    assert demand.batches[0].needed_at == pytest.approx(NOW - 2 + 30 + 1)


@pytest.mark.parametrize(("parallel", "expected"), [(False, [1, 1, 1]), (True, [3])])
def test_missing_pods_come_in_order_or_together(parallel: bool, expected: list[int]) -> None:
    demand = wanted(snapshot(stateful_set(4, parallel=parallel), pod(0, "db-2")))
    assert demand is not None
    assert demand.trigger is Trigger.SCALE_OUT
    assert [batch.pods for batch in demand.batches] == expected
    assert demand.leaving == ()


def test_with_on_delete_nobody_knows_when() -> None:
    workload = stateful_set(2, strategy=UpdateStrategy.ON_DELETE, partition=1)
    demand = wanted(snapshot(workload, pod(0), pod(1)))
    assert demand is not None
    assert names(demand) == ["db-1", "db-0"]
    assert demand.batches[0].needed_at > NOW + 3600


def test_of_very_many_pods_the_first_batches_are_told_apart() -> None:
    workload = stateful_set(400)
    demand = wanted(snapshot(workload, *(pod(number) for number in range(400))))
    assert demand is not None
    assert demand.pods == 400
    assert len(demand.batches) <= 128


def kept_on(claim: str, *hosts: str) -> tuple[VolumeClaim, Volume]:
    term = NodeSelectorTerm((Requirement("kubernetes.io/hostname", Operator.IN, hosts),))
    return VolumeClaim("shop", claim, f"pv-{claim}"), Volume(f"pv-{claim}", (term,))


def test_a_pod_with_a_local_volume_comes_to_its_node() -> None:
    workload = stateful_set(2, claim_templates=("data", "log"))
    volumes = [kept_on("data-db-0", "n0", "n1"), kept_on("data-db-1", "n2", "n3"), kept_on("log-db-1", "n3")]
    nodes = [node(f"n{number}") for number in range(6)]
    demand = wanted(cluster(nodes, [pod(0), pod(1)], [workload], volumes=volumes))
    assert demand is not None
    assert [batch.nodes for batch in demand.batches] == [("n3",), ()]
    assert [batch.claims for batch in demand.batches] == [("data-db-1", "log-db-1"), ("data-db-0", "log-db-0")]
    assert not demand.is_fixed


def test_pods_that_come_together_go_each_to_its_own_volume() -> None:
    workload = stateful_set(3, claim_templates=("data",), parallel=True)
    volumes = [kept_on(f"data-db-{number}", f"n{5 - number}") for number in range(3)]
    demand = wanted(cluster([node(f"n{number}") for number in range(6)], (), [workload], volumes=volumes))
    assert demand is not None
    assert [batch.nodes for batch in demand.batches] == [("n5",), ("n4",), ("n3",)]
    assert len({batch.needed_at for batch in demand.batches}) == 1
    assert demand.is_fixed


def test_volumes_that_are_not_bound_yet_leave_the_scheduler_its_choice() -> None:
    workload = stateful_set(2, claim_templates=("data",))
    free = [(VolumeClaim("shop", "data-db-0"), Volume("unused"))]
    demand = wanted(cluster([node("n0")], [pod(0), pod(1)], [workload], volumes=free))
    assert demand is not None
    assert [batch.claims for batch in demand.batches] == [(), ()]


def test_the_policy_decides_on_rollouts() -> None:
    assert wanted(snapshot(stateful_set(2), pod(0), pod(1)), Policy(rollout=False)) is None
