"""Rollouts that the gate's admission policy holds, as the marker on the workload says."""

import re
from datetime import datetime

from msgspec import Struct

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.model.workloads import UpdateStrategy, Workload

_MARKER = re.compile(
    r"(?P<since>[0-9T:.+\-]{19,32}Z?)(?: partition=(?P<partition>[0-9]{1,9}))?(?: for=(?P<seconds>[0-9]{1,6}))?",
    re.ASCII,
)


class Hold(Struct, frozen=True):
    """What a marker says."""

    marker: str
    """The annotation's value."""
    since: float | None
    """Unix seconds; None if it cannot be read."""
    partition: int = 0
    """Of a StatefulSet: what the partition was before."""
    seconds: float | None = None
    """How long it lasts at most, where a policy asked for it; None: the workload's annotation says."""
    in_force: bool = True
    """Whether the rollout is held still, or somebody let it go and left the marker."""


def hold(workload: Workload) -> Hold | None:
    """The hold on a workload's rollout, None if there is none.

    The marker is a time, for a StatefulSet ` partition=N`, and where a policy asked for it ` for=SECONDS`.
    """
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
    seconds = None if found["seconds"] is None else float(found["seconds"])
    return Hold(marker, since.timestamp() if since.tzinfo is not None else None, partition, seconds, in_force)
