"""ResourceQuotas and LimitRanges from the API server's JSON into snapshots."""

import json

import pytest

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.model.intents import DEPLOYMENTS, LIMIT_RANGES, RESOURCE_QUOTAS, Resource
from prewarm.model.quotas import Limit, LimitType, ScopeMatch
from prewarm.model.workloads import WorkloadKey


def put(store: Store, resource: Resource, **fields: object) -> None:
    feed = next(feed for feed in feeds(store) if feed.resource == resource)
    feed.put_raw(
        json.dumps({"metadata": {"namespace": "shop", "name": "x", "resourceVersion": "1"}, **fields}).encode()
    )


def test_quota_is_read_as_the_server_enforces_it() -> None:
    store = Store()
    hard = {"pods": "10", "requests.cpu": "1500m", "limits.memory": "2Gi", "services": "3"}
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["low"]}]}
    put(
        store,
        RESOURCE_QUOTAS,
        spec={"hard": {"pods": "20"}, "scopes": ["NotTerminating"], "scopeSelector": selector},
        status={"hard": hard, "used": {"pods": "4", "requests.cpu": "1"}},
    )
    (quota,) = store.snapshot(0.0).quotas["shop"]
    assert quota.hard == {"pods": 10, "requests.cpu": 1500, "limits.memory": 2 << 30}
    assert quota.used == {"pods": 4, "requests.cpu": 1000}
    assert quota.scopes == (ScopeMatch("NotTerminating"), ScopeMatch("PriorityClass", "In", ("low",)))
    assert store.changed().quotas == {"shop"}


def test_limits_of_containers_and_pods_are_read() -> None:
    store = Store()
    item = {
        "type": "Container",
        "min": {"cpu": "20m"},
        "max": {"memory": "1Gi"},
        "maxLimitRequestRatio": {"cpu": "2.5"},
    }
    claims = {"type": "PersistentVolumeClaim", "max": {"storage": "1Ti"}}
    put(store, LIMIT_RANGES, spec={"limits": [item, claims]})
    (found,) = store.snapshot(0.0).limit_ranges["shop"]
    assert found.limits == (Limit(LimitType.CONTAINER, {"cpu": 20}, {"memory": 1 << 30}, {"cpu": 2.5}),)


@pytest.mark.parametrize(("status", "expected"), [("True", "pods is forbidden: exceeded quota"), ("False", "")])
def test_workload_says_that_its_pods_are_refused(status: str, expected: str) -> None:
    store = Store()
    condition = {"type": "ReplicaFailure", "status": status, "message": "pods is forbidden: exceeded quota"}
    put(store, DEPLOYMENTS, spec={"template": {}}, status={"conditions": [condition]})
    assert store.snapshot(0.0).workloads[WorkloadKey("Deployment", "shop", "x")].replica_failure == expected
