"""What of the puller's work is to be remembered on NodeImage records, and which pods have done their duty by that?"""

from collections.abc import Collection, Iterator, Mapping

from msgspec.structs import replace

from prewarm.api.node_image import MAX_FAILED_PULLS, bounded_node_images, node_images_manifest
from prewarm.model.intents import NODE_IMAGES, PODS, Apply, Delete, Intent
from prewarm.model.nodes import Evidence, FailedPull, Node, NodeImages, NodeState, may_become, pull_obstacle
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.times import believed
from prewarm.presence import Warmth, forgotten, observe
from prewarm.puller.hold import HeldImages
from prewarm.puller.memory import PullerMemory
from prewarm.puller.outcome import Reading
from prewarm.puller.purge import Purge
from prewarm.puller.reasons import FailureReason
from prewarm.puller.targets import POD_TOLERATIONS, obstacle
from prewarm.puller.work import Work

_TROUBLED = frozenset({NodeState.NOT_READY, NodeState.LEAVING, NodeState.DISK_PRESSURE})
"""States in which a kubelet ends pods, or says nothing of them, whatever they are."""
_OF_THE_NODE = frozenset({FailureReason.DEADLINE.value, FailureReason.REJECTED.value, FailureReason.EVICTED.value})


class Records:
    """Keeps NodeImage records true on one snapshot: evidence first, then the pod that gave it may go."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        known: Warmth,
        work: Work,
        resting: Collection[str] = (),
        kept: Collection[ObjectKey] = (),
        *,
        waiting: Collection[str] = (),
        held: Mapping[str, HeldImages] = {},
        yielding: Collection[str] = (),
    ) -> None:
        """Prepare to write.

        Args:
            snapshot: the cluster.
            known: warmth of the same snapshot.
            work: pulls under way on it.
            resting: uids of ImageCaches for which nothing more is to be pulled.
            kept: pods that have done their duty and stay.
            waiting: nodes whose record is written later.
            held: by node, images that such pods keep from garbage collection.
            yielding: namespaces whose workloads need what our pods take of a quota.
        """
        self._held = held
        self._yielding = yielding
        self._resting = resting
        self._kept = kept
        self._snapshot = snapshot
        self._known = known
        self._work = work
        self._unrecorded: set[str] = set(waiting)

    @property
    def unrecorded(self) -> Collection[str]:
        """Nodes whose record did not say everything when `writes` was called."""
        return self._unrecorded

    def writes(self, memory: PullerMemory, nodes: frozenset[str], purge: Purge) -> Iterator[Intent]:
        """Records of these nodes that changed, and those whose node is gone; read it to the end before `deletions`."""
        now = self._snapshot.taken_at
        present = {record.node_name: record for record in self._observe(nodes, memory)}
        for name in sorted(nodes):
            record = self._with_failures(name, present.get(name))
            if record is None:
                continue
            record = self._with_holds(purge.amend(name, record))
            stored = self._snapshot.node_images.get(name)
            if record is stored:
                continue
            bounded = bounded_node_images(record)
            if stored is not None and bounded == bounded_node_images(stored):
                continue
            memory.observe_again(name)
            self._unrecorded.add(name)
            if memory.is_new(NODE_IMAGES.kind, "", name, bounded, now):
                yield Apply(NODE_IMAGES, "", name, node_images_manifest(record))
        for name in forgotten(self._snapshot):
            if memory.is_new(NODE_IMAGES.kind, "", name, None, now):
                yield Delete(NODE_IMAGES, "", name)

    def deletions(self, memory: PullerMemory) -> Iterator[Intent]:
        """Puller pods that have done their duty, or will have none."""
        now = self._snapshot.taken_at
        for reading in self._work.readings:
            pod = reading.pod
            if reading.settled and pod.node_name in self._unrecorded:
                # What the pod shows has to stand on the record first: a restart in between must not lose it.
                continue
            if pod.deleted_at is not None or pod.key in self._kept or not self._is_done(reading, memory):
                continue
            if memory.is_new(PODS.kind, pod.namespace, pod.name, pod.uid, now):
                yield Delete(PODS, pod.namespace, pod.name, pod.uid, grace_seconds=0)

    def _is_done(self, reading: Reading, memory: PullerMemory) -> bool:
        pod = reading.pod
        node = self._snapshot.nodes.get(pod.node_name)
        if node is None or reading.settled:
            return True
        if reading.begun:
            return False
        return not self._is_wanted(reading, node, memory)

    def _is_wanted(self, reading: Reading, node: Node, memory: PullerMemory) -> bool:
        """Whether a pod that has pulled nothing yet should: later nothing stops it.

        Where the node is cordoned, silent or the like, its pod would wait; a new one is ordered when the node returns.
        """
        pod = reading.pod
        cache = self._work.caches.get(pod.owner.uid) if pod.owner is not None else None
        if pod.namespace in self._yielding:
            return False
        if cache is None or cache.uid in self._resting or obstacle(node, cache) is not None:
            return False
        if not may_become(reading.identity, cache.namespace, cache.service_account, cache.pull_secrets):
            return False
        return any(memory.wants(cache.uid, node.name, result.image) for result in reading.results)

    def _blamed(self, reading: Reading, recorded: tuple[FailedPull, ...]) -> list[FailedPull]:
        """Failures of a pod that count as attempts: not those of a node in trouble, nor of a deleted cache."""
        node = self._snapshot.nodes.get(reading.pod.node_name)
        failures = [
            failure for failure in self._work.failures_of(reading, recorded) if failure.cache_uid in self._work.caches
        ]
        if node is None or pull_obstacle(node, POD_TOLERATIONS) in _TROUBLED:
            return [failure for failure in failures if failure.reason not in _OF_THE_NODE]
        return failures

    def _observe(self, nodes: frozenset[str], memory: PullerMemory) -> tuple[NodeImages, ...]:
        return observe(self._snapshot, nodes=nodes, known=self._known, asked=memory.wanted(self._snapshot))

    def _with_holds(self, record: NodeImages) -> NodeImages:
        """The record with what is held and until when."""
        held = self._held.get(record.node_name, {})
        if not held and not any(entry.held_until is not None for entry in record.images):
            return record
        images = tuple(
            replace(entry, held_until=held.get((entry.image, entry.pull_identity))) for entry in record.images
        )
        return replace(record, images=images)

    def _with_failures(self, name: str, fresh: NodeImages | None) -> NodeImages | None:
        """The record with what failed; None if there is nothing to say."""
        node = self._snapshot.nodes[name]
        stored = self._snapshot.node_images.get(name)
        base = fresh
        if base is None and stored is not None and stored.node_uid == node.uid and stored.boot_id == node.boot_id:
            base = stored
        recorded = base.failures if base is not None else ()
        failures = {(failure.cache_uid, failure.image): failure for failure in recorded}
        for reading in self._work.readings_by_node.get(name, ()):
            for failure in self._blamed(reading, recorded):
                failures[failure.cache_uid, failure.image] = failure
        present = base.images if base is not None else ()
        pulled = {entry.image: entry.since for entry in present if entry.evidence is Evidence.OUR_PULL}
        now = self._snapshot.taken_at
        kept = [
            failure
            for failure in failures.values()
            if failure.cache_uid in self._work.caches
            and pulled.get(failure.image, float("-inf")) < believed(failure.at, now)
        ]
        newest = sorted(kept, key=lambda failure: (-failure.at, failure.image, failure.cache_uid))[:MAX_FAILED_PULLS]
        ordered = tuple(sorted(newest, key=lambda failure: (failure.image, failure.cache_uid)))
        if base is None:
            return NodeImages(name, node.uid, node.boot_id, failures=ordered) if ordered else None
        return base if ordered == base.failures else replace(base, failures=ordered)
