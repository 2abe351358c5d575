"""Containers that admission adds to a workload's pods belong to what its next pods need."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.demand.injected import MAX_INJECTED
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.plans import Demand
from prewarm.model.pods import ContainerKind, ContainerShape, OwnerReference, Pod, PodPhase, PodTemplate, Resources
from prewarm.model.progressive import InPlace
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.planning import plan
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, template

V1, V2 = template("registry.test/web:v1"), template("registry.test/web:v2")
PROXY = ContainerShape("proxy", "registry.test/mesh:v1", kind=ContainerKind.SIDECAR)


def pod(made_of: Workload, name: str, *added: ContainerShape, created_at: float = 500.0, **fields: Any) -> Pod:
    """A ready pod of a ReplicaSet (or of a workload itself) to which admission added containers."""
    shape = made_of.template.shape
    grown = replace(
        shape,
        containers=(*shape.containers, *added),
        requests=replace(shape.requests, milli_cpu=shape.requests.milli_cpu + 100 * len(added)),
    )
    values: dict[str, Any] = {
        "labels": made_of.template.labels,
        "owner": OwnerReference(made_of.key.kind, made_of.key.name, made_of.uid),
        "shape": grown,
        "phase": PodPhase.RUNNING,
        "ready_at": created_at + 5,
        "node_name": "n0",
        **fields,
    }
    return Pod("shop", name, f"uid-{name}", created_at=created_at, **values)


def rolling(*pods_of_v1: tuple[ContainerShape, ...], now_wanted: PodTemplate = V2, **fields: Any) -> ClusterSnapshot:
    """A Deployment of two pods of v1 that was changed; the second pod is the newer one."""
    found = deployment(now_wanted, replicas=2, **fields)
    old = replica_set(found, V1, 2)
    pods = [pod(old, f"p{number}", *added, created_at=500.0 + number) for number, added in enumerate(pods_of_v1)]
    return cluster([node(f"n{number}") for number in range(4)], pods, [found], [old])


def demand_of(snapshot: ClusterSnapshot, key: WorkloadKey = WEB) -> Demand:
    (found,) = demands(snapshot, key, Policy(), History())
    return found


def test_a_sidecar_of_running_pods_is_needed_by_the_next_ones_before_their_own_image() -> None:
    demand = demand_of(rolling((PROXY,), (PROXY,)))
    assert demand.images == ("registry.test/mesh:v1", "registry.test/web:v2")
    assert demand.injected == ("registry.test/mesh:v1",)


def test_what_it_requests_counts_where_the_pods_land() -> None:
    demand = demand_of(rolling((PROXY,), (PROXY,)))
    assert demand.template.shape.requests == replace(V2.shape.requests, milli_cpu=600)


def test_the_newest_pod_tells_which_version_comes() -> None:
    newer = replace(PROXY, image="registry.test/mesh:v2")
    assert demand_of(rolling((PROXY,), (newer,))).injected == ("registry.test/mesh:v2",)
    assert demand_of(rolling((PROXY,), ())).injected == ()


def test_a_container_that_the_new_template_dropped_is_not_injected() -> None:
    both = template("registry.test/web:v1", "registry.test/helper:v1")
    found = deployment(V2, replicas=1)
    old = replica_set(found, both, 1)
    snapshot = cluster([node("n0")], [pod(old, "p0")], [found], [old])
    assert demand_of(snapshot).images == ("registry.test/web:v2",)


def test_a_container_that_the_new_template_brings_itself_is_the_templates() -> None:
    own = PodTemplate(
        V2.labels, replace(V2.shape, containers=(*V2.shape.containers, replace(PROXY, image="x.test/p:v9")))
    )
    demand = demand_of(rolling((PROXY,), (PROXY,), now_wanted=own))
    assert "registry.test/mesh:v1" not in demand.images
    assert "x.test/p:v9" in demand.images


def test_excluded_containers_stay_excluded() -> None:
    annotations = {"prewarm.dev/enabled": "true", "prewarm.dev/exclude-containers": "proxy"}
    demand = demand_of(rolling((PROXY,), (PROXY,), annotations=annotations))
    assert demand.images == ("registry.test/web:v2",)
    assert demand.injected == ()


def test_only_so_many_count() -> None:
    many = tuple(ContainerShape(f"s{number:02d}", f"registry.test/s{number:02d}:v1") for number in range(40))
    assert len(demand_of(rolling(many, many)).injected) == MAX_INJECTED


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_pods_without_a_replica_set_tell_once_one_is_of_the_new_revision(kind: str) -> None:
    key = WorkloadKey(kind, "shop", "web")
    found = deployment(V2, replicas=2, key=key)
    before = replace(found, template=V1)
    old = pod(before, "web-0", ContainerShape("dropped", "registry.test/dropped:v1"))
    new = pod(found, "web-1", PROXY, created_at=400.0, node_name="n1")
    nodes = [node("n0"), node("n1"), node("n2")]
    assert demand_of(cluster(nodes, [old], [found]), key).injected == ()
    assert demand_of(cluster(nodes, [old, new], [found]), key).injected == ("registry.test/mesh:v1",)


def test_a_job_that_ended_tells_what_the_next_run_needs() -> None:
    key = WorkloadKey("Job", "shop", "report")
    job = deployment(V1, replicas=1, key=key, paused=True)
    snapshot = cluster([node("n0")], [pod(job, "report-a", PROXY, phase=PodPhase.SUCCEEDED)], [job])
    asked = replace(snapshot, asked=frozenset({key}))
    assert demand_of(asked, key).injected == ("registry.test/mesh:v1",)


def test_pods_that_change_in_place_keep_the_sidecar_that_they_have() -> None:
    key = WorkloadKey("CloneSet", "shop", "web")
    found = deployment(V2, replicas=2, key=key, in_place=InPlace.ONLY, max_unavailable=1)
    old = pod(replace(found, template=V1), "web-0", PROXY)
    newer = pod(found, "web-1", replace(PROXY, image="registry.test/mesh:v2"), created_at=900.0)
    demand = demand_of(cluster([node("n0")], [old, newer], [found]), key)
    assert demand.is_fixed
    assert demand.injected == ()


def test_the_sidecar_is_pulled_where_the_next_pods_land_and_nowhere_else() -> None:
    snapshot = rolling((PROXY,), (PROXY,), paused=True)
    # Somebody else's pods brought the sidecar to a node where no pod of this workload can come.
    far = replace(node("far"), unschedulable=True, labels={"kubernetes.io/hostname": "far"})
    there = NodeImages("far", far.uid, far.boot_id, (PresentImage("registry.test/mesh:v1", Evidence.OUR_PULL, 990.0),))
    snapshot = replace(snapshot, nodes={**snapshot.nodes, "far": far}, node_images={"far": there})
    (entry,) = plan(snapshot, History()).demands
    assert entry.nodes
    assert "registry.test/mesh:v1" in entry.nodes[0].missing
    assert "far" not in {found.name for found in entry.nodes}


def test_extended_resources_of_the_template_stay() -> None:
    shape = replace(V2.shape, requests=Resources(milli_cpu=500, extended=(("example.com/gpu", 1),)))
    demand = demand_of(rolling((PROXY,), (PROXY,), now_wanted=PodTemplate(V2.labels, shape)))
    assert demand.template.shape.requests.extended == (("example.com/gpu", 1),)
