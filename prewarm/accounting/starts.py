"""Which container starts of a pod there are to judge, and when the kubelet could have begun with each."""

from collections.abc import Iterator

from prewarm.accounting.ledger import StartKey
from prewarm.accounting.verdicts import OpenStart
from prewarm.model.images import PullPolicy, canonical
from prewarm.model.nodes import Node
from prewarm.model.pods import ContainerKind, ContainerPhase, ContainerShape, ContainerStatus, Pod

_GAP_COUNTS_SINCE = (1, 36)
"""Since then PodReadyToStartContainers is true before the pulls, not after (kubernetes#134660)."""


def start_keys(pod: Pod, excluded: frozenset[str]) -> frozenset[StartKey]:
    """The starts that a pod owes us: every container and image volume that may pull, but for excluded ones."""
    return frozenset(
        (shape.name, shape.image)
        for shape in pod.shape.containers
        if shape.name not in excluded and shape.pull_policy is not PullPolicy.NEVER
    )


def started(status: ContainerStatus) -> float | None:
    """When a container ran first, as far as its status tells; None if it never did."""
    if status.phase is ContainerPhase.WAITING or status.reason == "ContainerStatusUnknown":
        return None
    # A container that could not be started reports the year 1970.
    return status.started_at or status.finished_at or None


def open_starts(pod: Pod, node: Node | None, keys: frozenset[StartKey]) -> Iterator[tuple[StartKey, OpenStart]]:
    """The starts among `keys` that have happened, in the kubelet's order."""
    statuses = {status.name: status for status in pod.containers}
    counts = node is not None and _release(node.kubelet_version) >= _GAP_COUNTS_SINCE
    begin = pod.sandbox_ready_at
    first_main = min(
        (at for status in pod.containers if not status.init and (at := started(status)) is not None), default=None
    )
    for shape in _kubelet_order(pod):
        status = statuses.get(shape.name)
        at = first_main if shape.kind is ContainerKind.IMAGE_VOLUME else (started(status) if status else None)
        if at is not None and (shape.name, shape.image) in keys:
            yield (
                (shape.name, shape.image),
                OpenStart(shape.name, canonical(shape.image), pod.created_at, at, begin, counts),
            )
        if status is not None and at is not None:
            begin = max(begin or 0.0, (status.finished_at if shape.kind is ContainerKind.INIT else None) or at)


def _kubelet_order(pod: Pod) -> list[ContainerShape]:
    order = {ContainerKind.IMAGE_VOLUME: 0, ContainerKind.INIT: 1, ContainerKind.SIDECAR: 1, ContainerKind.MAIN: 2}
    return sorted(pod.shape.containers, key=lambda shape: order[shape.kind])


def _release(version: str) -> tuple[int, int]:
    parts = version.removeprefix("v").split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return (0, 0)
