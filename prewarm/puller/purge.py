"""Removing images from nodes: what is asked for, by whom it is done, what became of it.

Level-triggered like pulling. A claim (an image that we pulled for a cache, on the node's record) is to be removed in a
round until the record says that it is gone or why it stays; a pod says so, or the cluster does.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_PURGE
from prewarm.api.removal import MAX_REMOVALS
from prewarm.model.image_caches import DeletionPolicy, ImageCache
from prewarm.model.intents import IMAGE_CACHES, PODS, Delete, Intent, RemoveAnnotation
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.removals import Removal, RemovalResult, Removed
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.presence import record_holds
from prewarm.puller import purge_pods, purge_rounds
from prewarm.puller.purge_memory import MAX_REMEMBERED, PurgeMemory, PurgeOrder, RememberedCache, Trouble
from prewarm.puller.purge_open import OpenRound
from prewarm.puller.purge_pods import PurgeReading
from prewarm.puller.purge_rounds import Round
from prewarm.puller.purge_stays import Stays, node_waits
from prewarm.puller.settings import PurgeSettings
from prewarm.puller.standing import Standing
from prewarm.puller.work import Work

ATTEMPTS = 4
"""Pods at a node that fail in a row before its images count as staying."""
RETRY_SECONDS = (5.0, 20.0, 60.0)
"""Pauses after the first failures at a node."""

_TRANSIENT = frozenset({RemovalResult.FAILED, RemovalResult.IN_USE})
"""Results of a pod that may be others in a moment: the kubelet keeps containers of deleted pods for up to a minute."""


class Tally(Struct, frozen=True):
    """How far a round is; numbers of (node, image)."""

    round: Round
    total: int
    open: int = 0
    waiting: int = 0
    """Of the open ones, those on nodes that start no pod now."""
    stays: tuple[tuple[RemovalResult, int], ...] = ()
    """By reason, the most frequent first."""
    trouble: str = ""
    """Why pods fail at a node, or are refused; words of the kubelet, the server or the runtime."""
    refused: bool = False
    """Whether the API server takes no pod of ours."""

    @property
    def gone(self) -> int:
        """Those that are not there any more."""
        return max(0, self.total - self.open - sum(count for _, count in self.stays))


class _Answer(Struct, frozen=True):
    """What is known to have become of an image on a node."""

    removed: Removed
    at: float


class Purge:
    """The rounds of one snapshot, and everything that they take."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        settings: PurgeSettings,
        memory: PurgeMemory,
        standings: Sequence[Standing],
        work: Work,
        kept: Collection[ObjectKey] = (),
    ) -> None:
        """Decide; `kept` are puller pods that have done their duty and stay."""
        self._kept = kept
        self._snapshot = snapshot
        self._settings = settings
        self._memory = memory
        self._standings = {standing.cache.uid: standing for standing in standings}
        self._work = work
        self._now = snapshot.taken_at
        self.intents: list[Intent] = []
        """Pods to create, annotations to remove."""
        self.wake_at: float | None = None
        self.nodes: set[str] = set()
        """Whose record has to be looked at."""
        self.tallies: dict[str, Tally] = {}
        """By uid of the cache, deleted ones included."""
        self.ended: list[Tally] = []
        """Of deleted caches, rounds that came to their end now."""
        self._rounds: dict[str, list[OpenRound]] = {}
        """By node, those with something to remove there."""
        self._answers: dict[str, dict[str, _Answer]] = {}
        self._readings: tuple[PurgeReading, ...] = ()
        self._run()

    def _run(self) -> None:
        memory, snapshot = self._memory, self._snapshot
        pods = purge_pods.pods_of(snapshot, self._settings.namespace)
        self._readings = tuple(purge_pods.read(pods[key], self._now) for key in sorted(pods))
        for cache in snapshot.image_caches.values():
            if purge_rounds.asked(cache).is_removable:
                self.intents.append(
                    RemoveAnnotation(IMAGE_CACHES, cache.namespace, cache.name, ANNOTATION_PURGE, "", cache.uid)
                )
        if not self._settings.enabled:
            # Pods of before it was switched off say what they removed, and go.
            self._hear({})
            return
        memory.claims.update(snapshot)
        memory.catch_up(pods.keys(), self._now)
        rounds = self._follow(self._asked())
        pending = self._pending(rounds)
        self._hear(pending)
        self._order(pending)
        for found in rounds:
            self._count(found)
        self._remember(rounds)

    @property
    def resting(self) -> Collection[str]:
        """Uids of caches for which nothing is pulled: purged, or about to be."""
        if not self._settings.enabled:
            return ()
        caches = self._snapshot.image_caches.values()
        return {
            cache.uid for cache in caches if purge_rounds.is_purged(cache) or purge_rounds.asked(cache).mark is not None
        }

    @property
    def remembered(self) -> tuple[RememberedCache, ...] | None:
        """Caches to be kept in our namespace, in a stable order; None where purging is off.

        Of more than can be kept, those that are gone come first, since nothing else knows of them; then the oldest.
        """
        if not self._settings.enabled:
            return None
        known = self._memory.remembered.values()
        if len(known) <= MAX_REMEMBERED:
            return tuple(sorted(known))
        living = {cache.uid: cache.created_at for cache in self._snapshot.image_caches.values()}
        return tuple(sorted(known, key=lambda cache: (living.get(cache.uid, float("-inf")), cache)))

    def _asked(self) -> list[Round]:
        """One round for each cache that asks for removals; what a living one asks replaces what a dead namesake did."""
        living = self._snapshot.image_caches
        rounds = {cache.key: asked for cache in living.values() if (asked := purge_rounds.round_of(cache)) is not None}
        uids = {cache.uid for cache in living.values()}
        for known in sorted(self._memory.remembered.values()):
            if known.uid not in uids:
                key = (known.namespace, known.name)
                rounds.setdefault(key, purge_rounds.deletion_of(known.uid, *key))
        return list(rounds.values())

    def _follow(self, rounds: Sequence[Round]) -> list[OpenRound]:
        """The rounds with what is left of them."""
        memory = self._memory
        memory.rounds = {asked.id: memory.rounds.get(asked.id) or OpenRound(asked) for asked in rounds}
        for found in memory.rounds.values():
            cache, standing = found.asked.cache, self._standings.get(found.asked.uid)
            found.follow(memory.claims.of(cache), memory.claims.version(cache), standing, self._snapshot)
        return list(memory.rounds.values())

    def _pending(self, rounds: Sequence[OpenRound]) -> dict[str, Mapping[str, PresentImage]]:
        """What is to be removed, by node and image."""
        pending: dict[str, Mapping[str, PresentImage]] = {}
        for found in rounds:
            for node, entries in found.open.items():
                others = pending.get(node)
                pending[node] = entries if others is None else {**others, **entries}
                self._rounds.setdefault(node, []).append(found)
        return pending

    def _round_of(self, node: str, image: str) -> Round | None:
        """The round in which an image is to be removed from a node; the last one of several."""
        for found in reversed(self._rounds.get(node, ())):
            if image in found.open[node]:
                return found.asked
        return None

    def _waits(self, name: str) -> bool:
        """Whether no pod could do anything on a node now; judged once for each state of it."""
        node, known = self._snapshot.nodes.get(name), self._memory.waits.get(name)
        if known is None or known[0] is not node:
            known = self._memory.waits[name] = (node, node_waits(node))
        return known[1]

    def _hear(self, pending: Mapping[str, Mapping[str, PresentImage]]) -> None:
        """Take what pods report; count those that failed, once."""
        memory = self._memory
        for reading in self._readings:
            node = reading.pod.node_name
            if reading.report is not None:
                self._look_at(node)
                for removal, removed in zip(reading.removals, reading.report.results, strict=True):
                    if removed.result in _TRANSIENT:
                        self._fail(reading, removed.message)
                        memory.reported[node, removal.image] = removed
                        continue
                    answer = _Answer(removed, reading.ended_at)
                    for name in (removal.image, *(removal.names if removed.result.gone else ())):
                        self._answers.setdefault(node, {})[name] = answer
                if all(removed.result not in _TRANSIENT for removed in reading.report.results):
                    memory.troubles.pop(node, None)
            elif reading.problem:
                self._fail(reading, reading.problem)
        uids = {reading.pod.uid for reading in self._readings}
        memory.noted &= uids
        memory.troubles = {node: trouble for node, trouble in memory.troubles.items() if node in pending}
        memory.reported = {key: removed for key, removed in memory.reported.items() if key[0] in memory.troubles}
        for node, trouble in memory.troubles.items():
            if trouble.attempts >= ATTEMPTS:
                self._look_at(node)
                failed = Removed(RemovalResult.FAILED, trouble.words)
                for image in pending[node]:
                    answer = _Answer(memory.reported.get((node, image), failed), self._now)
                    self._answers.setdefault(node, {}).setdefault(image, answer)

    def _look_at(self, node: str) -> None:
        if node in self._snapshot.nodes:
            self.nodes.add(node)

    def _fail(self, reading: PurgeReading, words: str) -> None:
        node, memory = reading.pod.node_name, self._memory
        if reading.pod.uid not in memory.noted:
            memory.noted.add(reading.pod.uid)
            before = memory.troubles.get(node)
            memory.troubles[node] = Trouble(before.attempts + 1 if before is not None else 1, self._now, words)

    def _order(self, pending: Mapping[str, Mapping[str, PresentImage]]) -> None:
        """Have images removed on as many nodes as may be at once."""
        memory, settings = self._memory, self._settings
        busy = {reading.pod.node_name for reading in self._readings} | {o.node for o in memory.orders.values()}
        stays = Stays(self._snapshot, self._work, self._standings.values(), self._kept)
        for node in sorted(pending):
            if len(busy) >= settings.nodes_at_once:
                break
            if node in busy or self._waits(node) or not self._is_due(node):
                continue
            removals = self._removals(node, pending[node], stays)
            if removals and self._now >= memory.refused_until:
                self._create(node, removals)
                busy.add(node)
            elif removals:
                self._wake(memory.refused_until)

    def _is_due(self, node: str) -> bool:
        record, found = self._snapshot.node_images.get(node), self._snapshot.nodes[node]
        if not record_holds(record, found):
            return False
        trouble = self._memory.troubles.get(node)
        if trouble is None:
            return True
        if trouble.attempts >= ATTEMPTS:
            return False
        due = trouble.at + RETRY_SECONDS[min(trouble.attempts, len(RETRY_SECONDS)) - 1]
        if due > self._now:
            self._wake(due)
        return due <= self._now

    def _removals(self, node: str, entries: Mapping[str, PresentImage], stays: Stays) -> list[Removal]:
        removals: list[Removal] = []
        for image in sorted(entries):
            asked = self._round_of(node, image)
            if asked is None:
                continue
            judged = stays.judge(node, entries[image], asked)
            if isinstance(judged, Removal):
                removals.append(judged)
            elif isinstance(judged, RemovalResult):
                self._look_at(node)
                self._answers.setdefault(node, {})[image] = _Answer(Removed(judged), self._now)
        return removals[:MAX_REMOVALS]

    def _create(self, node_name: str, removals: Sequence[Removal]) -> None:
        node = self._snapshot.nodes[node_name]
        trouble = self._memory.troubles.get(node_name)
        attempt = trouble.attempts + 1 if trouble is not None else 1
        asked = (self._round_of(node_name, removal.image) for removal in removals)
        rounds = sorted({found.id for found in asked if found is not None})
        name = purge_pods.pod_name(node, removals, rounds, attempt)
        self._memory.orders[self._settings.namespace, name] = PurgeOrder(node_name, self._now)
        self._wake(self._now + 15.0)
        self.intents.append(purge_pods.create(node, removals, name, attempt, self._settings))

    def amend(self, name: str, record: NodeImages) -> NodeImages:
        """A node's record with what is known to be gone taken away, and with why others stay."""
        answers = self._answers.get(name)
        if not answers:
            return record
        return replace(record, images=tuple(self._amended(name, record.images, answers)))

    def _amended(
        self, node: str, entries: Sequence[PresentImage], answers: Mapping[str, _Answer]
    ) -> Iterator[PresentImage]:
        for entry in entries:
            answer = answers.get(entry.image)
            if answer is None:
                yield entry
                continue
            asked = self._round_of(node, entry.image)
            if answer.removed.result.gone:
                # What came afterwards, by another pull, is there.
                if entry.since > answer.at or entry.evidence is Evidence.RUNNING_POD:
                    yield entry
            elif asked is not None and entry.cache == asked.cache and entry.evidence is Evidence.OUR_PULL:
                yield replace(entry, stays=answer.removed.result, stays_in=asked.id)
            else:
                yield entry

    def deletions(self, unrecorded: Collection[str]) -> Iterator[Delete]:
        """Pods that have done their duty, or will not; what one reports has to stand on the node's record first."""
        for reading in self._readings:
            pod = reading.pod
            done = reading.problem or (reading.report is not None and pod.node_name not in unrecorded)
            if pod.deleted_at is None and (done or pod.node_name not in self._snapshot.nodes):
                yield Delete(PODS, pod.namespace, pod.name, pod.uid, grace_seconds=0)
            elif not done:
                self._wake(pod.created_at + purge_pods.DEADLINE_SECONDS + 61.0)

    def _count(self, found: OpenRound) -> None:
        """How far a round is."""
        asked, memory = found.asked, self._memory
        standing = self._standings.get(asked.uid)
        status = standing.cache.status if standing is not None else None
        if status is not None and status.removal_round == asked.id:
            found.total = max(found.total, status.removal_total)
        if not found.total:
            return
        waiting = sum(len(images) for node, images in found.open.items() if self._waits(node))
        told = (node for node, trouble in memory.troubles.items() if node in found.open and trouble.words)
        troubled = min(told, default="")
        if troubled:
            found.words = f"{troubled}: {memory.troubles[troubled].words}"
        ranked = tuple(sorted(((r, n) for r, n in found.stays.items() if n), key=lambda item: (-item[1], item[0])))
        words = (memory.refusal if found.open else "") or (found.words if found.open or ranked else "")
        refused = bool(found.open and memory.refusal)
        self.tallies[asked.uid] = Tally(asked, found.total, found.opened, waiting, ranked, words, refused)

    def _remember(self, rounds: Sequence[OpenRound]) -> None:
        """Keep living caches that are to be purged once they are gone; forget dead ones that were."""
        memory = self._memory
        living: dict[str, ImageCache] = {cache.uid: cache for cache in self._snapshot.image_caches.values()}
        under_way = {found.asked.uid for found in rounds if found.open}
        under_way |= {reading.pod.owner.uid for reading in self._work.readings if reading.pod.owner is not None}
        kept: dict[str, RememberedCache] = {}
        for uid, known in memory.remembered.items():
            if uid in living:
                continue
            if uid in under_way:
                kept[uid] = known
            elif uid in self.tallies:
                self.ended.append(self.tallies[uid])
        for uid, cache in living.items():
            if cache.deletion_policy is DeletionPolicy.PURGE and not cache.error:
                kept[uid] = RememberedCache(uid, cache.namespace, cache.name)
            elif cache.error and uid in memory.remembered:
                # What it was meant to do before the spec was broken still stands.
                kept[uid] = memory.remembered[uid]
        memory.remembered = kept
        if len(memory.waits) > len(self._snapshot.nodes):
            memory.waits = {name: known for name, known in memory.waits.items() if name in self._snapshot.nodes}

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
