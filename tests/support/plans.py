"""Plans put together by hand, and a cluster that takes what delivery writes."""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from prewarm.api.image_cache import decode_image_cache
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import Apply, Delete, Intent
from prewarm.model.plans import Batch, CandidateNode, Candidates, Demand, DemandPlan, PlannedNode, Trigger
from prewarm.model.pods import PodTemplate
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload


def demand(
    workload: Workload,
    *,
    revision: str = "",
    trigger: Trigger = Trigger.ROLLOUT,
    pods: int = 4,
    needed_at: float = 1010,
) -> Demand:
    """What a workload needs, its own images and template."""
    return Demand(
        workload=workload.key,
        workload_uid=workload.uid,
        trigger=trigger,
        revision=revision or workload.template_hash,
        images=workload.template.shape.images,
        template=workload.template,
        batches=(Batch(needed_at, pods),),
    )


def demand_plan(needed: Demand, nodes: Iterable[str], *, warm: Iterable[str] = (), shadow: bool = False) -> DemandPlan:
    """The demand lands on these nodes, in this order; on `warm` ones nothing is missing."""
    chosen = [
        PlannedNode(name, 1 - index / 100, () if name in set(warm) else needed.images)
        for index, name in enumerate(nodes)
    ]
    candidates = Candidates(tuple(CandidateNode(node.name, node.probability) for node in chosen), predictability=0.9)
    return DemandPlan(needed, candidates, tuple(chosen), shadow=shadow)


def with_template(workload: Workload, template: PodTemplate, revision: str) -> Workload:
    """The workload with another template."""
    return replace(workload, template=template, template_hash=revision)


def applied(snapshot: ClusterSnapshot, intents: Iterable[Intent]) -> ClusterSnapshot:
    """The snapshot after the writes, each object read back from its JSON as the API server would give it."""
    caches = dict(snapshot.image_caches)
    for number, intent in enumerate(intents):
        match intent:
            case Apply():
                manifest = msgspec.json.decode(msgspec.json.encode(intent.manifest), type=dict[str, object])
                old = caches.get((intent.namespace, intent.name))
                caches[(intent.namespace, intent.name)] = _stored(decode_image_cache(manifest), old, number)
            case Delete():
                old = caches.get((intent.namespace, intent.name))
                if old is not None and intent.uid in ("", old.uid):
                    del caches[(intent.namespace, intent.name)]
            case _:
                raise AssertionError(f"delivery does not write {intent}")
    return replace(snapshot, image_caches=caches)


def _stored(cache: ImageCache, old: ImageCache | None, number: int) -> ImageCache:
    uid = old.uid if old is not None else f"uid-{cache.name}"
    version = int(old.resource_version or 0) + 1 if old is not None else 1
    return replace(cache, uid=uid, resource_version=f"{version}{number}", generation=version)


def node_lists(caches: Mapping[tuple[str, str], ImageCache]) -> list[tuple[str, ...] | None]:
    """Node names of all lists of all caches."""
    return [entry.node_names for _, cache in sorted(caches.items()) for entry in cache.lists]
