"""How does each (node, image) that an ImageCache asks for stand?"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from prewarm.model.image_caches import ImageCache
from prewarm.model.images import PullPolicy, canonical, parse_reference
from prewarm.model.nodes import FailedPull, Node, may_become
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence import Warmth, record_holds
from prewarm.puller.doubt import Doubts
from prewarm.puller.lifecycle import Course, course_of
from prewarm.puller.limits import refusal as limit_of
from prewarm.puller.pods import identity_of
from prewarm.puller.reasons import FailureReason, WithheldReason
from prewarm.puller.refresh import Refresh, asks_again
from prewarm.puller.refusals import Refusal, given_up
from prewarm.puller.retry import retry_at
from prewarm.puller.targets import obstacle
from prewarm.puller.work import Work

_OVER = "not done when completion.activeDeadlineSeconds had passed"


class PairState(StrEnum):
    """Where a wanted (node, image) stands; exactly one holds."""

    SUCCEEDED = "Succeeded"
    ACTIVE = "Active"
    PENDING = "Pending"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class Pair(Struct, frozen=True, gc=False):
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
    """Of a failed one: when it is tried again; None if no pod would help, or it was tried often enough."""
    there: bool = False
    """It is on the node, but a refresh has the registry or the node asked again."""

    @property
    def counted(self) -> PairState:
        """The state as which it counts: what is there and waits to be asked for again is there."""
        return PairState.SUCCEEDED if self.there and self.state is PairState.PENDING else self.state

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

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        known: Warmth,
        work: Work,
        refusals: Iterable[Refusal] = (),
        courses: Mapping[str, Course] | None = None,
        doubts: Doubts | None = None,
    ) -> None:
        """Prepare to judge.

        Args:
            snapshot: the cluster.
            known: warmth of the same snapshot.
            work: pulls under way on it.
            refusals: pods that the API server did not take.
            courses: by uid, where ImageCaches stand between two refreshes, if it is known already.
            doubts: nodes with images that they do not list, told of all that changed; None reads them all.
        """
        self.snapshot = snapshot
        self._courses = dict(courses or {})
        if doubts is None:
            doubts = Doubts()
            doubts.changed(snapshot.nodes)
        self._doubts = doubts
        self.refusals = tuple(refusal for refusal in refusals if self._counts(refusal, work))
        """Those that count: a request to refresh, or a time of the schedule, has the server asked anew."""
        refusals = self.refusals
        self._refused_for_good = given_up(refusals, work.caches)
        self._known = known
        self._work = work
        self._refusals = {
            (refusal.order.cache_uid, refusal.order.node, canonical(image)): refusal
            for refusal in refusals
            for image in refusal.order.images
        }
        self._failures: dict[str, Mapping[tuple[str, str], FailedPull]] = {}

    def _counts(self, refusal: Refusal, work: Work) -> bool:
        cache = work.caches.get(refusal.order.cache_uid)
        return cache is None or refusal.at >= self._course_of(cache).refresh.anew_at

    @property
    def given_up(self) -> frozenset[tuple[str, str]]:
        """Uid of a cache and image which nobody tries any more, on any node: the API server refused too often."""
        return frozenset(self._refused_for_good)

    def on_node(self, cache: ImageCache, images: tuple[str, ...], name: str) -> tuple[Pair, ...]:
        """The pairs of a cache on one node, in the order of the images that it asks for there.

        Where nothing is left to do on the node, the pairs name no node: they are the same for all such nodes.
        """
        node = self.snapshot.nodes.get(name)
        if not images:
            return ()
        course = self._course_of(cache)
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
            else:
                there = self.is_done(cache, name, image, identity)
                rests = there and (course.over or not self.is_asked_again(cache, node, image, identity))
                if not rests:
                    blocked = _blocked(cache, node, course) if blocked is None else blocked
                if rests or (there and blocked):
                    pairs.append(Pair("", image, PairState.SUCCEEDED))
                elif blocked:
                    pairs.append(Pair("", image, PairState.SKIPPED, blocked))
                elif course.over:
                    pairs.append(Pair(name, image, PairState.FAILED, FailureReason.DEADLINE, _OVER))
                else:
                    pairs.append(self._undone(cache, node, image, identity, course.refresh, there=there))
        return tuple(pairs)

    def is_done(self, cache: ImageCache, node_name: str, image: str, identity: str) -> bool:
        """Whether the image is there for this cache.

        Under Always a pull of ours counts from the cache's creation on: what was there before may be another image.
        What this cache itself pulled counts whatever identity its pod ended up with: a ServiceAccount may add secrets.
        With holdPresent only a pod of its own makes it done.
        """
        if cache.hold_present and cache.hold_seconds:
            return self._used_by(cache, node_name, image)
        known = self._known.identities(node_name, image)
        if known is None:
            return False
        if cache.pull_policy is not PullPolicy.ALWAYS and (not known or identity in known or "" in known):
            return True
        return self._pulled_since(cache, node_name, image, identity, float(int(cache.created_at)))

    def is_asked_again(self, cache: ImageCache, node: Node, image: str, identity: str) -> bool:
        """Whether the last refresh has something to ask about an image that is there, and was not answered yet."""
        refresh = self._course_of(cache).refresh
        if refresh.at <= float(int(cache.created_at)):
            return False
        if asks_again(cache, image):
            return not self._pulled_since(cache, node.name, image, identity, refresh.at)
        return self._doubts.concerns(self.snapshot, node, image, refresh.at)

    def _pulled_since(self, cache: ImageCache, node_name: str, image: str, identity: str, since: float) -> bool:
        own = f"{cache.namespace}/{cache.name}"
        return any(
            sighting.since >= since and (sighting.cache == own or sighting.identity in {identity, ""})
            for sighting in self._known.our_pulls(node_name, image)
        )

    def _used_by(self, cache: ImageCache, node_name: str, image: str) -> bool:
        """Whether a pod of this very cache used the image there, which alone protects it."""
        own, since = f"{cache.namespace}/{cache.name}", float(int(cache.created_at))
        sightings = self._known.our_pulls(node_name, image)
        return any(sighting.cache == own and sighting.since >= since for sighting in sightings)

    def _course_of(self, cache: ImageCache) -> Course:
        course = self._courses.get(cache.uid)
        if course is None:
            course = self._courses[cache.uid] = course_of(cache, self.snapshot.taken_at)
        return course

    @staticmethod
    def _is_final(cache: ImageCache | None, attempts: int) -> bool:
        """Whether nothing more is tried after so many attempts."""
        return cache is not None and cache.completion.once and attempts >= cache.attempt_limit

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
                    merged[failure.cache_uid, failure.image] = failure
            known = self._failures[node_name] = merged
        return known

    def _undone(
        self, cache: ImageCache, node: Node, image: str, identity: str, refresh: Refresh, *, there: bool
    ) -> Pair:
        active = self._work.is_active(node.name, image, identity, cache.uid)
        key = (cache.uid, canonical(image))
        refusal: Refusal | None = None
        if self._refusals:
            refusal = self._refusals.get((cache.uid, node.name, key[1])) or self._refused_for_good.get(key)
        if refusal is not None and not active:
            final = refusal.is_final(cache) or key in self._refused_for_good
            return Pair(
                node.name,
                image,
                PairState.FAILED,
                FailureReason.REFUSED,
                refusal.message,
                attempts=refusal.order.attempt - 1,
                failed_at=refusal.at,
                due_at=None if final else due_after(refusal.at, refusal.due_at(cache.attempt_limit), refresh),
                there=there,
            )
        failures = self.failures(node.name)
        failure = failures.get(key) if failures else None
        if failure is None:
            return Pair(node.name, image, PairState.ACTIVE if active else PairState.PENDING, there=there)
        # A ServiceAccount may have added its secrets to what the cache declares; other credentials begin anew.
        own = may_become(failure.pull_identity, cache.namespace, cache.service_account, cache.pull_secrets)
        attempts = failure.attempts if own else 0
        if not attempts or failure.at < refresh.anew_at:
            return Pair(node.name, image, PairState.ACTIVE if active else PairState.PENDING, there=there)
        again_at = retry_at(failure, cache.attempt_limit, node.name, self.snapshot.taken_at)
        due_at = due_after(failure.at, again_at, refresh)
        return Pair(
            node.name,
            image,
            PairState.ACTIVE if active else PairState.FAILED,
            failure.reason,
            failure.message,
            attempts=attempts,
            failed_at=failure.at,
            due_at=None if self._is_final(cache, attempts) else due_at,
            there=there,
        )


def due_after(failed_at: float, due_at: float, refresh: Refresh) -> float:
    """When something that failed is tried again: a refresh that began since does not wait."""
    return min(due_at, refresh.at) if failed_at < refresh.at else due_at


def _blocked(cache: ImageCache, node: Node, course: Course) -> str:
    """Why nothing is pulled for the cache on the node, whichever image it is; "" if nothing speaks against it."""
    return WithheldReason.PURGED if course.purged else obstacle(node, cache) or ""


@lru_cache(maxsize=4096)
def _flaw(image: str) -> str:
    """What is wrong with a reference; "" if nothing."""
    try:
        parse_reference(image)
    except ValueError as error:
        return str(error)
    return ""
