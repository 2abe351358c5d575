"""Removing images from nodes: what is asked for, by whom it is done, what became of it.

Level-triggered like pulling. A claim (an image that we pulled for a cache, on the node's record) is to be removed in a
round until the record says that it is gone or why it stays; a pod says so, or the cluster does.
"""

from collections import Counter
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
from prewarm.puller.purge_pods import PurgeReading
from prewarm.puller.purge_rounds import Round, RoundKind
from prewarm.puller.purge_stays import Stays, node_waits, wants
from prewarm.puller.settings import PurgeSettings
from prewarm.puller.standing import Standing
from prewarm.puller.work import Work

ATTEMPTS = 4
"""Pods at a node that fail in a row before its images count as staying."""
RETRY_SECONDS = (5.0, 20.0, 60.0)
"""Pauses after the first failures at a node."""

_TRANSIENT = frozenset({RemovalResult.FAILED, RemovalResult.IN_USE})
"""Results of a pod that may be others in a moment: the kubelet keeps containers of deleted pods for up to a minute."""

Pair = tuple[str, str]
"""Node and canonical image."""


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
        self._rounds: dict[Pair, Round] = {}
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
        rounds = self._asked()
        pending = self._pending(rounds)
        self._hear(pending)
        self._order(pending)
        opened: dict[str, list[Pair]] = {}
        for pair, asked in self._rounds.items():
            opened.setdefault(asked.id, []).append(pair)
        for asked in rounds:
            self._count(asked, opened.get(asked.id, []))
        ids = {asked.id for asked in rounds}
        memory.staying = {key: value for key, value in memory.staying.items() if key in ids}
        self._remember()

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

    def _pending(self, rounds: Sequence[Round]) -> dict[str, dict[str, PresentImage]]:
        """What is to be removed, by node and image."""
        pending: dict[str, dict[str, PresentImage]] = {}
        for asked in rounds:
            for node, image in self._unwanted(asked):
                entry = next((e for e in self._memory.claims.of(asked.cache)[node] if e.image == image), None)
                if entry is not None and entry.stays_in != asked.id:
                    pending.setdefault(node, {})[image] = entry
                    self._rounds[node, image] = asked
        return pending

    def _unwanted(self, asked: Round) -> Sequence[Pair]:
        """Claims of a round, those that stay included."""
        claims = self._memory.claims
        standing = self._standings.get(asked.uid)
        given = (asked.id, claims.version(asked.cache), standing.revision if standing is not None else 0)
        known = self._memory.edits.get(asked.uid)
        if known is None or known[0] != given:
            edited = standing if asked.kind is RoundKind.EDIT else None
            found = tuple(
                (node, entry.image)
                for node, entries in claims.of(asked.cache).items()
                for entry in entries
                if edited is None or not wants(edited, node, entry.image, self._snapshot)
            )
            known = self._memory.edits[asked.uid] = (given, found)
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
            if node in busy or node_waits(self._snapshot.nodes.get(node)) or not self._is_due(node):
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
            judged = stays.judge(node, entries[image], self._rounds[node, image])
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
        rounds = sorted({self._rounds[node_name, removal.image].id for removal in removals})
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
            asked = self._rounds.get((node, entry.image))
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

    def _count(self, asked: Round, open_pairs: Sequence[Pair]) -> None:
        """How far a round is. The total grows by what comes to be unwanted meanwhile."""
        memory = self._memory
        staying = self._staying(asked)
        if not staying and not open_pairs and not memory.totals.get(asked.id):
            standing = self._standings.get(asked.uid)
            if standing is None or standing.cache.status.removal_round != asked.id:
                return
        reasons = Counter(staying.values())
        now = frozenset((*open_pairs, *staying))
        before = memory.seen.get(asked.id)
        standing = self._standings.get(asked.uid)
        status = standing.cache.status if standing is not None else None
        total = memory.totals.get(asked.id, 0)
        if status is not None and status.removal_round == asked.id:
            total = max(total, status.removal_total)
        total = max(total + (len(now - before) if before is not None else 0), len(now))
        memory.seen[asked.id], memory.totals[asked.id] = now, total
        waiting = sum(1 for node, _ in open_pairs if node_waits(self._snapshot.nodes.get(node)))
        at = {node for node, _ in open_pairs}
        troubled = sorted(node for node, trouble in memory.troubles.items() if node in at and trouble.words)
        if troubled:
            memory.words[asked.id] = f"{troubled[0]}: {memory.troubles[troubled[0]].words}"
        words = (memory.refusal if open_pairs else "") or (memory.words.get(asked.id, "") if now else "")
        if total:
            ranked = tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
            refused = bool(open_pairs and memory.refusal)
            self.tallies[asked.uid] = Tally(asked, total, len(open_pairs), waiting, ranked, words, refused)

    def _staying(self, asked: Round) -> Mapping[Pair, RemovalResult]:
        """What was to be removed in a round and stays."""
        claims = self._memory.claims
        version = claims.version(asked.cache)
        known = self._memory.staying.get(asked.id)
        if known is None or known[0] != version:
            found = {
                (node, entry.image): entry.stays
                for node, entries in claims.of(asked.cache).items()
                for entry in entries
                if entry.stays_in == asked.id and entry.stays is not None
            }
            known = self._memory.staying[asked.id] = (version, found)
        return known[1]

    def _remember(self) -> None:
        """Keep living caches that are to be purged once they are gone; forget dead ones that were."""
        memory = self._memory
        living: dict[str, ImageCache] = {cache.uid: cache for cache in self._snapshot.image_caches.values()}
        rounds = {asked.uid: asked for asked in self._rounds.values()}
        kept: dict[str, RememberedCache] = {}
        for uid, known in memory.remembered.items():
            owned = any(
                reading.pod.owner is not None and reading.pod.owner.uid == uid for reading in self._work.readings
            )
            if uid in living:
                continue
            if uid in rounds or owned:
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
        uids = {*living, *kept}
        memory.edits = {uid: known for uid, known in memory.edits.items() if uid in uids}
        current = {tally.round.id for tally in self.tallies.values()}
        memory.seen = {key: value for key, value in memory.seen.items() if key in current}
        memory.totals = {key: value for key, value in memory.totals.items() if key in current}
        memory.words = {key: value for key, value in memory.words.items() if key in current}

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
