"""What the API server would not take, and what that says of other pods of the same kind.

A quota or a webhook refuses them all; asking for each of a thousand nodes would be noise. A rule about one node refuses
that one: the others must not wait for it. Which of the two it is, pods of other nodes tell.
"""

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache
from prewarm.model.images import canonical
from prewarm.model.nodes import Node
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.puller.forms import form_on
from prewarm.puller.pods import Order
from prewarm.puller.reasons import FailureReason
from prewarm.puller.retry import wait_seconds

SEVERAL_NODES = 3
"""So many nodes' pods have to be refused before it is taken to be about the image or the cache, not about a node."""
HEALING_SECONDS = 60.0
"""Errors of the server (5xx) use up attempts only after so long: a server that comes back costs nobody a run."""
_REFUSAL_SECONDS = 7200.0

Kind = tuple[str, str]
"""Uid of a cache and image, in canonical spelling."""


class Refusal(Struct, frozen=True):
    """What the API server said to the creation of a puller pod."""

    order: Order
    message: str
    at: float
    """Of the last refusal, Unix seconds."""
    times: int = 1
    first_at: float = 0.0
    failing_since: float | None = None
    """Of the first of the server's errors in a row, if the last answer was one; None if the server meant it."""
    own: bool = False
    """Whether pods of the same kind were taken on other nodes meanwhile: it says nothing of those."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """Of the pod's images."""
        return frozenset((self.order.cache_uid, canonical(image)) for image in self.order.images)

    @property
    def counts(self) -> bool:
        """Whether it uses up attempts."""
        return self.failing_since is None or self.at - self.failing_since >= HEALING_SECONDS

    def is_final(self, cache: ImageCache | None) -> bool:
        """Whether this pod is not asked for any more in this run."""
        return cache is not None and cache.completion.once and self.counts and self.times >= cache.attempt_limit

    def due_at(self, limit: int) -> float:
        """When it is asked for again where so many attempts are usual."""
        limit = limit if self.counts else self.times + 1
        return self.at + wait_seconds(self.times, limit, FailureReason.REFUSED, self.order.node)


def given_up(refusals: Iterable[Refusal], caches: Mapping[str, ImageCache]) -> dict[Kind, Refusal]:
    """What is not asked for any more on any node, with the last refusal; `caches` by uid."""
    found: dict[Kind, dict[str, Refusal]] = {}
    for refusal in refusals:
        if not refusal.own and refusal.is_final(caches.get(refusal.order.cache_uid)):
            for kind in refusal.kinds:
                found.setdefault(kind, {})[refusal.order.node] = refusal
    return {
        kind: max(by_node.values(), key=lambda refusal: refusal.at)
        for kind, by_node in found.items()
        if len(by_node) >= SEVERAL_NODES
    }


def probed_at(refusals: Iterable[Refusal]) -> dict[Kind, float]:
    """When a further node may be asked whether the server takes there what it refused elsewhere, one at a time.

    At once for the first few nodes, then with growing pauses.
    """
    found: dict[Kind, dict[str, float]] = {}
    for refusal in refusals:
        if not refusal.own:
            for kind in refusal.kinds:
                found.setdefault(kind, {})[refusal.order.node] = refusal.first_at
    times = {}
    for kind, by_node in found.items():
        beyond = len(by_node) - SEVERAL_NODES + 1
        pause = wait_seconds(beyond, beyond + 1, FailureReason.REFUSED) if beyond > 0 else 0.0
        times[kind] = max(by_node.values()) + pause
    return times


def is_outdated(order: Order, caches: Mapping[str, ImageCache], nodes: Mapping[str, Node]) -> bool:
    """Whether another pod would be made now: the spec was edited, a policy gives it another form, or it is gone.

    Args:
        order: the pod that was asked for.
        caches: by uid, completed.
        nodes: by name.
    """
    cache, node = caches.get(order.cache_uid), nodes.get(order.node)
    if cache is None or node is None or cache.generation > order.generation:
        return True
    return form_on(cache, node) is not order.form


class Refusals:
    """Pods that the API server did not take."""

    def __init__(self) -> None:
        self._by_key: dict[ObjectKey, Refusal] = {}
        self._tried_again: dict[ObjectKey, float] = {}
        """Pods asked for once more since others of their kind were taken, and since when."""

    @property
    def all(self) -> Collection[Refusal]:
        """What is remembered."""
        return self._by_key.values()

    def add(self, order: Order, message: str, at: float, failing_since: float | None = None) -> None:
        """Tell of a refusal; `failing_since` if it is errors of the server that last since then."""
        before = self._by_key.get(order.key)
        times, first_at = 1, at
        if before is not None:
            if before.order.generation > order.generation:
                return
            times, first_at = before.times + 1, before.first_at
            if failing_since is not None and before.failing_since is not None:
                failing_since = before.failing_since
        own = order.key in self._tried_again
        self._by_key[order.key] = Refusal(order, message, at, times, first_at, failing_since, own)

    def interrupted(self, key: ObjectKey, at: float) -> None:
        """Tell that a pod had no answer: errors of the server that follow are not of one row with those before."""
        before = self._by_key.get(key)
        if before is not None and before.failing_since is not None:
            self._by_key[key] = replace(before, failing_since=at)

    def explain(self, key: ObjectKey, order: Order | None) -> bool:
        """Whether a single error of the server is one more of those that refused this pod, or others of its kind."""
        if key in self._by_key or order is None:
            return key in self._by_key
        kinds = {(order.cache_uid, canonical(image)) for image in order.images}
        return any(
            refusal.failing_since is not None and not refusal.own and not kinds.isdisjoint(refusal.kinds)
            for refusal in self._by_key.values()
        )

    def made(self, snapshot: ClusterSnapshot) -> list[Order]:
        """Pods that are there all the same: an error may have come though the pod was made."""
        return [refusal.order for key, refusal in self._by_key.items() if key in snapshot.puller_pods]

    def catch_up(self, snapshot: ClusterSnapshot, caches: Mapping[str, ImageCache], taken: Iterable[Order]) -> None:
        """Drop what is long ago or about another spec, and have asked again what pods seen by now speak for.

        What is of a later time than the snapshot is taken for new: the clock was set back.
        """
        now = snapshot.taken_at
        self._tried_again = {
            key: at
            for key, at in self._tried_again.items()
            if at <= now < at + _REFUSAL_SECONDS and key not in snapshot.puller_pods
        }
        if not self._by_key:
            return
        self._by_key = {
            key: refusal if refusal.at <= now else _at(refusal, now)
            for key, refusal in self._by_key.items()
            if refusal.at + _REFUSAL_SECONDS > now
            and key not in snapshot.puller_pods
            and not is_outdated(refusal.order, caches, snapshot.nodes)
        }
        taken_kinds = {
            (order.cache_uid, canonical(image))
            for order in taken
            if not is_outdated(order, caches, snapshot.nodes)
            for image in order.images
        }
        if not taken_kinds:
            return
        for key, refusal in list(self._by_key.items()):
            if refusal.kinds.isdisjoint(taken_kinds):
                continue
            if refusal.own:
                # That others are taken may mean that the server has room again, little by little.
                self._by_key[key] = replace(refusal, times=1)
            else:
                del self._by_key[key]
                self._tried_again[key] = now


def _at(refusal: Refusal, now: float) -> Refusal:
    since = refusal.failing_since
    # How long errors have lasted is known still.
    since = since if since is None else now - max(0.0, refusal.at - since)
    return replace(refusal, at=now, first_at=min(refusal.first_at, now), failing_since=since)
