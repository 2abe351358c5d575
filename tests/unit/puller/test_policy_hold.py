"""A policy's hold from the plan to the node's disk: what is warmed outlives garbage collection until it is through."""

from msgspec.structs import replace

from prewarm.api.policy import decode_policy
from prewarm.delivery import deliver
from prewarm.model.image_caches import Policy
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.planning import plan
from prewarm.simulation.specs import NodeProfile, Timings
from tests.support.clusters import cluster, deployment, node, template
from tests.support.plans import applied
from tests.support.pulling import MB, World, registries

OLD, NEW = "registry.test/shop:v1", "registry.test/shop:v2"
NODES = ("n0", "n1")


def policy(**spec: object) -> Policy:
    return decode_policy({"metadata": {"name": "default"}, "spec": spec})


def world() -> World:
    """Nodes whose disks the old image, in use, fills by less than a half, and the new one beyond that.

    Each image takes twice its size there, the helper's included: that is too little for disk pressure.
    """
    made = World(registries({OLD: 200 * MB, NEW: 200 * MB}))
    timings = Timings(image_list=2.0, node_status=2.0)
    for name in NODES:
        made.nodes[name] = node(name)
        collects = {"gc_high_percent": 50, "gc_low_percent": 45, "gc_minimum_age": 2.0, "gc_period": 2.0}
        made.fleet.add_node(NodeProfile(name, bandwidth=100e6, image_disk=1.2e9, timings=timings, **collects))  # type: ignore[arg-type]
        container = {"name": "app", "image": OLD}
        spec = {"nodeName": name, "priority": 1, "containers": [container]}
        made.add_pod({"metadata": {"namespace": "shop", "name": f"old-{name}"}, "spec": spec})
    made.run(20)
    return made


def warm(found: World, of: Policy) -> None:
    """Write what delivery writes for a paused Deployment with a new image: all its pods are to come."""
    ahead = deployment(template(NEW), replicas=2, paused=True)
    seen = cluster(list(found.nodes.values()), workloads=[ahead], policies=[of], now=found.now)
    made = plan(seen, found.history)
    after: ClusterSnapshot = applied(seen, deliver(made, seen))
    (cache,) = after.image_caches.values()
    assert set(cache.lists[0].node_names or ()) == set(NODES)
    found.add_cache(cache)


def test_what_a_policy_holds_outlives_garbage_collection_until_its_cache_goes() -> None:
    found = world()
    warm(found, policy(hold="1h"))
    found.run(120)
    assert found.pulls_of(NEW) == dict.fromkeys(NODES, 1)
    # The rollout is over: delivery takes the cache away, and with it go the pods that hold.
    found.caches.clear()
    found.run(30)
    assert not found.snapshot().puller_pods
    assert all(NEW not in image.names for name in NODES for image in found.nodes[name].images)


def test_without_a_hold_the_same_image_goes_and_is_pulled_again() -> None:
    found = world()
    warm(found, policy())
    found.run(120)
    assert min(found.pulls_of(NEW).values()) > 1


def test_a_hold_that_the_policy_takes_away_ends_at_once() -> None:
    found = world()
    warm(found, policy(hold="1h"))
    found.run(60)
    (cache,) = found.caches.values()
    found.caches[cache.key] = replace(cache, hold_seconds=None, generation=cache.generation + 1)
    found.run(60)
    assert min(found.pulls_of(NEW).values()) > 1
