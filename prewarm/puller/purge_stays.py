"""Why is an image not to be removed from a node, as far as the cluster shows? The pod on the node looks again."""

from collections.abc import Collection, Iterable
from enum import StrEnum

from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeState, PresentImage, pull_obstacle
from prewarm.model.pods import Toleration
from prewarm.model.removals import Removal, RemovalResult
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.puller.purge_claims import other_names
from prewarm.puller.purge_rounds import Round, RoundKind, is_purged
from prewarm.puller.standing import Standing
from prewarm.puller.targets import Targets
from prewarm.puller.work import Work

_EVERYTHING = (Toleration(operator="Exists"),)
_MAY_WORK = frozenset({NodeState.CORDONED})


class Wait(StrEnum):
    """Why the removal of an image waits."""

    PULLING = "Pulling"
    """A puller pod is on the node with this image."""


def node_waits(node: Node | None) -> bool:
    """Whether no pod could do anything on the node now; a cordoned one serves."""
    if node is None:
        return True
    obstacle = pull_obstacle(node, _EVERYTHING)
    return obstacle is not None and obstacle not in _MAY_WORK


def wants(standing: Standing, node_name: str, image: str, snapshot: ClusterSnapshot) -> bool:
    """Whether a cache asks for an image on a node, by whatever name; one whose work has ended keeps asking."""
    cache = standing.cache
    if standing.course is None or standing.course.finished_at is None:
        return standing.wants(node_name, image)
    if cache.error or cache.deleted_at is not None:
        return False
    name = canonical(image)
    return any(canonical(asked) == name for asked in Targets(cache).images_on(node_name, snapshot))


class Stays:
    """Judges images on one snapshot."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        work: Work,
        standings: Collection[Standing],
        kept: Collection[ObjectKey] = (),
    ) -> None:
        """`kept` are finished puller pods that are not deleted yet: their containers use their images."""
        self._kept = kept
        self._snapshot = snapshot
        self._work = work
        self._standings = standings

    def judge(self, node_name: str, entry: PresentImage, asked: Round) -> Removal | RemovalResult | Wait:
        """What to do about an image that is to leave a node: remove it, leave it for a reason, or wait."""
        names = other_names(self._snapshot, node_name, entry)
        pulling = self._pulling(node_name, names)
        if pulling is not None:
            return pulling
        if self._wanted(node_name, names, asked):
            return RemovalResult.WANTED
        if self._used(node_name, names):
            return RemovalResult.IN_USE
        return Removal(entry.image, tuple(sorted(self._ours(node_name, names) - {entry.image})))

    def _pulling(self, node_name: str, names: Collection[str]) -> RemovalResult | Wait | None:
        if any(self._work.is_active_anywhere(node_name, name) for name in names):
            return Wait.PULLING
        for reading in self._work.readings_by_node.get(node_name, ()):
            if not any(canonical(result.image) in names for result in reading.results):
                continue
            owner = reading.pod.owner
            cache = self._work.caches.get(owner.uid) if owner is not None else None
            held = reading.pod.key in self._kept or (cache is not None and bool(cache.hold_seconds))
            # A finished pod that nobody keeps goes in a moment.
            return RemovalResult.HELD if held else Wait.PULLING
        return None

    def _wanted(self, node_name: str, names: Iterable[str], asked: Round) -> bool:
        """Whether a cache wants the image there, by whatever name; the one that purges itself wants nothing."""
        for standing in self._standings:
            cache = standing.cache
            if is_purged(cache) or (cache.uid == asked.uid and asked.kind is not RoundKind.EDIT):
                continue
            if any(wants(standing, node_name, name, self._snapshot) for name in names):
                return True
        return False

    def _used(self, node_name: str, names: Collection[str]) -> bool:
        """Whether an unfinished pod on the node needs the image: as a container's, or as a volume."""
        pods = self._snapshot.pods_by_node.get(node_name, {}).values()
        if any(canonical(image) in names for pod in pods for image in pod.shape.images):
            return True
        digests = {name.rpartition("@")[2] for name in names if "@" in name}
        return any(status.image_id.endswith(digest) for pod in pods for status in pod.containers for digest in digests)

    def _ours(self, node_name: str, names: Collection[str]) -> set[str]:
        """Those names under which we pulled it."""
        record = self._snapshot.node_images.get(node_name)
        entries = record.images if record is not None else ()
        return {entry.image for entry in entries if entry.evidence is Evidence.OUR_PULL and entry.image in names}
