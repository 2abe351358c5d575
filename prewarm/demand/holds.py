"""Rollouts that the gate's admission policy holds, as the marker on the workload says."""

import re
from datetime import datetime

from msgspec import Struct

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.model.workloads import UpdateStrategy, Workload

_MARKER = re.compile(r"(?P<since>[0-9T:.+\-]{19,32}Z?)(?: partition=(?P<partition>[0-9]{1,9}))?", re.ASCII)


class Hold(Struct, frozen=True):
    """What a marker says."""

    marker: str
    """The annotation's value."""
    since: float | None
    """Unix seconds; None if it cannot be read."""
    partition: int = 0
    """Of a StatefulSet: what the partition was before."""
    in_force: bool = True
    """Whether the rollout is held still, or somebody let it go and left the marker."""


def hold(workload: Workload) -> Hold | None:
    """The hold on a workload's rollout: a time, and for a StatefulSet ` partition=N`; None if there is none."""
    marker = workload.annotations.get(ANNOTATION_GATE_HELD)
    if marker is None or workload.key.kind not in {"Deployment", "StatefulSet"}:
        return None
    if workload.key.kind == "Deployment":
        in_force = workload.paused
    else:
        in_force = workload.strategy is UpdateStrategy.ROLLING_UPDATE and workload.partition > 0
    found = _MARKER.fullmatch(marker)
    if found is None:
        return Hold(marker, None, in_force=in_force)
    try:
        since = datetime.fromisoformat(found["since"])
    except ValueError:
        return Hold(marker, None, in_force=in_force)
    partition = int(found["partition"] or 0)
    return Hold(marker, since.timestamp() if since.tzinfo is not None else None, partition, in_force)
