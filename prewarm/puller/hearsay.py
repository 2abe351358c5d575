"""What of a puller pod its own status does not tell: what it was ordered as, and what the kubelet said aside.

Losing it costs words, or an attempt that is not counted; never a repeated pull.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import KubeletEvent
from prewarm.puller.pods import Order, annotations_of

SECRET_EVENT = "FailedToRetrieveImagePullSecret"  # noqa: S105 - the reason of an Event
_MAX_MESSAGE = 256
_MOST_SAID = 2000


class Hearsay:
    """Kept from one snapshot to the next."""

    def __init__(self) -> None:
        self._orders: dict[ObjectKey, Order] = {}
        self._secrets: dict[str, str] = {}
        self.altered: dict[str, str] = {}
        """By uid of ImageCaches, what admission made of the newest pods; "" if nothing."""

    def heard(self, events: Iterable[KubeletEvent]) -> None:
        """Take note of secrets that a kubelet did not find; of other Events nothing is kept."""
        for event in events:
            if event.reason == SECRET_EVENT and event.pod_uid:
                self._secrets[event.pod_uid] = event.message[:_MAX_MESSAGE]
                if len(self._secrets) > _MOST_SAID:
                    del self._secrets[next(iter(self._secrets))]

    def seen(self, orders: Iterable[Order]) -> None:
        """Take note of orders that have become pods."""
        self._orders.update((order.key, order) for order in orders)

    def forget_others(self, snapshot: ClusterSnapshot) -> None:
        """Drop what concerns pods and ImageCaches that are gone."""
        if self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key in snapshot.puller_pods}
        if self.altered:
            caches = {cache.uid for cache in snapshot.image_caches.values()}
            self.altered = {uid: text for uid, text in self.altered.items() if uid in caches}

    def order_of(self, key: ObjectKey) -> Order | None:
        """As what a pod was ordered; None if that is not known."""
        return self._orders.get(key)

    def missing_secret(self, pod: Pod) -> str:
        """What the kubelet said of secrets that it did not find for a pod; "" if nothing."""
        return self._secrets.get(pod.uid, "")

    def restored(self, pod: Pod) -> Pod:
        """The pod with the annotations that it was ordered with, which admission may have dropped."""
        order = self._orders.get(pod.key)
        if order is None:
            return pod
        ours: Mapping[str, str] = annotations_of(order)
        if ours.keys() <= pod.annotations.keys():
            return pod
        return replace(pod, annotations={**ours, **pod.annotations})
