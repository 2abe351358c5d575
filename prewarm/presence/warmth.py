"""Is an image on a node, usable by a given pod? Answered node by node, only where asked."""

from collections.abc import Mapping

from msgspec import Struct

from prewarm.model.images import PullPolicy, canonical
from prewarm.model.nodes import Evidence, Node, NodeImages, pull_identity
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence.evidence import Sighting, Sightings, gather, images_started, pulls_shown, record_holds, vanished
from prewarm.presence.names import by_digest, digest_of, keys

_NO_PODS: Mapping[ObjectKey, Pod] = {}

Identities = tuple[str, ...]
"""Pull identities under which an image is known to have come to a node; empty if nobody knows."""
_NOBODY_KNOWS: Identities = ()
_ANONYMOUS: Identities = ("",)


class _Remembered(Struct, frozen=True):
    """One node, read from values that never change: while they are the same, so is the result."""

    node: Node
    record: NodeImages | None
    pods: Mapping[ObjectKey, Pod]
    pullers: tuple[Pod, ...]
    names: Mapping[str, Identities]

    def still(
        self, node: Node, record: NodeImages | None, pods: Mapping[ObjectKey, Pod], pullers: tuple[Pod, ...]
    ) -> bool:
        return (
            self.node is node
            and self.record is record
            and self.pods is pods
            and len(self.pullers) == len(pullers)
            and all(a is b for a, b in zip(self.pullers, pullers, strict=True))
        )


class WarmthMemory:
    """What was read from values that are still the same, kept from one snapshot to the next.

    Pass one to every call of `warmth` to read only the nodes that changed: about 5 KB a node. It holds nothing that the
    snapshot does not say, so it may be dropped at any time.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, _Remembered] = {}

    def recall(
        self, node: Node, record: NodeImages | None, pods: Mapping[ObjectKey, Pod], pullers: tuple[Pod, ...]
    ) -> Mapping[str, Identities]:
        """The images on one node by spelling; the same object as long as nothing about them changed."""
        known = self._nodes.get(node.name)
        if known is not None and known.still(node, record, pods, pullers):
            return known.names
        names: Mapping[str, Identities] = _names_on(node, record, pods, pullers)
        if known is not None and known.names == names:
            names = known.names
        self._nodes[node.name] = _Remembered(node, record, pods, pullers, names)
        return names

    def forget_others(self, nodes: Mapping[str, Node]) -> None:
        """Drop nodes that are gone."""
        if len(self._nodes) > len(nodes):
            self._nodes = {name: known for name, known in self._nodes.items() if name in nodes}


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
        self._pullers: dict[str, tuple[Pod, ...]] | None = None
        self._asked: dict[str, Mapping[str, Identities]] = {}

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
        known = self.identities(node_name, image)
        return known is not None and (not known or pull_identity in known or "" in known)

    def identities(self, node_name: str, image: str) -> Identities | None:
        """Under which credentials the image came to the node, empty if nobody knows; None if it is not there."""
        names = self.names(node_name)
        for key in keys(image):
            known = names.get(key)
            if known is not None:
                return known
        return None

    def is_there(self, node_name: str, image: str) -> bool:
        """Whether the image is on the node, whoever may use it."""
        return self.identities(node_name, image) is not None

    def names(self, node_name: str) -> Mapping[str, Identities]:
        """Every spelling under which an image is known on the node; empty for an unknown node."""
        asked = self._asked.get(node_name)
        if asked is None:
            node = self._snapshot.nodes.get(node_name)
            if node is None:
                return {}
            record = self._snapshot.node_images.get(node_name)
            pods = self._snapshot.pods_by_node.get(node_name, _NO_PODS)
            asked = self._asked[node_name] = self._memory.recall(node, record, pods, self.pullers(node_name))
        return asked

    def our_pulls(self, node_name: str, image: str) -> tuple[Sighting, ...]:
        """Our own pulls of the image on the node."""
        return tuple(sighting for sighting in self.evidence(node_name, image) if sighting.evidence is Evidence.OUR_PULL)

    def evidence(self, node_name: str, image: str) -> tuple[Sighting, ...]:
        """What shows that the image is on the node, our pulls first; empty if nothing does."""
        if not self.is_there(node_name, image):
            return ()
        found = self.sightings(node_name)
        return next((found[key] for key in keys(image) if key in found), ())

    def sightings(self, node_name: str) -> Sightings:
        """Everything known to be on one node, by spelling; gathered anew at every call."""
        node = self._snapshot.nodes.get(node_name)
        if node is None:
            return {}
        record = self._snapshot.node_images.get(node_name)
        pods = self._snapshot.pods_by_node.get(node_name, _NO_PODS)
        return gather(node, record, pods.values(), self.pullers(node_name))

    def pullers(self, node_name: str) -> tuple[Pod, ...]:
        """Our puller pods on one node, finished ones included."""
        if self._pullers is None:
            by_node: dict[str, list[Pod]] = {}
            for pod in self._snapshot.puller_pods.values():
                by_node.setdefault(pod.node_name, []).append(pod)
            self._pullers = {name: tuple(pods) for name, pods in by_node.items()}
        return self._pullers.get(node_name, ())


def _names_on(
    node: Node, record: NodeImages | None, pods: Mapping[ObjectKey, Pod], pullers: tuple[Pod, ...]
) -> dict[str, Identities]:
    """What `evidence.gather` finds, without its details: this is the hot path of planning."""
    names: dict[str, Identities] = {}
    sizes: dict[str, int] = {}
    for image in node.images:
        for name in image.names:
            spelling = canonical(name)
            names[spelling] = _NOBODY_KNOWS
            sizes[spelling] = image.size_bytes
    if record is not None and record_holds(record, node):
        for entry in record.images:
            if vanished(entry, node, sizes):
                continue
            if entry.evidence is Evidence.NODE_STATUS:
                for key in keys(entry.image):
                    names.setdefault(key, _NOBODY_KNOWS)
            else:
                _add(names, entry.image, entry.digest, entry.pull_identity)
    for image_name, pull in pulls_shown(pullers, record, node) if pullers else ():
        _add(names, image_name, pull.digest, pull.identity or "")
    ours = {pod.key for pod in pullers}
    for pod in pods.values():
        if pod.key not in ours:
            identity = pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets)
            for image_name, status in images_started(pod):
                _add(names, image_name, digest_of(status.image_id), identity)
    return names


def _add(names: dict[str, Identities], image: str, digest: str, identity: str) -> None:
    for key in (*keys(image), by_digest(image, digest)):
        known = names.get(key)
        if key and (known is None or identity not in known):
            names[key] = (*known, identity) if known else ((identity,) if identity else _ANONYMOUS)


def warmth(snapshot: ClusterSnapshot, memory: WarmthMemory | None = None) -> Warmth:
    """Which images are on which node; reads a node when it is asked about.

    Args:
        snapshot: the cluster.
        memory: kept by the caller from one snapshot to the next, so that unchanged nodes are not read again.
    """
    return Warmth(snapshot, memory)
