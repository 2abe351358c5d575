"""What was ordered and is not visible yet: the next snapshot may be older than our last write."""

from msgspec import Struct

from prewarm.model.image_caches import ImageCache
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey

PATIENCE_SECONDS = 30.0
"""How long an ordered write is taken for done; then the snapshot alone counts, and a lost write is ordered again."""


class _Order(Struct, frozen=True):
    wanted: ImageCache | None
    seen: str
    """Resource version of the object when the order was given; "" if there was none."""
    at: float


class DeliveryMemory:
    """Bridges the time until a write is visible. It may be dropped at any time: writes are idempotent."""

    def __init__(self) -> None:
        self._orders: dict[ObjectKey, _Order] = {}

    def remember(self, key: ObjectKey, wanted: ImageCache | None, snapshot: ClusterSnapshot) -> None:
        """Note an ordered apply, or a deletion (None)."""
        self._orders[key] = _Order(wanted, _version(snapshot, key), snapshot.taken_at)

    def forget(self, key: ObjectKey) -> None:
        """Note that the write for an ImageCache failed: it is ordered again by the next delivery."""
        self._orders.pop(key, None)

    def in_force(self, snapshot: ClusterSnapshot) -> dict[ObjectKey, ImageCache]:
        """ImageCaches as they are, or as they were ordered where the snapshot does not show the order's effect yet."""
        self._orders = {
            key: order
            for key, order in self._orders.items()
            if order.seen == _version(snapshot, key) and order.at <= snapshot.taken_at < order.at + PATIENCE_SECONDS
        }
        caches = dict(snapshot.image_caches)
        for key, order in self._orders.items():
            if order.wanted is None:
                caches.pop(key, None)
            else:
                caches[key] = order.wanted
        return caches


def _version(snapshot: ClusterSnapshot, key: ObjectKey) -> str:
    cache = snapshot.image_caches.get(key)
    return "" if cache is None else f"{cache.uid}/{cache.resource_version}"
