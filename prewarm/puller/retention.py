"""Which puller pods that have done their duty stay for a while, so that people can look at them?"""

from collections.abc import Iterator

from prewarm.model.image_caches import PodRetention
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ObjectKey
from prewarm.puller.outcome import PullState, Reading
from prewarm.puller.settings import PullerSettings
from prewarm.puller.work import Work

MOST_KEPT = 100
"""Pods kept at once in the whole cluster, the newest: kube-controller-manager deletes finished pods, other people's
too, beyond a number of its own."""


class Retention:
    """Chooses on one snapshot. A kept pod holds no place among the pulls, and its name is never used again."""

    def __init__(self, work: Work, settings: PullerSettings, now: float) -> None:
        self._work = work
        self._settings = settings
        chosen = sorted(self._choose(now), key=lambda entry: (-entry[0].created_at, entry[0].key))[:MOST_KEPT]
        self.kept: frozenset[ObjectKey] = frozenset(pod.key for pod, _ in chosen)
        self.wake_times: tuple[float, ...] = tuple(until for _, until in chosen)
        """When one of them is to go."""

    def _choose(self, now: float) -> Iterator[tuple[Pod, float]]:
        for reading in self._work.readings:
            if reading.settled and self._is_kept(reading):
                until = self._ended_at(reading) + self._settings.pod_retention_seconds
                if until > now:
                    yield reading.pod, until

    def _is_kept(self, reading: Reading) -> bool:
        cache = self._work.caches.get(reading.pod.owner.uid) if reading.pod.owner is not None else None
        if cache is None or cache.deleted_at is not None:
            return False
        retention = self._settings.pod_retention if cache.pod_retention is None else cache.pod_retention
        if retention is PodRetention.ON_FAILURE:
            return any(result.state is PullState.FAILED for result in reading.results)
        return retention is PodRetention.ALWAYS

    def _ended_at(self, reading: Reading) -> float:
        """When its verdict was known: by its containers, or when its failure was first seen."""
        pod = reading.pod
        times = [status.finished_at for status in pod.containers if status.finished_at is not None]
        if any(result.state is PullState.FAILED for result in reading.results):
            times.append(min(self._work.failed_at(pod), pod.created_at + self._work.timeout_of(pod)))
        return max((pod.created_at, *times))
