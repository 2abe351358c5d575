"""A canary that is a Deployment of its own: others with its label get its images, once it has proved healthy."""

from typing import Any

import pytest
from msgspec.structs import replace

from prewarm.demand import demands
from prewarm.demand.plain_canary import MAX_CANARIES
from prewarm.history import History
from prewarm.model.image_caches import Canaries, Policy
from prewarm.model.plans import Demand, SkipReason, Trigger
from prewarm.model.pods import ContainerStatus, OwnerReference, Pod, PodPhase, PodTemplate
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Autoscaler, Workload, WorkloadKey
from prewarm.planning import plan
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, shape

CANARIES = Policy(canaries=Canaries(LabelSelector(match_labels=(("track", "canary"),)), "app"))
CANARY = WorkloadKey("Deployment", "shop", "web-canary")


def labelled(*images: str, track: str) -> PodTemplate:
    return PodTemplate({"app": "web", "track": track}, shape(*images))


def pods_of(made: Workload, count: int, first: int = 0, **fields: Any) -> list[Pod]:
    values: dict[str, Any] = {"phase": PodPhase.RUNNING, "created_at": 500.0, "ready_at": 510.0, **fields}
    return [
        Pod(
            "shop",
            f"{made.key.name}-{number}",
            f"uid-{made.key.name}-{number}",
            node_name=f"n{first + number}",
            labels=made.template.labels,
            owner=OwnerReference("ReplicaSet", made.key.name, made.uid),
            shape=made.template.shape,
            **values,
        )
        for number in range(count)
    ]


def shop(image: str = "registry.test/web:v2", *, replicas: int = 2, ready: int = 2, **fields: Any) -> ClusterSnapshot:
    """Four pods of v1, and a canary with another image of which so many pods are ready; fields are the canary's."""
    stable = deployment(labelled("registry.test/web:v1", track="stable"), replicas=4)
    values: dict[str, Any] = {"annotations": {}, **fields}
    canary = deployment(labelled(image, track="canary"), replicas=replicas, key=CANARY, **values)
    sets = [replica_set(stable, stable.template, 4), replica_set(canary, canary.template, replicas)]
    on_trial = pods_of(sets[1], replicas, 4)
    pods = [*pods_of(sets[0], 4), *on_trial[:ready], *(replace(pod, ready_at=None) for pod in on_trial[ready:])]
    return cluster([node(f"n{n}") for n in range(8)], pods, [stable, canary], sets, policies=[CANARIES])


def wanted(snapshot: ClusterSnapshot, policy: Policy = CANARIES, key: WorkloadKey = WEB) -> tuple[Demand, ...]:
    return demands(snapshot, key, policy, History())


def test_the_stable_deployments_rollout_to_the_canarys_image_is_announced() -> None:
    (demand,) = wanted(shop())
    assert (demand.trigger, demand.images, demand.pods) == (Trigger.ANNOUNCED, ("registry.test/web:v2",), 4)
    assert demand.workload == WEB
    assert demand.withheld is None
    (entry,) = plan(shop(), History()).demands
    assert any(found.missing for found in entry.nodes)


def test_without_the_policys_word_nobody_is_a_canary() -> None:
    assert wanted(shop(), Policy()) == ()


def test_the_canary_itself_needs_nothing_of_this() -> None:
    assert wanted(shop(), key=CANARY) == ()


@pytest.mark.parametrize(
    ("asked", "ready", "proven"),
    [(0, 1, False), (0, 2, True), (1, 0, False), (1, 1, True), ("50%", 1, True), ("100%", 1, False), (9, 2, True)],
)
def test_it_spreads_once_as_many_of_its_pods_are_ready_as_the_policy_asks_for(
    asked: int | str, ready: int, proven: bool
) -> None:
    (demand,) = wanted(shop(ready=ready), replace(CANARIES, min_updated_ready_pods=asked))
    assert demand.withheld is (None if proven else SkipReason.CANARY_UNPROVEN)


def test_a_pod_that_fails_keeps_it_back() -> None:
    snapshot = shop(ready=1)
    crashed = ContainerStatus("c0", reason="CrashLoopBackOff", restart_count=3)
    pods = {
        key: pod if pod.ready_at is not None else replace(pod, containers=(crashed,))
        for key, pod in snapshot.pods.items()
    }
    owned = {uid: {key: pods[key] for key in group} for uid, group in snapshot.pods_by_owner.items()}
    failing = replace(snapshot, pods=pods, pods_by_owner=owned)
    (demand,) = wanted(failing, replace(CANARIES, min_updated_ready_pods=1))
    assert demand.withheld is SkipReason.CANARY_UNPROVEN


@pytest.mark.parametrize(
    "snapshot",
    [
        shop(replicas=0, ready=0),
        shop("registry.test/web:v1"),
        shop(deleted_at=999.0),
        replace(shop(), deployments_by_namespace={}),
        shop("not an image!"),
    ],
    ids=["scaled to zero", "back at stable's image", "going", "gone", "unreadable"],
)
def test_it_ends_with_the_canary(snapshot: ClusterSnapshot) -> None:
    assert wanted(snapshot) == ()


@pytest.mark.parametrize("app", ["other", None])
def test_another_value_of_the_shared_label_is_another_matter(app: str | None) -> None:
    snapshot = shop()
    canary = snapshot.workloads[CANARY]
    labels = {"track": "canary", **({} if app is None else {"app": app})}
    other = replace(canary, template=replace(canary.template, labels=labels))
    assert wanted(replace(snapshot, deployments_by_namespace={"shop": {CANARY: other}})) == ()


def test_labels_of_the_deployment_itself_count_too() -> None:
    snapshot = shop()
    canary = snapshot.workloads[CANARY]
    bare = replace(canary, labels={"app": "web", "track": "canary"}, template=replace(canary.template, labels={}))
    (demand,) = wanted(replace(snapshot, deployments_by_namespace={"shop": {CANARY: bare}}))
    assert demand.images == ("registry.test/web:v2",)


def test_a_rollout_of_the_stable_deployment_goes_first() -> None:
    snapshot = shop()
    stable = snapshot.workloads[WEB]
    changed = replace(stable, template=labelled("registry.test/web:v3", track="stable"), template_hash="v3")
    (demand,) = wanted(replace(snapshot, workloads={**snapshot.workloads, WEB: changed}))
    assert (demand.trigger, demand.images) == (Trigger.ROLLOUT, ("registry.test/web:v3",))


def test_the_next_scale_out_is_needed_all_the_same() -> None:
    snapshot = replace(shop(), autoscalers={WEB: Autoscaler("shop", "web", "uid-hpa", WEB, max_replicas=20)})
    assert [demand.trigger for demand in wanted(snapshot)] == [Trigger.ANNOUNCED, Trigger.SCALE_OUT]


def test_of_many_canaries_the_first_by_name_are_followed() -> None:
    snapshot = shop()
    canary = snapshot.workloads[CANARY]
    many = {}
    for number in range(5):
        key = WorkloadKey("Deployment", "shop", f"canary-{number}")
        many[key] = replace(canary, key=key, template=labelled(f"registry.test/web:v{number + 2}", track="canary"))
    found = wanted(replace(snapshot, deployments_by_namespace={"shop": many}))
    assert [demand.images for demand in found] == [("registry.test/web:v2",), ("registry.test/web:v3",)]
    assert len(found) == MAX_CANARIES
