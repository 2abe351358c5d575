"""One demand's plan as an ImageCache object."""

import hashlib
from collections.abc import Iterable

from prewarm.api.image_cache import MAX_IMAGES, MAX_NODE_NAMES
from prewarm.api.plan_annotation import encode_summary, summary
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import PullPolicy
from prewarm.model.plans import Demand, DemandPlan, Trigger
from prewarm.model.pods import OwnerReference, Toleration
from prewarm.model.progressive import api_kind
from prewarm.model.snapshot import ObjectKey

PRIORITIES = {
    Trigger.ROLLOUT: 100,
    Trigger.SCHEDULED: 80,
    Trigger.ANNOUNCED: 50,
    Trigger.SCALE_OUT: 10,
    Trigger.ROLLBACK: 1,
}
"""spec.priority by trigger: a rollout's pods and a run's come for sure and soon, a scale-out's may come, and what a
rollback needs is there. Hand-written caches have 0 unless they say otherwise."""
MAX_PULL_SECRETS = 32
MAX_TOLERATIONS = 64
_SHORT_KINDS = {
    "Deployment": "deploy",
    "StatefulSet": "sts",
    "DaemonSet": "ds",
    "CloneSet": "clone",
    "AdvancedStatefulSet": "asts",
    "AdvancedDaemonSet": "ads",
    "Rollout": "ro",
    "ReplicaSet": "rs",
    "CronJob": "cron",
    "Job": "job",
}
_MAX_WORKLOAD_NAME = 63 - len("prewarm-deploy--") - 8
"""Names stay within 63 characters, so that they can stand in labels and host names too."""


def cache_key(demand: Demand) -> ObjectKey:
    """Namespace and name of a demand's ImageCache: another revision, trigger or workload object has another one."""
    key = demand.workload
    parts = (str(key), demand.workload_uid, demand.revision, demand.trigger.value)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    name = key.name[:_MAX_WORKLOAD_NAME].rstrip("-.")
    return (key.namespace, f"prewarm-{short_kind(key.kind)}-{name}-{digest}")


def short_kind(kind: str) -> str:
    """A workload's kind within a name, as kubectl shortens it where it does."""
    return _SHORT_KINDS.get(kind, kind.lower()[:6])


def planned_cache(entry: DemandPlan, api_version: str, kept: Iterable[str] = ()) -> ImageCache | None:
    """The ImageCache of one demand; None where there is nothing to name.

    Args:
        entry: the plan for the demand.
        api_version: of the workload, for the owner reference.
        kept: nodes of the cache in force that stay although the plan no longer names them; they come last.
    """
    demand = entry.demand
    nodes = tuple(dict.fromkeys([*(node.name for node in entry.nodes), *kept]))[:MAX_NODE_NAMES]
    images = deliverable_images(entry)
    if not nodes or not images:
        return None
    namespace, name = cache_key(demand)
    shape = demand.template.shape
    workload = demand.workload
    return ImageCache(
        namespace=namespace,
        name=name,
        lists=(ImageList(images=images, node_names=nodes),),
        pull_secrets=tuple(dict.fromkeys(secret for secret in shape.pull_secrets if secret))[:MAX_PULL_SECRETS],
        service_account="" if shape.service_account == "default" else shape.service_account,
        pull_policy=_pull_policy(demand, images),
        tolerations=tuple(_toleration(toleration) for toleration in shape.tolerations[:MAX_TOLERATIONS]),
        priority=PRIORITIES.get(demand.trigger, 0),
        needed_by=min((batch.needed_at for batch in demand.batches), default=None),
        hold_seconds=entry.hold_seconds,
        hold_present=demand.trigger is Trigger.ROLLBACK and bool(entry.hold_seconds),
        owner=OwnerReference(api_kind(workload.kind), workload.name, demand.workload_uid, api_version),
        planned=True,
        workload=str(workload),
        plan_annotation=_annotation(entry),
    )


def deliverable_images(entry: DemandPlan) -> tuple[str, ...]:
    """Images of the demand in the kubelet's order, without those that the plan skipped on every node."""
    skipped = {skip.image for skip in entry.skips if skip.image and not skip.node}
    return tuple(image for image in dict.fromkeys(entry.demand.images) if image not in skipped)[:MAX_IMAGES]


def _pull_policy(demand: Demand, images: tuple[str, ...]) -> PullPolicy:
    """Always if one of the containers says so: its tag may have moved, so what is there may be another image.

    What a rollback would need is what is there: a tag that moved is not to replace it.
    """
    if demand.trigger is Trigger.ROLLBACK:
        return PullPolicy.IF_NOT_PRESENT
    shape = demand.template.shape
    always = {c.image for c in shape.containers if c.pull_policy is PullPolicy.ALWAYS}
    return PullPolicy.IF_NOT_PRESENT if always.isdisjoint(images) else PullPolicy.ALWAYS


def _toleration(toleration: Toleration) -> Toleration:
    return Toleration(toleration.key, toleration.operator or "Equal", toleration.value, toleration.effect)


def _annotation(entry: DemandPlan) -> str:
    chosen = {node.name for node in entry.nodes}
    total = sum(node.probability for node in entry.candidates.nodes)
    caught = sum(node.probability for node in entry.candidates.nodes if node.name in chosen)
    return encode_summary(
        summary(
            entry.demand.trigger.value,
            entry.demand.revision,
            pods=entry.demand.pods,
            predictability=entry.candidates.predictability,
            coverage=caught / total if total else 1.0,
            nodes=[(node.name, node.probability) for node in entry.nodes],
            drawn=entry.drawn,
        )
    )
