"""What is remembered, and the estimates that follow from it."""

from collections.abc import Mapping
from statistics import median

from msgspec import Struct

from prewarm.model.images import canonical, parse_reference
from prewarm.model.outcomes import ContainerStart, PlanInForce
from prewarm.model.workloads import WorkloadKey

DEFAULT_TIME_TO_READY = 10.0
"""Seconds from a pod's creation to Ready, without pulling, for a workload of which no pod was seen becoming ready."""
DEFAULT_PULL_RATE = 50e6
"""Bytes per second of nodes that were never seen pulling."""
DEFAULT_PULL_SECONDS = 20.0
"""Seconds for an image of which neither size nor any pull is known: about 1 GB at DEFAULT_PULL_RATE."""


class Measured(Struct, frozen=True):
    """A measured value and when it was last confirmed (Unix seconds)."""

    value: float
    at: float


class History(Struct, frozen=True):
    """Bounded knowledge of the past. Images are keyed by canonical spelling, mappings are never changed."""

    image_sizes: Mapping[str, Measured] = {}
    """Bytes, by image."""
    repository_sizes: Mapping[str, Measured] = {}
    """Bytes of the image last seen for the first time, by registry and repository."""
    pulls: Mapping[str, Measured] = {}
    """Seconds that pulling took, by image."""
    node_rates: Mapping[str, Measured] = {}
    """Bytes per second of our pulls, by node."""
    ready: Mapping[str, Measured] = {}
    """Seconds from creation to Ready without pulling, by workload as text."""
    stopping: Mapping[str, Measured] = {}
    """Seconds from being told to stop to deletion, by workload as text."""
    plans_in_force: tuple[PlanInForce, ...] = ()
    """Oldest first. Those with `until` set were withdrawn and wait for the last starts to be judged."""
    starts: tuple[ContainerStart, ...] = ()
    """Judged container starts, oldest first."""
    scanned_at: float = 0.0
    """When sizes, rates, times to ready and to stop were last taken from a snapshot."""
    reason: str = ""
    """Why this history began empty although there was a stored one."""

    def image_size(self, image: str) -> int | None:
        """Bytes of an image; of one never seen, those of its repository's last one; None if there was none."""
        known = self.image_sizes.get(canonical(image)) or self.repository_sizes.get(repository(image))
        return int(known.value) if known else None

    def pull_rate(self, node: str = "") -> float | None:
        """Bytes per second of our pulls on a node, else the median over all nodes; None if none was measured."""
        if node in self.node_rates:
            return self.node_rates[node].value
        return median(rate.value for rate in self.node_rates.values()) if self.node_rates else None

    def pull_seconds(self, image: str, node: str = "") -> float | None:
        """Estimate of a pull: size by the node's rate, else this image's measured pulls, else size by the usual rate.

        None if nothing comparable was ever seen.
        """
        size = self.image_size(image)
        if size is not None and node in self.node_rates:
            return size / self.node_rates[node].value
        if (measured := self.pulls.get(canonical(image))) is not None:
            return measured.value
        rate = self.pull_rate()
        return size / rate if size is not None and rate else None

    def expected_pull_seconds(self, image: str, node: str = "") -> float:
        """As `pull_seconds`, and where nothing comparable was ever seen what such an image usually takes."""
        known = self.pull_seconds(image, node)
        if known is not None:
            return known
        size = self.image_size(image)
        return DEFAULT_PULL_SECONDS if size is None else size / DEFAULT_PULL_RATE

    def time_to_ready(self, workload: WorkloadKey) -> float:
        """Seconds from a pod's creation to Ready, pulling left out; DEFAULT_TIME_TO_READY if never measured."""
        known = self.ready.get(str(workload))
        return known.value if known else DEFAULT_TIME_TO_READY

    def time_to_stop(self, workload: WorkloadKey) -> float | None:
        """Seconds from the moment at which a pod is told to stop to its deletion; None if never measured."""
        known = self.stopping.get(str(workload))
        return known.value if known else None


def repository(image: str) -> str:
    """Registry and repository of an image; "" for a text that is no reference."""
    try:
        return parse_reference(image).name
    except ValueError:
        return ""
