"""What is worth pulling? Candidate nodes against warmth, in order of value, each skip with its reason."""

from prewarm.planning.landing import LISTED_SECONDS
from prewarm.planning.plans import Planner, plan

__all__ = ["LISTED_SECONDS", "Planner", "plan"]
