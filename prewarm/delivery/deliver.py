"""From a plan to what is to be written: ImageCaches that are new or changed, and those that go."""

from collections.abc import Collection, Iterator, Mapping

from prewarm.api.image_cache import image_cache_manifest
from prewarm.api.names import LABEL_CACHE_UID
from prewarm.api.plan_annotation import decode_summary
from prewarm.delivery.memory import DeliveryMemory
from prewarm.delivery.planned_cache import cache_key, planned_cache
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import IMAGE_CACHES, Apply, Delete, Intent
from prewarm.model.nodes import pull_identity
from prewarm.model.plans import DemandPlan, Plan, Trigger
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import WorkloadKey
from prewarm.presence import Warmth, warmth

NEEDED_BY_TOLERANCE_SECONDS = 30.0
"""neededBy is rewritten only if the images are needed this much earlier: it orders pulls, a later need harms none."""


def deliver(
    plan: Plan,
    snapshot: ClusterSnapshot,
    *,
    only: Collection[WorkloadKey] | None = None,
    memory: DeliveryMemory | None = None,
) -> tuple[Intent, ...]:
    """ImageCaches to apply and to delete so that the cluster says what the plan says; nothing where it does already.

    A cache is written once a demand misses an image somewhere, and stays until the demand is over: the rollout ended
    or was superseded, the workload opted out, went, or came under a policy that only watches (Shadow) or does nothing.
    What a rollback would need is there: its cache is written to hold it.
    Hand-written caches are never touched, not even under a planned one's name.

    Nodes come and go with each plan, since pods land and predictions move. What keeps waste low: a node that fell out
    of the plan leaves the cache while nothing was pulled there, since a pull not begun is a pull saved; it stays once
    it is warm or a puller runs there, since such a pull cannot be taken back, costs nothing more, and keeps its
    evidence. An object is rewritten when a node or image comes or goes, not when only their order or probabilities
    change: a rollout changes those with every pod.

    Args:
        plan: what is worth pulling. Demands asked for by a person (what-if) are not delivered.
        snapshot: the cluster that the plan was made on.
        only: workloads whose caches are looked at; by default those that the plan speaks for. Caches whose owner is
            gone are deleted in any case.
        memory: kept by the caller from one call to the next, so that writes not yet visible are not repeated.
    """
    memory = memory if memory is not None else DeliveryMemory()
    in_force = memory.in_force(snapshot)
    spoken_for = plan.only if only is None else only
    wanted = {
        cache_key(entry.demand): entry
        for entry in plan.demands
        if _is_delivered(entry, snapshot) and (spoken_for is None or entry.demand.workload in spoken_for)
    }
    intents: list[Intent] = []
    kept: set[ObjectKey] = set()
    known = warmth(snapshot)
    for key, entry in sorted(wanted.items()):
        cache = _cache(entry, in_force.get(key), snapshot, known)
        if cache is None:
            continue
        kept.add(key)
        if needs_write(in_force.get(key), cache):
            memory.remember(key, cache, snapshot)
            intents.append(Apply(IMAGE_CACHES, cache.namespace, cache.name, image_cache_manifest(cache)))
    names = None if spoken_for is None else {str(workload) for workload in spoken_for}
    for cache in _withdrawn(in_force, kept, names, snapshot):
        memory.remember(cache.key, None, snapshot)
        intents.append(Delete(IMAGE_CACHES, cache.namespace, cache.name, uid=cache.uid))
    return tuple(intents)


def _is_delivered(entry: DemandPlan, snapshot: ClusterSnapshot) -> bool:
    workload = snapshot.workloads.get(entry.demand.workload)
    return (
        not entry.shadow
        and entry.demand.trigger is not Trigger.WHAT_IF
        and workload is not None
        and workload.deleted_at is None
        and workload.uid == entry.demand.workload_uid
    )


def _cache(
    entry: DemandPlan, current: ImageCache | None, snapshot: ClusterSnapshot, known: Warmth
) -> ImageCache | None:
    """What a demand's cache should say; None if there should be none."""
    if current is not None and (not current.planned or current.deleted_at is not None):
        return None
    # Behind a gate, what draws the pods is said by the ImageCache, also where all is there already.
    to_do = entry.drawn or entry.demand.trigger is Trigger.ROLLBACK or any(node.missing for node in entry.nodes)
    if current is None and not to_do:
        return None
    api_version = snapshot.workloads[entry.demand.workload].api_version
    return planned_cache(entry, api_version, () if current is None else _staying(current, snapshot, known))


def _staying(current: ImageCache, snapshot: ClusterSnapshot, known: Warmth) -> Iterator[str]:
    """Nodes of the cache in force on which its pulls are done or under way, in its order."""
    active = {
        pod.node_name
        for pod in snapshot.puller_pods.values()
        if current.uid and pod.labels.get(LABEL_CACHE_UID) == current.uid and not pod.finished
    }
    identity = pull_identity(current.namespace, current.service_account, current.pull_secrets)
    for entry in current.lists:
        for name in entry.node_names or ():
            if name not in snapshot.nodes:
                continue
            if name in active or all(known.is_warm(name, image, pull_identity=identity) for image in entry.images):
                yield name


def _withdrawn(
    in_force: Mapping[ObjectKey, ImageCache],
    kept: Collection[ObjectKey],
    names: Collection[str] | None,
    snapshot: ClusterSnapshot,
) -> Iterator[ImageCache]:
    owners = {workload.uid for workload in snapshot.workloads.values()}
    for key, cache in sorted(in_force.items()):
        if not cache.planned or cache.deleted_at is not None or key in kept:
            continue
        orphaned = cache.owner is None or cache.owner.uid not in owners
        if orphaned or names is None or cache.workload in names:
            yield cache


def needs_write(current: ImageCache | None, wanted: ImageCache) -> bool:
    """Whether an ImageCache in force says something else than the wanted one, in what matters to the pulls."""
    if current is None:
        return True
    return _substance(current) != _substance(wanted) or _is_earlier(wanted.needed_by, current.needed_by)


def _substance(cache: ImageCache) -> tuple[object, ...]:
    return (
        [
            (frozenset(e.images), frozenset(e.node_names or ()), e.node_names is None, e.node_selector)
            for e in cache.lists
        ],
        frozenset(cache.pull_secrets),
        cache.service_account,
        cache.pull_policy,
        cache.tolerations,
        cache.priority,
        cache.hold_seconds,
        cache.hold_present,
        cache.owner.uid if cache.owner is not None else "",
        cache.workload,
        _draws(cache),
    )


def _draws(cache: ImageCache) -> bool:
    """Whether its nodes are to draw the pods: a gate waits until they list the images then."""
    summary = decode_summary(cache.plan_annotation) if cache.plan_annotation else None
    return summary is not None and summary.drawn


def _is_earlier(wanted: float | None, current: float | None) -> bool:
    if wanted is None:
        return False
    return current is None or wanted < current - NEEDED_BY_TOLERANCE_SECONDS
