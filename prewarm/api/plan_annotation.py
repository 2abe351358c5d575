"""The annotation prewarm.dev/plan on a planned ImageCache: why it was written, for people and for `prewarm status`."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from prewarm.model.image_caches import ImageCache
from prewarm.model.workloads import WorkloadKey

MAX_REVISION_LENGTH = 64
"""Of a longer hash, so many characters are kept."""
MAX_ANNOTATED_NODES = 100
"""Nodes whose probability is kept; the annotation stays below 32 KiB at the longest names."""


class PlanSummary(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What the plan said when the ImageCache was last written."""

    trigger: str
    """Rollout or ScaleOut."""
    revision: str
    """Hash of the pod template, or the head of it."""
    pods: int = 0
    """Pods still to come."""
    predictability: float = 1.0
    """Share of the pods that two replays put on the same nodes, 0 to 1."""
    coverage: float = 1.0
    """Share of the predicted landings that the chosen nodes catch, 0 to 1."""
    nodes: dict[str, float] = {}
    """Landing probability by node, in order of value."""
    more_nodes: int = 0
    """Chosen nodes beyond MAX_ANNOTATED_NODES."""
    drawn: bool = False
    """The pods land there because these nodes list the images by then (ImageLocality)."""


def summary(
    trigger: str,
    revision: str,
    *,
    pods: int,
    predictability: float,
    coverage: float,
    nodes: Sequence[tuple[str, float]],
    drawn: bool = False,
) -> PlanSummary:
    """A bounded summary; shares are rounded to three digits."""
    return PlanSummary(
        trigger=trigger,
        revision=revision[:MAX_REVISION_LENGTH],
        pods=pods,
        predictability=round(predictability, 3),
        coverage=round(coverage, 3),
        nodes={name: round(probability, 3) for name, probability in nodes[:MAX_ANNOTATED_NODES]},
        more_nodes=max(0, len(nodes) - MAX_ANNOTATED_NODES),
        drawn=drawn,
    )


def encode_summary(plan: PlanSummary) -> str:
    """The annotation's value: compact JSON."""
    return msgspec.json.encode(plan).decode()


def decode_summary(text: str) -> PlanSummary | None:
    """What an annotation says; None if it is not one of ours."""
    try:
        return msgspec.json.decode(text, type=PlanSummary)
    except (msgspec.DecodeError, RecursionError):
        return None


def planned_for(
    caches: Iterable[ImageCache], workload: WorkloadKey, revision: str
) -> Iterator[tuple[ImageCache, PlanSummary]]:
    """Those that were planned for a revision of a workload and are not being deleted, each with what its plan said.

    Args:
        caches: ImageCaches.
        workload: whose.
        revision: hash of its pod template, in full.
    """
    name, kept = str(workload), revision[:MAX_REVISION_LENGTH]
    for cache in caches:
        if cache.planned and cache.workload == name and cache.namespace == workload.namespace:
            said = decode_summary(cache.plan_annotation) if cache.deleted_at is None else None
            if said is not None and kept and said.revision == kept:
                yield cache, said
