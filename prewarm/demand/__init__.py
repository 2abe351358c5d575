"""What will be needed? From a snapshot to the pods that workloads will create, and their images."""

from prewarm.demand.coverage import Coverage, coverage, covering_policy
from prewarm.demand.demands import demands, plan_again_at
from prewarm.demand.holds import Hold, hold
from prewarm.demand.linked import linked
from prewarm.demand.previous import previous_demands
from prewarm.demand.progress import MAX_BATCHES
from prewarm.demand.revisions import pods_of_revision
from prewarm.demand.shapes import far_ahead, never_pulled
from prewarm.demand.what_if import what_if

__all__ = [
    "MAX_BATCHES",
    "Coverage",
    "Hold",
    "coverage",
    "covering_policy",
    "demands",
    "far_ahead",
    "hold",
    "linked",
    "never_pulled",
    "plan_again_at",
    "pods_of_revision",
    "previous_demands",
    "what_if",
]
