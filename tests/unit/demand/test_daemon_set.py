"""On which nodes a DaemonSet has still to replace its pod."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload, WorkloadKey
from tests.support.clusters import cluster, deployment, node, template

KEY = WorkloadKey("DaemonSet", "shop", "agent")
V1 = template("registry.test/agent:v1", name="agent")
V2 = template("registry.test/agent:v2", name="agent")
NOW = 1000.0


def daemon_set(nodes: int = 4, **fields: Any) -> Workload:
    values: dict[str, Any] = {"max_surge": 0, "max_unavailable": 1, "generation": 2, "observed_generation": 2, **fields}
    return deployment(V2, replicas=nodes, key=KEY, **values)


def pod(number: int, *, new: bool = False, **fields: Any) -> Pod:
    found = Pod(
        "shop",
        f"agent-{'new' if new else 'old'}-{number}",
        f"uid-agent-{new}-{number}",
        node_name=f"n{number}",
        labels=V1.labels,
        owner=OwnerReference("DaemonSet", "agent", "uid-agent"),
        shape=V2.shape if new else V1.shape,
        phase=PodPhase.RUNNING,
        created_at=100.0,
        scheduled_at=100.0,
        ready_at=105.0,
    )
    return replace(found, **fields)


def snapshot(workload: Workload, *pods: Pod) -> ClusterSnapshot:
    return cluster([node(f"n{number}") for number in range(8)], pods, [workload], now=NOW)


def wanted(found: ClusterSnapshot) -> Demand | None:
    asked = demands(found, KEY, Policy(), History())
    assert len(asked) <= 1
    return asked[0] if asked else None


def nodes(demand: Demand) -> list[str]:
    return [name for batch in demand.batches for name in batch.nodes]


def test_every_node_with_an_old_pod_is_certain() -> None:
    demand = wanted(snapshot(daemon_set(), *(pod(number) for number in range(4))))
    assert demand is not None
    assert demand.trigger is Trigger.ROLLOUT
    assert demand.is_fixed
    assert nodes(demand) == ["n0", "n1", "n2", "n3"]
    assert [batch.needed_at for batch in demand.batches] == [pytest.approx(NOW + 11 * index) for index in range(4)]


def test_nodes_with_their_new_pod_are_done() -> None:
    demand = wanted(snapshot(daemon_set(updated_replicas=2), pod(0), pod(0, new=True), pod(1, new=True), pod(2)))
    assert demand is not None
    assert nodes(demand) == ["n2"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"max_unavailable": "30%"}, [2, 2]), ({"max_surge": 1, "max_unavailable": 0}, [1, 1, 1, 1])],
)
def test_as_many_go_together_as_the_strategy_says(fields: dict[str, Any], expected: list[int]) -> None:
    demand = wanted(snapshot(daemon_set(**fields), *(pod(number) for number in range(4))))
    assert demand is not None
    assert [batch.pods for batch in demand.batches] == expected


def test_the_controller_says_when_it_is_over() -> None:
    """Where a webhook rewrites images, pods never look like the template."""
    assert wanted(snapshot(daemon_set(2, updated_replicas=2), pod(0), pod(1))) is None


def test_with_on_delete_nobody_knows_when() -> None:
    demand = wanted(snapshot(daemon_set(strategy=UpdateStrategy.ON_DELETE), pod(0)))
    assert demand is not None
    assert demand.batches[0].needed_at > NOW + 3600


def test_nodes_that_are_gone_need_nothing() -> None:
    assert wanted(snapshot(daemon_set(), pod(77))) is None
