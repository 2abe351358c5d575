"""Rollouts that the gate's admission policy holds, as the marker on the workload says."""

import re
from datetime import datetime

from msgspec import Struct

from prewarm.api.names import ANNOTATION_GATE_HELD
from prewarm.model.workloads import UpdateStrategy, Workload

_MARKER = re.compile(
    r"(?P<since>[0-9T:.+\-]{19,32}Z?)(?: generation=(?P<generation>[0-9]{1,18}))?"
    r"(?: partition=(?P<partition>[0-9]{1,9}))?(?: set=(?P<put>[0-9]{1,10}))?(?: for=(?P<seconds>[0-9]{1,6}))?",
    re.ASCII,
)


class Hold(Struct, frozen=True):
    """What a marker says."""

    marker: str
    """The annotation's value."""
    since: float | None
    """Unix seconds; None if it cannot be read."""
    generation: int = 0
    """metadata.generation of the change that is held; 0 if the marker does not say."""
    partition: int = 0
    """Of a StatefulSet: what the partition was before."""
    seconds: float | None = None
    """How long it lasts at most, where a policy asked for it; None: the workload's annotation says."""
    in_force: bool = True
    """Whether the rollout is held still, or somebody let it go and left the marker."""

    def is_of(self, workload: Workload) -> bool:
        """Whether the change that is held was made to this object.

        Generations only grow: one that is still to come was counted on another object, whose manifest was copied.
        """
        return self.generation <= workload.generation


def hold(workload: Workload) -> Hold | None:
    """The hold on a workload's rollout, None if there is none.

    The marker is a time, ` generation=N`, for a StatefulSet ` partition=N set=N` (what the partition was, and what it
    is held by), and where a policy asked for it ` for=SECONDS`. What holds is a partition beyond all replicas; in
    markers of earlier versions it is the replicas themselves. Whoever sets another partition has let the rollout go.
    """
    marker = workload.annotations.get(ANNOTATION_GATE_HELD)
    if marker is None or workload.key.kind not in {"Deployment", "StatefulSet"}:
        return None
    found = _MARKER.fullmatch(marker)
    if workload.key.kind == "Deployment":
        in_force = workload.paused
    else:
        in_force = workload.strategy is UpdateStrategy.ROLLING_UPDATE and workload.partition > 0
        if found is not None and found["put"] is not None:
            in_force = in_force and workload.partition == int(found["put"])
    try:
        since = datetime.fromisoformat(found["since"]) if found is not None else None
    except ValueError:
        since = None
    if found is None or since is None:
        return Hold(marker, None, in_force=in_force)
    return Hold(
        marker,
        since.timestamp() if since.tzinfo is not None else None,
        generation=int(found["generation"] or 0),
        partition=int(found["partition"] or 0),
        seconds=None if found["seconds"] is None else float(found["seconds"]),
        in_force=in_force,
    )
