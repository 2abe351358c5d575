"""What `prewarm warm` asks for, as ImageCache objects; and what their status says of it. No I/O."""

import hashlib
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_POLICY
from prewarm.cli.asks import ImagesOnNodes, WorkloadAhead
from prewarm.cli.errors import CommandError, usage
from prewarm.delivery.planned_cache import PRIORITIES, planned_cache, short_kind
from prewarm.demand import coverage, what_if
from prewarm.history import History
from prewarm.model.image_caches import Completion, ImageCache, ImageList, Policy, PolicyMode
from prewarm.model.plans import SkipReason, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState
from prewarm.model.workloads import WorkloadKey
from prewarm.planning import plan

OVERPROVISION = 2.0
"""Nodes that a workload is warmed on at most, as a multiple of its pods to come: being late costs a deploy more."""
KEPT_SECONDS = 86_400
"""How long the ImageCache stays after its end, to be looked at; then it goes by itself, and the images stay."""
_ONCE = Completion(once=True, ttl_seconds=KEPT_SECONDS)
_POLICY = "prewarm-warm"
_MAX_NAME = 63
"""So that names can stand in labels and host names too."""


class Nothing(Struct, frozen=True):
    """Nothing has to be pulled, and why."""

    message: str


def workload_cache(wanted: WorkloadAhead, snapshot: ClusterSnapshot, history: History) -> ImageCache | Nothing:
    """The ImageCache that warms all nodes of a workload's rollout or scale-out.

    All its pods are announced, so the set covers the whole rollout, not batch by batch. Another call for the same
    workload replaces it; it goes with the workload.

    Raises:
        CommandError: if the workload is not there, or where its pods land cannot be predicted.
    """
    key = wanted.workload
    try:
        changed = what_if(snapshot, key, replicas=wanted.replicas, images=wanted.images)
    except ValueError as error:
        raise usage(str(error)) from None
    # What people ask for is there before the rollout, whose first pods nothing steers yet.
    made = plan(_covering(changed, key, wanted.coverage), history, only=[key], unsteerable=SteerState.SWITCHED_OFF)
    if made.problems:
        raise CommandError(made.problems[0].message)
    if not made.demands:
        return Nothing(f"{key} needs nothing new: no pods are to come with other images or beyond its replicas")
    entry = made.demands[0]
    images = ", ".join(entry.demand.images)
    if any(skip.reason is SkipReason.UNPREDICTABLE for skip in entry.skips):
        raise CommandError(
            f"where the pods of {key} land cannot be predicted (two replays agree on "
            f"{entry.candidates.predictability:.0%}): warm every node with --image {images} -n {key.namespace}"
        )
    if not any(node.missing for node in entry.nodes):
        if entry.candidates.nodes and not entry.nodes:
            reasons = sorted({skip.reason.value for skip in entry.skips})
            raise CommandError(f"nothing can be pulled ahead for {key}: {', '.join(reasons)}")
        return Nothing(f"{images} is on all {len(entry.nodes)} nodes where pods of {key} may land")
    cache = planned_cache(entry, snapshot.workloads[key].api_version)
    if cache is None:
        return Nothing(f"{key} has no images that could be pulled ahead")
    name = wanted.name or _short_name(f"warm-{short_kind(key.kind)}-{key.name}")
    priority = PRIORITIES[Trigger.ROLLOUT]
    return replace(cache, name=name, planned=False, needed_by=None, priority=priority, completion=_ONCE)


def _covering(snapshot: ClusterSnapshot, key: WorkloadKey, share: float) -> ClusterSnapshot:
    """The snapshot with a policy for this workload that asks for high coverage and is in force."""
    workload = snapshot.workloads[key]
    policy = coverage(snapshot, workload).policy or Policy()
    eager = replace(
        policy,
        name=_POLICY,
        mode=PolicyMode.ACTIVE,
        rollout=True,
        scale_out=True,
        coverage=max(policy.coverage, share),
        max_overprovision=max(policy.max_overprovision, OVERPROVISION),
        max_waste=1.0,
    )
    named = replace(workload, annotations={**workload.annotations, ANNOTATION_POLICY: _POLICY})
    return replace(
        snapshot,
        policies={**snapshot.policies, _POLICY: eager},
        workloads={**snapshot.workloads, key: named},
    )


def _short_name(name: str) -> str:
    """The name, its end replaced by a digest if it is too long: two workloads must not share an ImageCache."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 9].rstrip('-.')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def images_cache(wanted: ImagesOnNodes) -> ImageCache:
    """The ImageCache for plain images; equal questions have equal names."""
    selector = (f"{key}={value}" for key, value in wanted.node_selector)
    credentials = (f"as {name}" for name in (wanted.service_account, *sorted(wanted.pull_secrets)) if name)
    digest = _digest("\n".join((*wanted.images, *(wanted.node_names or ()), *selector, *credentials)))
    return ImageCache(
        namespace=wanted.namespace,
        name=wanted.name or f"warm-{digest}",
        lists=(ImageList(wanted.images, wanted.node_names, wanted.node_selector),),
        pull_secrets=wanted.pull_secrets,
        service_account=wanted.service_account,
        priority=PRIORITIES[Trigger.ROLLOUT],
        completion=_ONCE,
    )


class Progress(StrEnum):
    """How far an ImageCache is."""

    UNSEEN = "Unseen"
    """No controller has looked at this generation of it."""
    PULLING = "Pulling"
    WARM = "Warm"
    FAILED = "Failed"


def progress(cache: ImageCache) -> Progress:
    """What the status says; a status of an older generation says nothing."""
    status = cache.status
    if status.observed_generation < cache.generation or not status.conditions:
        return Progress.UNSEEN
    if cache.refresh_request and status.refresh_handled != cache.refresh_request:
        return Progress.UNSEEN
    conditions = {condition.type: condition for condition in status.conditions}
    ready, working = conditions.get("Ready"), conditions.get("Progressing")
    if working is not None and working.status:
        return Progress.PULLING
    if ready is not None and ready.status:
        return Progress.WARM
    return Progress.FAILED


def verdict(cache: ImageCache) -> str:
    """The Ready condition's message and the first failures, in one line."""
    ready = next((condition for condition in cache.status.conditions if condition.type == "Ready"), None)
    said = ready.message if ready is not None else "no controller has looked at it: is prewarm running?"
    failures = "; ".join(f"{f.image} on {f.node}: {f.reason} {f.message}".rstrip() for f in cache.status.failures[:3])
    return f"{said}; {failures}" if failures else said
