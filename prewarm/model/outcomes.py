"""What became of a container start of a covered workload, and of the bytes that were pulled ahead."""

from enum import StrEnum

from msgspec import Struct

from prewarm.model.workloads import WorkloadKey


class Outcome(StrEnum):
    """Verdict on a container's first start (or in-place image change)."""

    HIT_PREWARMED = "hit_prewarmed"
    """The first use of the image on that node after our pull."""
    HIT_PRESENT = "hit_present"
    """The image was there anyway, or an earlier start had used our pull already."""
    LATE = "late"
    """Our pull was under way when the pod asked for the image."""
    MISS_UNPREDICTED = "miss_unpredicted"
    """The node was not in a plan, or came into one only after the pod was created, as in a first burst."""
    MISS_UNPREDICTABLE = "miss_unpredictable"
    """The plan had said that it could not know the nodes."""
    MISS_SKIPPED = "miss_skipped"
    """The node was in the plan, but its pull had not begun: withheld by a budget or by the node's state."""
    MISS_FAILED = "miss_failed"
    """Our pull of the image on that node had failed."""
    UNKNOWN = "unknown"
    """No evidence: events were lost, or the controller was down."""


class ContainerStart(Struct, frozen=True):
    """One judged container start; times are Unix seconds, durations seconds."""

    workload: WorkloadKey
    pod_uid: str
    container: str
    image: str
    node: str
    outcome: Outcome
    created_at: float
    started_at: float
    lead_seconds: float | None = None
    """From our pull's end to the pod's creation, for hit_prewarmed."""
    saved_seconds: float | None = None
    """What pulling would have taken, by this image's real pulls; None if none was seen."""
    pull_seconds: float | None = None
    """What pulling took, for a miss or late."""
    pod_name: str = ""
    """Name of the pod in the workload's namespace; "" in what older releases stored."""


class PlanInForce(Struct, frozen=True):
    """What was predicted for one workload's revision, kept so that starts can be judged after it was withdrawn."""

    workload: WorkloadKey
    revision: str
    images: tuple[str, ...]
    nodes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """Node and SkipReason of candidates that were withheld."""
    unpredictable: bool = False
    since: float = 0.0
    until: float | None = None


def hit_ratio(counts: dict[Outcome, int]) -> float | None:
    """Prewarm hit ratio: hit_prewarmed over everything but hit_present; None where nothing counts."""
    total = sum(count for outcome, count in counts.items() if outcome is not Outcome.HIT_PRESENT)
    return counts.get(Outcome.HIT_PREWARMED, 0) / total if total else None
