"""Measures a rollout as a watch sees it: API objects themselves only have whole seconds."""

from dataclasses import dataclass, field

from prewarm.model.images import canonical
from prewarm.model.pods import ContainerPhase, Pod


@dataclass
class Start:
    """One pod of the new revision; times are seconds of the recorder's clock.

    A pod that is changed in place counts as created when its new image is seen.
    """

    name: str
    created: float
    node: str = ""
    started: float | None = None
    ready: float | None = None

    @property
    def created_to_started(self) -> float | None:
        """Seconds from the pod's creation to its container's start, image pull included."""
        return None if self.started is None else self.started - self.created


@dataclass
class Recorder:
    """Collects the starts of the pods that run `image`."""

    image: str
    starts: dict[str, Start] = field(default_factory=dict)
    first_ready: float | None = None

    def observe(self, pod: Pod, now: float) -> None:
        """Take note of a pod's state as it arrived at `now`."""
        if self.image not in pod.shape.images:
            return
        start = self.starts.setdefault(pod.uid, Start(pod.name, created=now))
        start.node = pod.node_name or start.node
        if start.started is None and any(
            status.phase is ContainerPhase.RUNNING and canonical(status.image) == canonical(self.image)
            for status in pod.containers
        ):
            start.started = now
        if start.ready is None and start.started is not None and pod.ready_at is not None:
            start.ready = now
            self.first_ready = now if self.first_ready is None else self.first_ready

    @property
    def first_burst(self) -> list[Start]:
        """Pods created before any new pod was Ready: they exist before a pull could have helped."""
        return [start for start in self.starts.values() if not self._is_later(start)]

    @property
    def after_first_burst(self) -> list[Start]:
        """Pods created once the first new pods were Ready."""
        return [start for start in self.starts.values() if self._is_later(start)]

    def _is_later(self, start: Start) -> bool:
        return self.first_ready is not None and start.created >= self.first_ready

    @property
    def started(self) -> int:
        """Pods whose container runs."""
        return sum(start.started is not None for start in self.starts.values())

    @property
    def duration(self) -> float | None:
        """Seconds from the first creation to the last readiness; None while any pod is not Ready."""
        ready = [start.ready for start in self.starts.values()]
        if not ready or None in ready:
            return None
        return max(moment for moment in ready if moment is not None) - min(s.created for s in self.starts.values())


def percentile(starts: list[Start], share: float) -> float | None:
    """Created-to-started at a share of the pods (nearest rank), in seconds; None without pods or before all started."""
    values = sorted(value for start in starts if (value := start.created_to_started) is not None)
    if not values or len(values) < len(starts):
        return None
    return values[min(len(values) - 1, max(0, -(-int(share * 1000) * len(values) // 1000) - 1))]
