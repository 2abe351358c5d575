"""What became of the bytes that were pulled ahead: used, or wasted. Each pull is judged once."""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from prewarm.accounting.ledger import MAX_PULLS, RESOLUTION_SECONDS, Ledger, OutstandingPull, PullKey
from prewarm.accounting.messages import MessageKind
from prewarm.accounting.pulls import SAME_SECONDS
from prewarm.history import History
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence.evidence import record_holds

RETENTION_SECONDS = 86400.0
"""A pull that nothing used within a day is wasted, though the image may still be there."""
SUPERSEDED_SECONDS = 60.0
"""How long an image has to be there before it counts as superseded: the start that uses it may not be reported yet."""


class ByteUse(StrEnum):
    """What is said of a pull's bytes: PULLED once, then one of the others."""

    PULLED = "pulled"
    USED = "used"
    WASTED = "wasted"


class WasteReason(StrEnum):
    """Why bytes were wasted."""

    SUPERSEDED = "Superseded"
    """No workload and no ImageCache asks for the image any more."""
    EVICTED = "Evicted"
    """The image went from the node's record and list, or the node itself went."""
    EXPIRED = "Expired"
    """Nothing used it within a day."""


class ByteVerdict(Struct, frozen=True):
    """One statement about one pull of ours; a size of 0 is unknown."""

    use: ByteUse
    node: str
    image: str
    size_bytes: int
    reason: WasteReason | None = None


class WasteMemory:
    """Which records were read, kept from one call of `waste` to the next.

    Reading those of 5,000 nodes with 100 images each takes more than a second, and little of it is new two seconds
    later. Losing it costs that time, nothing else.
    """

    def __init__(self) -> None:
        self._read: dict[str, tuple[NodeImages, Node | None]] | None = None

    def changed(self, snapshot: ClusterSnapshot) -> frozenset[str] | None:
        """Nodes that are to be read, those included that have no record any more; None for all."""
        if self._read is None:
            return None
        found = {name for name in self._read if name not in snapshot.node_images}
        for name, record in snapshot.node_images.items():
            known = self._read.get(name)
            if known is None or known[0] is not record or known[1] is not snapshot.nodes.get(name):
                found.add(name)
        return frozenset(found)

    def note(self, snapshot: ClusterSnapshot, again: Collection[str]) -> None:
        """Take note that everything was read; some nodes are to be read once more all the same."""
        nodes = snapshot.nodes
        self._read = {
            name: (record, nodes.get(name)) for name, record in snapshot.node_images.items() if name not in again
        }


def waste(
    ledger: Ledger, snapshot: ClusterSnapshot, history: History, memory: WasteMemory | None = None
) -> tuple[Ledger, tuple[ByteVerdict, ...]]:
    """Take up new pulls from the nodes' records and judge those whose fate is known.

    Call it after `account`, which credits starts to pulls.

    Args:
        ledger: with a memory the one that came of the last call with it.
        snapshot: the cluster.
        history: sizes of images.
        memory: kept by the caller, so that only records that changed are read.
    """
    now = snapshot.taken_at
    changed = memory.changed(snapshot) if memory is not None else None
    recorded = {key: (uid, image) for key, uid, image in _recorded(snapshot, changed)}
    pulls, closed = dict(ledger.pulls), dict(ledger.closed_pulls)
    again = _take_up(ledger, recorded, pulls, closed, now)
    wanted = _wanted(snapshot)
    verdicts: list[ByteVerdict] = []
    for key in sorted(key for key, pull in pulls.items() if not _rests(ledger, pull, changed, wanted, now)):
        pull = pulls[key]
        unread = changed is not None and key.node not in changed
        # What waits for its verdict is there and unused, or it would have had one.
        there = _unused(key) if unread else recorded[key][1] if key in recorded else None
        size = pull.size_bytes or _size(ledger, key, there, history)
        fate = _fate(ledger, key, there, wanted, now)
        if fate is not None and fate[1] is WasteReason.EVICTED and _untraceable(pull, snapshot):
            del pulls[key]
            continue
        if not pull.counted and (size or fate is not None):
            verdicts.append(ByteVerdict(ByteUse.PULLED, key.node, key.image, size))
        if fate is None:
            pulls[key] = replace(pull, size_bytes=size, counted=pull.counted or size > 0)
            continue
        use, reason = fate
        verdicts.append(ByteVerdict(use, key.node, key.image, size, reason))
        del pulls[key]
        closed[key] = True
    if changed is None or changed:
        closed = {key: True for key in closed if key in recorded or (changed is not None and key.node not in changed)}
    if memory is not None:
        memory.note(snapshot, again)
    return replace(ledger, pulls=pulls, closed_pulls=closed), tuple(verdicts)


def _take_up(
    ledger: Ledger,
    recorded: Mapping[PullKey, tuple[str, PresentImage]],
    pulls: dict[PullKey, OutstandingPull],
    closed: dict[PullKey, bool],
    now: float,
) -> set[str]:
    """Add what is new; nodes with something that cannot be taken up yet."""
    again = set()
    for key, (uid, image) in recorded.items():
        if key in pulls or key in closed or key.since < ledger.pulls_since:
            continue
        # The kubelet's word on whether the pull brought anything may come a little after the pod's status.
        if key.since > now - SAME_SECONDS:
            again.add(key.node)
        elif _brought_nothing(ledger, key):
            closed[key] = True
        elif len(pulls) < MAX_PULLS:
            pulls[key] = OutstandingPull(key, uid, image.cache)
        else:
            again.add(key.node)
    return again


def _rests(
    ledger: Ledger, pull: OutstandingPull, changed: frozenset[str] | None, wanted: frozenset[str], now: float
) -> bool:
    """Whether there is nothing to say of a pull, of which most have nothing new."""
    key = pull.key
    return (
        changed is not None
        and key.node not in changed
        and pull.counted
        and key.image in wanted
        and now < key.since + RETENTION_SECONDS
        and (key.node, key.image) not in ledger.credited
    )


def _unused(key: PullKey) -> PresentImage:
    return PresentImage(key.image, Evidence.OUR_PULL, key.since)


def _recorded(
    snapshot: ClusterSnapshot, names: Collection[str] | None = None
) -> Iterator[tuple[PullKey, str, PresentImage]]:
    """Our pulls as the records of these nodes, or of all, tell them."""
    for name in snapshot.node_images if names is None else names:
        record, node = snapshot.node_images.get(name), snapshot.nodes.get(name)
        if record is None or node is None or not record_holds(record, node):
            continue
        for image in record.images:
            if image.evidence is Evidence.OUR_PULL:
                yield PullKey(name, image.image, image.since), record.node_uid, image


def _untraceable(pull: OutstandingPull, snapshot: ClusterSnapshot) -> bool:
    """Whether only our record of the image went: the record was deleted, or the node booted, which voids it.

    Nothing tells then what becomes of the bytes; counting them as wasted would be a guess.
    """
    key = pull.key
    node = snapshot.nodes.get(key.node)
    if node is None or node.uid != pull.node_uid:
        return False
    record = snapshot.node_images.get(key.node)
    if record is None or not record_holds(record, node):
        return True
    if any(image.image == key.image for image in record.images):
        return True
    return any(canonical(name) == key.image for image in node.images for name in image.names)


def _brought_nothing(ledger: Ledger, key: PullKey) -> bool:
    word = ledger.said.get((key.node, key.image))
    return word is not None and word.kind is MessageKind.PRESENT and abs(word.at - key.since) < SAME_SECONDS


def _wanted(snapshot: ClusterSnapshot) -> frozenset[str]:
    templates = (image for workload in snapshot.workloads.values() for image in workload.template.shape.images)
    caches = (image for cache in snapshot.image_caches.values() for entry in cache.lists for image in entry.images)
    return frozenset(canonical(image) for images in (templates, caches) for image in images)


def _size(ledger: Ledger, key: PullKey, there: PresentImage | None, history: History) -> int:
    word = ledger.said.get((key.node, key.image))
    if there is not None and there.size_bytes:
        return there.size_bytes
    if word is not None and word.size_bytes:
        return word.size_bytes
    known = history.image_sizes.get(key.image)
    return int(known.value) if known is not None else 0


def _fate(
    ledger: Ledger, key: PullKey, there: PresentImage | None, wanted: frozenset[str], now: float
) -> tuple[ByteUse, WasteReason | None] | None:
    """What became of the bytes; None while a use may still come."""
    credited = ledger.credited.get((key.node, key.image))
    if (credited is not None and credited >= key.since - RESOLUTION_SECONDS) or (
        there is not None and there.used_at is not None
    ):
        return ByteUse.USED, None
    if there is None:
        return ByteUse.WASTED, WasteReason.EVICTED
    if key.image not in wanted and now >= key.since + SUPERSEDED_SECONDS:
        return ByteUse.WASTED, WasteReason.SUPERSEDED
    if now >= key.since + RETENTION_SECONDS:
        return ByteUse.WASTED, WasteReason.EXPIRED
    return None
