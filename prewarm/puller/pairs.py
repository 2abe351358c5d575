"""How does each (node, image) that an ImageCache asks for stand?"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from prewarm.model.image_caches import ImageCache
from prewarm.model.images import PullPolicy, canonical, parse_reference
from prewarm.model.nodes import FailedPull, Node
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence import Warmth, record_holds
from prewarm.puller.limits import refusal as limit_of
from prewarm.puller.pods import identity_of
from prewarm.puller.reasons import FailureReason, WithheldReason
from prewarm.puller.refusals import Refusal
from prewarm.puller.retry import retry_at, wait_seconds
from prewarm.puller.targets import obstacle
from prewarm.puller.work import Work


class PairState(StrEnum):
    """Where a wanted (node, image) stands; exactly one holds."""

    SUCCEEDED = "Succeeded"
    ACTIVE = "Active"
    PENDING = "Pending"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class Pair(Struct, frozen=True):
    """A wanted image on a node; `image` as the cache spells it."""

    node: str
    """Empty if it succeeded or is skipped."""
    image: str
    state: PairState
    reason: str = ""
    """FailureReason of the last attempt, NodeState or WithheldReason if skipped."""
    message: str = ""
    attempts: int = 0
    """Attempts that failed so far, also while the next one is under way."""
    failed_at: float = 0.0
    due_at: float | None = None
    """Of a failed one: when it is tried again; None if no pod would help."""

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed; trying again does not take that back."""
        return self.state is PairState.FAILED or (self.state is PairState.ACTIVE and self.attempts > 0)

    @property
    def is_open(self) -> bool:
        """Whether anything is left to do."""
        return self.state not in {PairState.SUCCEEDED, PairState.SKIPPED}

    def is_due(self, now: float) -> bool:
        """Whether a pod may be ordered for it now, as far as the pair itself goes."""
        return self.state is PairState.PENDING or (
            self.state is PairState.FAILED and self.due_at is not None and self.due_at <= now
        )


class Pairs:
    """Judges pairs on one snapshot."""

    def __init__(self, snapshot: ClusterSnapshot, known: Warmth, work: Work, refusals: Iterable[Refusal] = ()) -> None:
        self.snapshot = snapshot
        self._known = known
        self._work = work
        self._refusals = {
            (refusal.order.cache_uid, refusal.order.node, canonical(image)): refusal
            for refusal in refusals
            for image in refusal.order.images
        }
        self._failures: dict[str, Mapping[tuple[str, str], FailedPull]] = {}

    def on_node(self, cache: ImageCache, images: tuple[str, ...], name: str) -> tuple[Pair, ...]:
        """The pairs of a cache on one node, in the order of the images that it asks for there.

        Where nothing is left to do on the node, the pairs name no node: they are the same for all such nodes.
        """
        node = self.snapshot.nodes.get(name)
        if not images:
            return ()
        identity = identity_of(cache)
        blocked: str | None = None
        pairs = []
        for image in images:
            flaw = _flaw(image)
            if flaw:
                pairs.append(Pair(name, image, PairState.FAILED, FailureReason.INVALID_IMAGE, flaw))
            elif (limit := limit_of(cache.allowance, node, name, image)) is not None:
                pairs.append(Pair("", image, PairState.SKIPPED, limit))
            elif node is None:
                pairs.append(Pair("", image, PairState.SKIPPED, WithheldReason.NODE_NOT_FOUND))
            elif self.is_done(cache, name, image, identity):
                pairs.append(Pair("", image, PairState.SUCCEEDED))
            else:
                blocked = (obstacle(node, cache) or "") if blocked is None else blocked
                if blocked:
                    pairs.append(Pair("", image, PairState.SKIPPED, blocked))
                else:
                    pairs.append(self._undone(cache, node, image, identity))
        return tuple(pairs)

    def is_done(self, cache: ImageCache, node_name: str, image: str, identity: str) -> bool:
        """Whether the image is there for this cache.

        Under Always a pull of ours counts from the cache's creation on: what was there before may be another image.
        What this cache itself pulled counts whatever identity its pod ended up with: a ServiceAccount may add secrets.
        """
        always = cache.pull_policy is PullPolicy.ALWAYS
        if not always and self._known.is_warm(node_name, image, pull_identity=identity):
            return True
        own = f"{cache.namespace}/{cache.name}"
        since = float(int(cache.created_at))
        return any(
            sighting.since >= since and (sighting.cache == own or sighting.identity in {identity, ""})
            for sighting in self._known.our_pulls(node_name, image)
        )

    def failures(self, node_name: str) -> Mapping[tuple[str, str], FailedPull]:
        """Failed pulls of a node by cache uid and image, those of live pods that are not on record yet included."""
        known = self._failures.get(node_name)
        if known is None:
            record = self.snapshot.node_images.get(node_name)
            node = self.snapshot.nodes.get(node_name)
            recorded: tuple[FailedPull, ...] = ()
            if record is not None and node is not None and record_holds(record, node):
                recorded = record.failures
            merged = {(failure.cache_uid, failure.image): failure for failure in recorded}
            for reading in self._work.readings_by_node.get(node_name, ()):
                for failure in self._work.failures_of(reading, recorded):
                    old = merged.get((failure.cache_uid, failure.image))
                    if old is None or failure.attempts > old.attempts:
                        merged[failure.cache_uid, failure.image] = failure
            known = self._failures[node_name] = merged
        return known

    def _undone(self, cache: ImageCache, node: Node, image: str, identity: str) -> Pair:
        refusal = self._refusals.get((cache.uid, node.name, canonical(image)))
        if refusal is not None and not self._work.is_active(node.name, image, identity, cache.uid):
            due = refusal.at + wait_seconds(refusal.times, cache.attempt_limit, FailureReason.REFUSED, node.name)
            return Pair(
                node.name,
                image,
                PairState.FAILED,
                FailureReason.REFUSED,
                refusal.message,
                attempts=refusal.order.attempt - 1,
                failed_at=refusal.at,
                due_at=due,
            )
        failure = self.failures(node.name).get((cache.uid, canonical(image)))
        # A ServiceAccount may have added its secrets to what the cache declares; other credentials begin anew.
        attempts = failure.attempts if failure is not None and failure.pull_identity.startswith(identity) else 0
        active = self._work.is_active(node.name, image, identity, cache.uid)
        if failure is None or not attempts:
            return Pair(node.name, image, PairState.ACTIVE if active else PairState.PENDING)
        return Pair(
            node.name,
            image,
            PairState.ACTIVE if active else PairState.FAILED,
            failure.reason,
            failure.message,
            attempts=attempts,
            failed_at=failure.at,
            due_at=retry_at(failure, cache.attempt_limit, node.name),
        )


@lru_cache(maxsize=4096)
def _flaw(image: str) -> str:
    """What is wrong with a reference; "" if nothing."""
    try:
        parse_reference(image)
    except ValueError as error:
        return str(error)
    return ""
