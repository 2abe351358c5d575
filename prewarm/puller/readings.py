"""What every puller pod says, read once for as long as the pod is the same value.

A thousand pods of which ten changed cost ten readings. Losing it costs time, nothing else.
"""

from collections.abc import Callable

from msgspec import Struct

from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.puller.alterations import alterations
from prewarm.puller.hearsay import Hearsay
from prewarm.puller.outcome import Reading, given_up_at, read
from prewarm.puller.pods import Order


class _Known(Struct, frozen=True):
    """A reading, and all that it follows from."""

    raw: Pod
    order: Order | None
    timeout_seconds: float
    missing_secret: str
    late: bool
    """Whether the time for a verdict had passed."""
    reading: Reading
    altered: str

    @property
    def is_final(self) -> bool:
        """Whether neither time nor Events can change it."""
        return self.reading.settled and not self.reading.failed


class Readings:
    """Kept from one snapshot to the next.

    Attributes:
        moved: nodes with a pod that came, went, or was read anew at the last call of `take`.
    """

    def __init__(self) -> None:
        self.moved: frozenset[str] = frozenset()
        self._known: dict[ObjectKey, _Known] = {}

    def take(
        self, snapshot: ClusterSnapshot, hearsay: Hearsay, timeout_of: Callable[[Pod], float]
    ) -> tuple[Reading, ...]:
        """Every puller pod of a snapshot, in order of key."""
        before, now = self._known, snapshot.taken_at
        known: dict[ObjectKey, _Known] = {}
        moved: set[str] = set()
        for key in sorted(snapshot.puller_pods):
            raw = snapshot.puller_pods[key]
            found = before.get(key)
            order = hearsay.order_of(key)
            if found is not None and found.raw is raw and found.order is order and found.is_final:
                known[key] = found
                continue
            timeout, secret = timeout_of(raw), hearsay.missing_secret(raw)
            late = now > given_up_at(raw, timeout)
            if (
                found is None
                or found.raw is not raw
                or found.order is not order
                or found.timeout_seconds != timeout
                or found.missing_secret != secret
                or found.late is not late
            ):
                moved.add(raw.node_name)
                if found is not None:
                    moved.add(found.raw.node_name)
                pod = hearsay.restored(raw)
                reading = read(pod, now, timeout, secret)
                said = alterations(pod) if raw is pod else dict.fromkeys((*alterations(pod), *alterations(raw)))
                found = _Known(raw, order, timeout, secret, late, reading, "; ".join(said))
            known[key] = found
        moved.update(gone.raw.node_name for key, gone in before.items() if key not in known)
        self._known, self.moved = known, frozenset(moved)
        return tuple(entry.reading for entry in known.values())

    def altered(self, key: ObjectKey) -> str:
        """What admission made of a pod that was read at the last call; "" if nothing."""
        found = self._known.get(key)
        return found.altered if found is not None else ""
