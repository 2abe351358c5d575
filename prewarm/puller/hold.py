"""Which finished puller pods stay, so that their containers keep images from the kubelet's garbage collection?

The kubelet takes an image for used while a container of it, ended ones included, or a container that mounted it, exists
(pkg/kubelet/images/image_gc_manager.go, detectImages). Everything about a hold stands in the pod's own status and in
the ImageCache, so a restart changes nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec import Struct

from prewarm.model.image_caches import ImageCache
from prewarm.model.images import canonical
from prewarm.model.nodes import pull_identity
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence import Warmth, our_pulls
from prewarm.puller.memory import PullerMemory
from prewarm.puller.outcome import PullState, Reading
from prewarm.puller.settings import PullerSettings
from prewarm.puller.work import Work

FINISHING_SECONDS = 15.0
"""How long a pod may take to finish after its last container of ours ended: one with an added sidecar never does, and
would hold a pod slot of its node beside the image."""

HeldImages = Mapping[tuple[str, str], float]
"""By image (canonical) and pull identity, until when it is held, Unix seconds."""


class _Hold(Struct, frozen=True):
    pod: Pod
    cache: ImageCache
    images: frozenset[str]
    until: float
    again_at: float
    """When to look again."""


class Holds:
    """Chooses on one snapshot, once the caches' standings are known.

    Attributes:
        kept: pods that stay.
        images: by node, what they hold.
        wake_times: when one of them is to go.
    """

    def __init__(
        self, snapshot: ClusterSnapshot, settings: PullerSettings, known: Warmth, work: Work, memory: PullerMemory
    ) -> None:
        self._snapshot = snapshot
        self._known = known
        self._work = work
        self._memory = memory
        newest: dict[tuple[str, str, frozenset[str]], _Hold] = {}
        for hold in self._wanted():
            key = (hold.cache.uid, hold.pod.node_name, hold.images)
            other = newest.get(key)
            if other is None or (other.until, other.pod.key) < (hold.until, hold.pod.key):
                newest[key] = hold
        chosen = sorted(newest.values(), key=lambda h: (-h.cache.priority, h.pod.created_at, h.pod.key))
        chosen = list(_within_limits(chosen))[: settings.hold_limit]
        self.kept: frozenset[ObjectKey] = frozenset(hold.pod.key for hold in chosen)
        self.wake_times: tuple[float, ...] = tuple(hold.again_at for hold in chosen)
        self.images: Mapping[str, HeldImages] = _by_node(chosen)

    def changed(self, before: Collection[str]) -> frozenset[str]:
        """Nodes whose record does not say what is held; `before` are those on which something was held lately."""
        found = set()
        for name in {*self.images, *before}:
            record = self._snapshot.node_images.get(name)
            entries = record.images if record is not None else ()
            said = {(e.image, e.pull_identity): e.held_until for e in entries if e.held_until is not None}
            if name in self._snapshot.nodes and said != self.images.get(name, {}):
                found.add(name)
        return frozenset(found)

    def _wanted(self) -> Iterator[_Hold]:
        now = self._snapshot.taken_at
        for reading in self._work.readings:
            pod = reading.pod
            cache = self._work.caches.get(pod.owner.uid) if pod.owner is not None else None
            if cache is None or not cache.hold_seconds or pod.deleted_at is not None or not self._proves(reading):
                continue
            ended = max((status.finished_at or 0.0 for status in pod.containers), default=0.0)
            until = max((pull.since for _, pull in our_pulls(pod)), default=0.0) + cache.hold_seconds
            again_at = until if pod.finished else min(until, ended + FINISHING_SECONDS)
            if again_at > now and self._is_asked_for(cache, reading):
                images = frozenset(canonical(result.image) for result in reading.results)
                yield _Hold(pod, cache, images, until, again_at)

    def _proves(self, reading: Reading) -> bool:
        """Whether it pulled everything; one with a failed image never finishes, and goes on trying."""
        return bool(reading.results) and all(result.state is PullState.PULLED for result in reading.results)

    def _is_asked_for(self, cache: ImageCache, reading: Reading) -> bool:
        pod = reading.pod
        if cache.error or cache.deleted_at is not None or self._counts_pods(pod.namespace):
            return False
        # Gone in spite of the hold (disk pressure), it is pulled again, by a pod of the same name.
        return all(self._known.is_there(pod.node_name, result.image) for result in reading.results) and any(
            self._memory.wants(cache.uid, pod.node_name, result.image) for result in reading.results
        )

    def _counts_pods(self, namespace: str) -> bool:
        """Whether finished pods take something from the namespace's workloads: a quota counts them as objects."""
        return any("count/pods" in quota.hard for quota in self._snapshot.quotas.get(namespace, ()))


def _within_limits(holds: Iterable[_Hold]) -> Iterator[_Hold]:
    """Those that the limits of their namespaces allow, the first ones of each."""
    counts: Counter[str] = Counter()
    for hold in holds:
        allowance, namespace = hold.cache.allowance, hold.pod.namespace
        most = allowance.limits.holds if allowance is not None else None
        if most is None or counts[namespace] < most:
            counts[namespace] += 1
            yield hold


def _by_node(holds: Collection[_Hold]) -> dict[str, dict[tuple[str, str], float]]:
    found: dict[str, dict[tuple[str, str], float]] = {}
    for hold in holds:
        pod = hold.pod
        identity = pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets)
        images = found.setdefault(pod.node_name, {})
        for image in hold.images:
            images[image, identity] = max(hold.until, images.get((image, identity), 0.0))
    return found
