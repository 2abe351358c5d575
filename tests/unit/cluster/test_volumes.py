"""PersistentVolumes and their claims from the API server's JSON into snapshots."""

import json

from prewarm.cluster.feeds import feeds
from prewarm.cluster.store import Store
from prewarm.model.intents import STATEFUL_SETS, VOLUME_CLAIMS, VOLUMES, Resource
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.model.volumes import Volume
from prewarm.model.workloads import WorkloadKey


def put(store: Store, resource: Resource, metadata: dict[str, object], **fields: object) -> None:
    feed = next(feed for feed in feeds(store) if feed.resource == resource)
    feed.put_raw(json.dumps({"metadata": {"resourceVersion": "1", **metadata}, **fields}).encode())


def test_a_bound_claim_leads_to_its_volume() -> None:
    store = Store()
    host = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}
    put(
        store,
        VOLUMES,
        {"name": "pv-1", "labels": {"topology.kubernetes.io/zone": "b__a", "tier": "fast"}},
        spec={
            "local": {"path": "/data"},
            "claimRef": {"namespace": "shop", "name": "data-db-0"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
        },
    )
    assert store.changed().namespaces == {"shop"}
    put(store, VOLUME_CLAIMS, {"namespace": "shop", "name": "data-db-0"}, spec={"volumeName": "pv-1"})
    assert store.changed().namespaces == {"shop"}
    put(store, VOLUME_CLAIMS, {"namespace": "shop", "name": "data-db-1"}, spec={})
    assert not store.changed().namespaces

    term = NodeSelectorTerm((Requirement("kubernetes.io/hostname", Operator.IN, ("n1",)),))
    volume = Volume("pv-1", (term,), (("topology.kubernetes.io/zone", ("a", "b")),), "shop")
    found = store.snapshot(0.0)
    assert found.bound_volumes("shop", ("data-db-0", "data-db-1", "unknown")) == (volume,)
    assert found.bound_volumes("other", ("data-db-0",)) == ()


def test_claim_templates_of_a_stateful_set_are_read() -> None:
    store = Store()
    templates = [{"metadata": {"name": "data"}, "spec": {}}, {"metadata": {"name": "log"}}]
    put(store, STATEFUL_SETS, {"namespace": "shop", "name": "db"}, spec={"volumeClaimTemplates": templates})
    found = store.snapshot(0.0).workloads[WorkloadKey("StatefulSet", "shop", "db")]
    assert found.claim_templates == ("data", "log")
