"""What pullers leave of quotas, what they request within LimitRanges, and the pod slots that they leave."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.intents import Create
from prewarm.model.pods import Pod, PodPhase, PodShape, PodTemplate, Resources
from prewarm.model.quotas import Limit, LimitRange, LimitType, ResourceQuota, ScopeMatch
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.puller import PullerMemory, PullerSettings, reconcile
from prewarm.puller.quota import concerns_puller
from prewarm.puller.resources import USUAL, resources_within
from tests.support.clusters import cluster, node

NODES = [node(f"n{index}") for index in range(8)]
CACHE = ImageCache("shop", "warm", "uid-warm", 1, (ImageList(("registry.test/app:v1",)),), created_at=1.0)


def quota(hard: Mapping[str, int], used: Mapping[str, int], *scopes: ScopeMatch) -> ResourceQuota:
    return ResourceQuota("shop", "compute", hard, used, scopes)


def workload(name: str = "web", *, replicas: int = 4, **fields: object) -> Workload:
    values: dict[str, object] = {
        "status_replicas": replicas,
        "updated_replicas": replicas,
        "max_surge": 1,
        "template": PodTemplate(shape=PodShape(requests=Resources(500, 1 << 30), limits=Resources(1000, 2 << 30))),
        **fields,
    }
    return Workload(WorkloadKey("Deployment", "shop", name), f"uid-{name}", replicas=replicas, **values)  # type: ignore[arg-type]


def snapshot(quotas: tuple[ResourceQuota, ...], *workloads: Workload, **fields: object) -> ClusterSnapshot:
    made = cluster(NODES, workloads=workloads, image_caches=[CACHE])
    return replace(made, quotas={"shop": quotas}, **fields)


def ordered(found: ClusterSnapshot, memory: PullerMemory | None = None) -> int:
    decision = reconcile(found, PullerSettings(), History(), memory or PullerMemory())
    return sum(isinstance(intent, Create) for intent in decision.intents)


def withheld(found: ClusterSnapshot) -> dict[str, int]:
    decision = reconcile(found, PullerSettings(), History(), PullerMemory())
    return {reason.value: count for reason, count in decision.withheld.items()}


@pytest.mark.parametrize(
    ("quotas", "workloads", "expected"),
    [
        # Nothing but us: all that fits.
        ((quota({"pods": 5}, {"pods": 2}),), (), 3),
        # The largest surge of one rollout that may begin stays free.
        ((quota({"pods": 10}, {"pods": 4}),), (workload(), workload("api", max_surge=3)), 3),
        # Pods that are missing are coming, and a rollout under way adds its surge.
        ((quota({"pods": 10}, {"pods": 2}),), (workload(status_replicas=2, max_surge=0),), 6),
        ((quota({"pods": 10}, {"pods": 4}),), (workload(updated_replicas=0, max_surge=4),), 2),
        # Requests and limits count as pods do: a pod of ours requests 20m here, 200m is its limit.
        ((quota({"requests.cpu": 1000}, {"requests.cpu": 440}),), (workload(),), 3),
        ((quota({"limits.memory": 3 << 30}, {}),), (workload(),), 8),
        ((quota({"limits.memory": (2 << 30) + (256 << 20)}, {}),), (workload(),), 2),
        # A quota that does not concern us.
        ((quota({"pods": 1}, {"pods": 1}, ScopeMatch("BestEffort")),), (), 8),
        # One that concerns us alone, as workloads have no deadline.
        ((quota({"pods": 2}, {}, ScopeMatch("Terminating")),), (workload(),), 2),
        # What cannot be at all is left to the server's words.
        ((quota({"pods": 0}, {}),), (), 8),
    ],
)
def test_pods_ordered_at_once(
    quotas: tuple[ResourceQuota, ...], workloads: tuple[Workload, ...], expected: int
) -> None:
    found = snapshot(quotas, *workloads)
    assert ordered(found) == expected
    if expected < len(NODES):
        assert withheld(found) == {"QuotaHeadroom": len(NODES) - expected}


def test_orders_on_their_way_count() -> None:
    memory = PullerMemory()
    found = snapshot((quota({"pods": 5}, {}),))
    assert ordered(found, memory) == 5
    assert ordered(found, memory) == 0


def test_pullers_yield_while_the_quota_refuses_the_workloads_own_pods() -> None:
    refused = workload(replica_failure='pods "web-x" is forbidden: exceeded quota: compute, requested: pods=1')
    assert ordered(snapshot((quota({"pods": 100}, {"pods": 4}),), refused)) == 0
    other = workload(replica_failure='pods "web-x" is forbidden: violates PodSecurity "restricted"')
    assert ordered(snapshot((quota({"pods": 100}, {"pods": 4}),), other)) == 8


@pytest.mark.parametrize(
    ("scopes", "priority_class", "expected"),
    [
        ((ScopeMatch("NotBestEffort"), ScopeMatch("Terminating")), "", True),
        ((ScopeMatch("NotTerminating"),), "", False),
        ((ScopeMatch("PriorityClass", "In", ("low",)),), "low", True),
        ((ScopeMatch("PriorityClass", "In", ("low",)),), "", False),
        ((ScopeMatch("PriorityClass", "NotIn", ("high",)),), "low", True),
        ((ScopeMatch("PriorityClass", "Exists"),), "", False),
        ((ScopeMatch("PriorityClass", "DoesNotExist"),), "", True),
        ((ScopeMatch("CrossNamespacePodAffinity", "Exists"),), "", False),
    ],
)
def test_scopes(scopes: tuple[ScopeMatch, ...], priority_class: str, expected: bool) -> None:
    assert concerns_puller(ResourceQuota("shop", "q", scopes=scopes), priority_class) is expected


def test_last_pod_slots_are_left_to_pods_that_wait() -> None:
    running = [
        Pod("shop", f"p{index}", f"u{index}", "n0", phase=PodPhase.RUNNING, shape=PodShape()) for index in range(3)
    ]
    waiting = [Pod("shop", f"w{index}", f"w{index}") for index in range(20)]
    small = replace(NODES[0], max_pods=6)
    full = cluster([small], [*running, *waiting], image_caches=[CACHE])
    assert withheld(full) == {"NoRoom": 1}
    assert ordered(cluster([small], [*running, waiting[0]], image_caches=[CACHE])) == 1


def test_usual_requests_where_nothing_is_said() -> None:
    assert resources_within((), (), 2) == USUAL


def test_quota_on_ephemeral_storage_is_named() -> None:
    found = resources_within((), (quota({"limits.ephemeral-storage": 1 << 30}, {}),), 2)
    assert found.limits["ephemeral-storage"] > 0
    assert found.requests["ephemeral-storage"] > 0


AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), st.integers(1, 2**31))
RATIOS = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.floats(1, 20))
LIMITS = st.builds(Limit, st.sampled_from(LimitType), AMOUNTS, AMOUNTS, RATIOS)


@given(st.lists(LIMITS, max_size=3), st.integers(1, 6))
def test_limit_ranger_accepts_what_can_be_accepted(limits: list[Limit], containers: int) -> None:
    found = resources_within([LimitRange("shop", "limits", tuple(limits))], (), containers)
    for name in ("cpu", "memory", "ephemeral-storage"):
        shares = [containers if limit.type is LimitType.POD else 1 for limit in limits]
        least = max(
            (-(-limit.minimum.get(name, 0) // share) for limit, share in zip(limits, shares, strict=True)), default=0
        )
        most = min(
            (
                limit.maximum[name] // share
                for limit, share in zip(limits, shares, strict=True)
                if name in limit.maximum
            ),
            default=2**62,
        )
        if name not in found.requests or least > most:
            continue
        request, most_used = found.requests[name], found.limits[name]
        assert least <= request <= most_used <= most
        for limit in limits:
            if name in limit.ratio and request:
                assert most_used / request <= limit.ratio[name] + 1e-9
