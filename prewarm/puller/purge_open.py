"""What is still to be removed in a round, and what stays: by node, judged anew only where something changed."""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from prewarm.model.nodes import PresentImage
from prewarm.model.removals import RemovalResult
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.purge_rounds import Round, RoundKind
from prewarm.puller.purge_stays import wants
from prewarm.puller.standing import Standing

_Claims = tuple[PresentImage, ...]


class _AtNode(Struct, frozen=True):
    """How a round stands on one node."""

    claims: _Claims
    open: Mapping[str, PresentImage]
    stays: Mapping[str, RemovalResult]

    @property
    def images(self) -> frozenset[str]:
        """Those that were not wanted any more and are there."""
        return frozenset((*self.open, *self.stays))


class OpenRound:
    """A round of removals, from one look to the next.

    On 5,000 nodes a record changes at almost every look: the others cost a comparison each.
    """

    def __init__(self, asked: Round) -> None:
        self.asked = asked
        self.open: dict[str, Mapping[str, PresentImage]] = {}
        """What is to be removed, by node and image; only nodes with something."""
        self.stays: Counter[RemovalResult] = Counter()
        """Images that stay on some node, by reason."""
        self.opened = 0
        """Pairs of node and image that are to be removed."""
        self.total = 0
        """All pairs there were to remove, gone ones included. Grows by what comes to be unwanted meanwhile."""
        self.words = ""
        """The last trouble at a node."""
        self._nodes: dict[str, _AtNode] = {}
        self._given: tuple[int, int] | None = None
        """Revision of the standing, and version of the claims where it counts, at the last look; None before it."""

    def follow(
        self, claims: Mapping[str, _Claims], version: int, standing: Standing | None, snapshot: ClusterSnapshot
    ) -> None:
        """Take over what changed.

        Args:
            claims: pulls for the cache by node.
            version: of the claims; a cache whose work has ended is judged by the nodes as they are at each change.
            standing: of the cache; None if it is gone.
            snapshot: of the same moment.
        """
        edited = standing if self.asked.kind is RoundKind.EDIT else None
        given = (0, 0)
        if edited is not None:
            ended = edited.course is not None and edited.course.finished_at is not None
            given = (edited.revision, version if ended else 0)
        first, anew = self._given is None, given != self._given
        self._given = given
        grown = 0
        for node in [node for node in self._nodes if node not in claims]:
            self._put(node, None)
        for node, entries in claims.items():
            known = self._nodes.get(node)
            if known is not None and known.claims is entries and not anew:
                continue
            found = self._judge(node, entries, edited, snapshot)
            grown += len(found.images - known.images) if known is not None else len(found.images)
            self._put(node, found)
        there = self.opened + self.stays.total()
        self.total = max(self.total if first else self.total + grown, there)

    def _judge(self, node: str, entries: _Claims, edited: Standing | None, snapshot: ClusterSnapshot) -> _AtNode:
        unwanted: dict[str, PresentImage] = {}
        stays: dict[str, RemovalResult] = {}
        for entry in entries:
            if entry.stays_in == self.asked.id:
                if entry.stays is not None:
                    stays[entry.image] = entry.stays
            elif edited is None or not wants(edited, node, entry.image, snapshot):
                unwanted.setdefault(entry.image, entry)
        return _AtNode(entries, {image: entry for image, entry in unwanted.items() if image not in stays}, stays)

    def _put(self, node: str, found: _AtNode | None) -> None:
        before = self._nodes.pop(node, None)
        if before is not None:
            self.opened -= len(before.open)
            self.stays.subtract(before.stays.values())
            self.open.pop(node, None)
        if found is not None:
            self._nodes[node] = found
            self.opened += len(found.open)
            self.stays.update(found.stays.values())
            if found.open:
                self.open[node] = found.open
