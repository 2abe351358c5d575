"""What holds of what a rollout replaces and of canaries beside it, whatever the cluster looks like."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.demand import demands, previous_demands
from prewarm.demand.plain_canary import MAX_CANARIES
from prewarm.demand.previous import MAX_REVISIONS
from prewarm.history import History
from prewarm.model.image_caches import Canaries, Policy
from prewarm.model.plans import SkipReason, Trigger
from prewarm.model.pods import OwnerReference, Pod, PodPhase, PodTemplate
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, shape

HOLDS = Policy(hold_seconds=600.0)
TRIES = Policy(canaries=Canaries(LabelSelector(match_labels=(("track", "canary"),)), "app"))
NODES = [node(f"n{number}") for number in range(6)]
VERSIONS = st.integers(1, 5)


def made_of(version: int, track: str = "stable") -> PodTemplate:
    return PodTemplate({"app": "web", "track": track}, shape(f"registry.test/web:v{version}", "registry.test/same:v1"))


@st.composite
def some_pods(draw: st.DrawFn, made: Workload) -> list[Pod]:
    return [
        Pod(
            "shop",
            f"{made.key.name}-{number}",
            f"uid-{made.key.name}-{number}",
            node_name=draw(st.sampled_from(("", *(found.name for found in NODES)))),
            labels=made.template.labels,
            owner=OwnerReference("ReplicaSet", made.key.name, made.uid),
            shape=made.template.shape,
            phase=PodPhase.RUNNING,
            created_at=400.0,
            ready_at=draw(st.sampled_from((None, 500.0))),
            deleted_at=draw(st.sampled_from((None, None, 1005.0))),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[list[Workload], list[Workload], list[Pod]]:
    web = deployment(made_of(draw(VERSIONS)), replicas=draw(st.integers(0, 4)), paused=draw(st.booleans()))
    sets = [replica_set(web, made_of(version), 1) for version in draw(st.sets(VERSIONS))]
    workloads = [web]
    for number in range(draw(st.integers(0, 4))):
        key = WorkloadKey("Deployment", "shop", f"canary-{number}")
        track = draw(st.sampled_from(("canary", "stable")))
        found = deployment(made_of(draw(VERSIONS), track), replicas=draw(st.integers(0, 2)), key=key, annotations={})
        workloads.append(found)
        sets.append(replica_set(found, found.template, found.replicas))
    return workloads, sets, [pod for made in sets for pod in draw(some_pods(made))]


def snapshot(parts: tuple[list[Workload], list[Workload], list[Pod]]) -> ClusterSnapshot:
    workloads, sets, pods = parts
    return cluster(NODES, pods, workloads, sets)


@settings(max_examples=80, deadline=None)
@given(rollouts(), st.randoms(use_true_random=False))
def test_what_is_replaced_stays_where_it_ran(
    parts: tuple[list[Workload], list[Workload], list[Pod]], random: Random
) -> None:
    found = snapshot(parts)
    kept = previous_demands(found, WEB, HOLDS, frozenset())
    wanted = set(parts[0][0].template.shape.images)
    ran = {(image, pod.node_name) for pod in parts[2] for image in pod.shape.images if pod.node_name}
    assert len(kept) <= MAX_REVISIONS
    assert len({demand.revision for demand in kept}) == len(kept)
    for demand in kept:
        assert demand.trigger is Trigger.ROLLBACK
        assert wanted.isdisjoint(demand.images)
        assert demand.is_fixed
        assert {(image, name) for batch in demand.batches for name in batch.nodes for image in demand.images} <= ran
    for part in parts:
        random.shuffle(part)
    assert previous_demands(snapshot(parts), WEB, HOLDS, frozenset()) == kept


@settings(max_examples=80, deadline=None)
@given(rollouts(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_what_canaries_announce_is_theirs_alone(
    parts: tuple[list[Workload], list[Workload], list[Pod]], ready: int, random: Random
) -> None:
    policy = replace(TRIES, min_updated_ready_pods=ready)
    found = demands(snapshot(parts), WEB, policy, History())
    on_trial = [made for made in parts[0][1:] if made.template.labels["track"] == "canary" and made.replicas]
    images = {image for made in on_trial for image in made.template.shape.images}
    announced = [demand for demand in found if demand.trigger is Trigger.ANNOUNCED]
    assert len(announced) <= MAX_CANARIES
    for demand in announced:
        assert set(demand.images) <= images
        assert demand.withheld in {None, SkipReason.CANARY_UNPROVEN}
    for part in parts:
        random.shuffle(part)
    assert demands(snapshot(parts), WEB, policy, History()) == found
