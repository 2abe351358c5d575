"""Is an image on a node, usable by a given pod? Answered node by node, only where asked."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from prewarm.model.images import PullPolicy
from prewarm.model.nodes import Node, NodeImages
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence.evidence import Sighting, Sightings, gather
from prewarm.presence.names import keys

_NO_PODS: Mapping[ObjectKey, Pod] = {}


class _Remembered(Struct, frozen=True):
    node: Node
    record: NodeImages | None
    pods: Mapping[ObjectKey, Pod]
    pullers: tuple[Pod, ...]
    sightings: Sightings
    version: int

    def still(self, node: Node, record: NodeImages | None, pods: Mapping[ObjectKey, Pod]) -> bool:
        """Whether it was gathered from these very values; they never change, so identity is enough."""
        return self.node is node and self.record is record and self.pods is pods


class WarmthMemory:
    """What was gathered from values that are still the same, kept from one snapshot to the next.

    Pass one to every call of `warmth` to read only the nodes that changed. It holds nothing that the snapshot does not
    say, so it may be dropped at any time.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, _Remembered] = {}
        self._versions = 0

    def recall(
        self, node: Node, record: NodeImages | None, pods: Mapping[ObjectKey, Pod], pullers: tuple[Pod, ...]
    ) -> _Remembered:
        """What shows the images on one node; gathered anew only if one of the values is another one."""
        known = self._nodes.get(node.name)
        if known is not None and known.still(node, record, pods) and _same(known.pullers, pullers):
            return known
        sightings = gather(node, record, pods.values(), pullers)
        if known is not None and known.sightings == sightings:
            version = known.version
        else:
            self._versions += 1
            version = self._versions
        fresh = _Remembered(node, record, pods, pullers, sightings, version)
        self._nodes[node.name] = fresh
        return fresh

    def forget_others(self, nodes: Mapping[str, Node]) -> None:
        """Drop nodes that are gone."""
        if len(self._nodes) > len(nodes):
            self._nodes = {name: known for name, known in self._nodes.items() if name in nodes}


def _same(left: tuple[Pod, ...], right: tuple[Pod, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


class Warmth:
    """Images by node on one snapshot.

    Whose an image is (KEP-2535, kubelet default NeverVerifyPreloadedImages): one that came under some credentials is
    warm for pods with the same credentials; one that came without any, for every pod. An image of which only the
    node's list speaks is warm for everybody: preloaded images are never verified, and for others the doubt costs tens
    of milliseconds at the pod's start, while resolving it would cost a pod on every node. An image known to have come
    only under other credentials is not warm: the kubelet asks the registry again, and may be refused.
    """

    def __init__(self, snapshot: ClusterSnapshot, memory: WarmthMemory | None = None) -> None:
        self._snapshot = snapshot
        self._memory = memory if memory is not None else WarmthMemory()
        self._memory.forget_others(snapshot.nodes)
        self._pullers: dict[str, tuple[Pod, ...]] = {}
        by_node: dict[str, list[Pod]] = {}
        for pod in snapshot.puller_pods.values():
            by_node.setdefault(pod.node_name, []).append(pod)
        self._pullers = {name: tuple(pods) for name, pods in by_node.items()}
        self._asked: dict[str, _Remembered] = {}

    def is_warm(
        self,
        node_name: str,
        image: str,
        *,
        pull_identity: str = "",
        pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT,  # noqa: ARG002 - said by the caller, see below
    ) -> bool:
        """Whether a pod with this pull identity finds the image on the node.

        The policy makes no difference: under Always the kubelet still asks the registry for the manifest, a round
        trip that nothing can save, but transfers no layer that is there.
        """
        sightings = self.evidence(node_name, image)
        if not sightings:
            return False
        known = [sighting.identity for sighting in sightings if sighting.identity is not None]
        return not known or "" in known or pull_identity in known

    def evidence(self, node_name: str, image: str) -> tuple[Sighting, ...]:
        """What shows that the image is on the node, our pulls first; empty if nothing does."""
        found = self.sightings(node_name)
        for key in keys(image):
            if key in found:
                return found[key]
        return ()

    def sightings(self, node_name: str) -> Sightings:
        """Everything known to be on one node, by spelling; empty for an unknown node."""
        remembered = self._remembered(node_name)
        return remembered.sightings if remembered is not None else {}

    def version(self, node_name: str) -> int:
        """A number that changes whenever `sightings` of the node does, within one memory; 0 for an unknown node."""
        remembered = self._remembered(node_name)
        return remembered.version if remembered is not None else 0

    def pullers(self, node_name: str) -> tuple[Pod, ...]:
        """Our puller pods on one node, finished ones included."""
        return self._pullers.get(node_name, ())

    def nodes(self) -> Iterator[str]:
        """Names of all nodes."""
        return iter(self._snapshot.nodes)

    def _remembered(self, node_name: str) -> _Remembered | None:
        asked = self._asked.get(node_name)
        if asked is not None:
            return asked
        node = self._snapshot.nodes.get(node_name)
        if node is None:
            return None
        remembered = self._memory.recall(
            node,
            self._snapshot.node_images.get(node_name),
            self._snapshot.pods_by_node.get(node_name, _NO_PODS),
            self.pullers(node_name),
        )
        self._asked[node_name] = remembered
        return remembered


def warmth(snapshot: ClusterSnapshot, memory: WarmthMemory | None = None) -> Warmth:
    """Which images are on which node; reads a node when it is asked about.

    Args:
        snapshot: the cluster.
        memory: kept by the caller from one snapshot to the next, so that unchanged nodes are not read again.
    """
    return Warmth(snapshot, memory)
