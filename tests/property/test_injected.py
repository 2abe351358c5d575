"""What holds of injected containers, whatever pods a workload has."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.demand.injected import MAX_INJECTED
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.pods import ContainerKind, ContainerShape, OwnerReference, Pod, PodPhase
from prewarm.model.workloads import Workload
from tests.support.clusters import ENABLED, WEB, cluster, deployment, node, replica_set, template

V1, V2 = template("registry.test/web:v1"), template("registry.test/web:v2")
KINDS = st.sampled_from((ContainerKind.MAIN, ContainerKind.INIT, ContainerKind.SIDECAR, ContainerKind.IMAGE_VOLUME))
CONTAINERS = st.lists(
    st.builds(
        ContainerShape,
        name=st.sampled_from([f"s{number}" for number in range(24)] + ["c0"]),
        image=st.sampled_from([f"registry.test/s:v{number}" for number in range(30)] + ["registry.test/web:v2", "?"]),
        kind=KINDS,
    ),
    max_size=24,
    unique_by=lambda container: container.name,
)


@st.composite
def pods(draw: st.DrawFn, made: Workload) -> list[Pod]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        shape = made.template.shape
        added = [container for container in draw(CONTAINERS) if container.name != "c0"]
        found.append(
            Pod(
                "shop",
                f"{made.key.name}-{number}",
                f"uid-{made.key.name}-{number}",
                "n0",
                labels=made.template.labels,
                owner=OwnerReference("ReplicaSet", made.key.name, made.uid),
                shape=replace(shape, containers=(*shape.containers, *added)),
                phase=draw(st.sampled_from((PodPhase.RUNNING, PodPhase.PENDING, PodPhase.SUCCEEDED))),
                created_at=draw(st.sampled_from((100.0, 200.0, 300.0))),
            )
        )
    return found


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sets(st.sampled_from([f"s{number}" for number in range(24)])), st.randoms(use_true_random=False))
def test_bounded_never_excluded_and_the_same_in_any_order(
    data: st.DataObject, excluded: set[str], random: Random
) -> None:
    annotations = {**ENABLED, "prewarm.dev/exclude-containers": ",".join(sorted(excluded))}
    found = deployment(V2, replicas=3, annotations=annotations)
    sets = [replica_set(found, V1, 2), replica_set(found, V2, 1)]
    there = [pod for made in sets for pod in data.draw(pods(made))]
    snapshot = cluster([node("n0"), node("n1")], there, [found], sets)
    made = demands(snapshot, WEB, Policy(), History())
    for demand in made:
        names: dict[str, set[str]] = {container.image: set() for container in demand.template.shape.containers}
        for container in demand.template.shape.containers:
            names[container.image].add(container.name)
        assert len(demand.injected) <= MAX_INJECTED
        assert set(demand.injected) <= set(demand.images)
        assert "registry.test/web:v2" in demand.images
        assert all(names[image] - excluded for image in demand.images)
    random.shuffle(there)
    assert demands(cluster([node("n0"), node("n1")], there, [found], sets), WEB, Policy(), History()) == made
