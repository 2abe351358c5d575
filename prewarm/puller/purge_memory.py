"""What purging knows beyond the snapshot: caches to be purged once they are gone, and what is on its way."""

from collections.abc import Collection, Iterator, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.nodes import Node
from prewarm.model.removals import Removed
from prewarm.puller.purge_claims import Claims
from prewarm.puller.purge_open import OpenRound

MAX_REMEMBERED = 2000
"""ImageCaches with deletionPolicy Purge that are remembered: at most 600 KB in a ConfigMap, which holds 1 MiB."""
ORDER_SECONDS = 15.0
"""After that long unseen, a create is taken for lost and is repeated under the same name."""
REFUSED_SECONDS = 30.0
"""Pause after the API server refused a pod: it will refuse the others, too."""


class RememberedCache(Struct, frozen=True, order=True):
    """A cache whose images are to go when it is deleted."""

    uid: str
    namespace: str
    name: str


class PurgeOrder(Struct, frozen=True):
    """A pod that was ordered and perhaps is not visible yet."""

    node: str
    ordered_at: float


class Trouble(Struct, frozen=True):
    """Attempts at a node that failed in a row."""

    attempts: int
    at: float
    words: str


class PurgeMemory:
    """Kept from one reconcile to the next. What must outlive the controller is `remembered`; the caller stores it."""

    def __init__(self, remembered: Collection[RememberedCache] = ()) -> None:
        self.remembered: dict[str, RememberedCache] = {cache.uid: cache for cache in remembered}
        self.claims = Claims()
        self.troubles: dict[str, Trouble] = {}
        self.reported: dict[tuple[str, str], Removed] = {}
        """By node and image, why it stayed at the last of those attempts."""
        self.noted: set[str] = set()
        """uids of pods whose failure was counted."""
        self.rounds: dict[str, OpenRound] = {}
        """By round, what is left of it."""
        self.waits: dict[str, tuple[Node | None, bool]] = {}
        """By name, a node, and whether no pod could do anything on it."""
        self.begun: dict[str, tuple[str, float]] = {}
        """By uid of a cache, a purge that is asked for and the time at which it begins, until the status shows it."""
        self.orders: dict[tuple[str, str], PurgeOrder] = {}
        self.refusal = ""
        self.refused_until = 0.0

    def refused(self, namespace: str, name: str, message: str, at: float) -> None:
        """Tell that the API server did not take a pod, in its words; others' pods are passed over."""
        if self.orders.pop((namespace, name), None) is not None:
            self.refusal, self.refused_until = message, at + REFUSED_SECONDS

    def unsent(self, namespace: str, name: str) -> None:
        """Tell that a create was not sent, for no fault of its own."""
        self.orders.pop((namespace, name), None)

    def lost(self, namespace: str, name: str, until: float) -> None:
        """Tell that a create has no answer, and until when the pod may yet show."""
        order = self.orders.get((namespace, name))
        if order is not None:
            self.orders[namespace, name] = replace(order, ordered_at=until - ORDER_SECONDS)

    def catch_up(self, visible: Collection[tuple[str, str]], now: float) -> None:
        """Drop orders that are visible or overdue, or of a later time: the clock was set back.

        Refusals and failures of a later time are taken for new.
        """
        self.refused_until = min(self.refused_until, now + REFUSED_SECONDS)
        for node, trouble in self.troubles.items():
            if trouble.at > now:
                self.troubles[node] = replace(trouble, at=now)
        if self.orders:
            if any(key in visible for key in self.orders):
                self.refusal = ""
            self.orders = {
                key: order
                for key, order in self.orders.items()
                if key not in visible and order.ordered_at <= now < order.ordered_at + ORDER_SECONDS
            }

    def wake_times(self) -> Iterator[float]:
        """When something asked for is to be asked for again."""
        for order in self.orders.values():
            yield order.ordered_at + ORDER_SECONDS


def encode_remembered(caches: Sequence[RememberedCache]) -> str:
    """Caches to be purged once they are gone, as JSON in the order given; the first MAX_REMEMBERED of too many."""
    return msgspec.json.encode(caches[:MAX_REMEMBERED]).decode()


def decode_remembered(text: str) -> tuple[RememberedCache, ...]:
    """The same, read back.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        return tuple(msgspec.json.decode(text, type=list[RememberedCache]))[:MAX_REMEMBERED]
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"caches to be purged cannot be read: {error}") from None
