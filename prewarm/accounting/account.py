"""Judge every container start of every covered workload once."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from math import floor

from msgspec import Struct
from msgspec.structs import replace

from prewarm.accounting.ledger import (
    DEPARTED_SECONDS,
    MAX_HEARD_PODS,
    MAX_OPEN_PODS,
    RESOLUTION_SECONDS,
    Heard,
    Ledger,
    OpenPod,
    StartKey,
)
from prewarm.accounting.messages import MessageKind, read_message
from prewarm.accounting.pulls import NodePulls, pullers_by_node, pulls_on
from prewarm.accounting.starts import open_starts, start_keys
from prewarm.accounting.verdicts import OpenStart, Verdict, judge
from prewarm.demand.coverage import coverage
from prewarm.history import History
from prewarm.model.image_caches import PolicyMode
from prewarm.model.images import canonical
from prewarm.model.nodes import Node
from prewarm.model.outcomes import ContainerStart, Outcome, PlanInForce
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import KubeletEvent, Workload, WorkloadKey
from prewarm.presence.evidence import PULL_CONTAINER_PREFIX

HEARD_SECONDS = 600.0
"""How long words about a pod that is not followed are kept: the watch of pods may lag behind that of events."""
SAID_SECONDS = 86400.0
"""How long a kubelet's words about pulls of ours are kept: as long as their bytes wait for a verdict."""
SWEEP_SECONDS = 1.0
"""How often all open pods are looked at; in between only those that changed or were spoken of."""
PRUNE_SECONDS = 60.0
"""How often what is over is forgotten."""

_NOTHING: frozenset[StartKey] = frozenset()


class _Case(Struct):
    """A pod under judgement; `settled` grows while its starts are decided."""

    workload: WorkloadKey
    pod: Pod
    keys: frozenset[StartKey]
    settled: frozenset[StartKey]
    gone: bool = False
    latest: float = 0.0


def account(
    ledger: Ledger,
    snapshot: ClusterSnapshot,
    events: Iterable[KubeletEvent],
    history: History,
    *,
    only: Collection[WorkloadKey] | None = None,
) -> tuple[Ledger, tuple[ContainerStart, ...]]:
    """Judge the starts that can be judged now; each (pod, container, image) once, whatever the order of events.

    Args:
        ledger: what earlier calls left; `Ledger()` at the very beginning.
        snapshot: the cluster; its time is the clock.
        events: kubelet events not passed before (passing one twice does no harm).
        history: plans in force, sizes and pull times.
        only: look at these workloads and at pods still open; None = all workloads.
    """
    now = snapshot.taken_at
    if ledger.since is None:
        ledger = replace(ledger, since=float(floor(now)), previous=float(floor(now)))
    ledger = _follow_pullers(ledger, snapshot)
    heard, said, spoken_of = _listen(ledger, snapshot, events)
    sweep = only is None or not 0 <= now - ledger.swept_at < SWEEP_SECONDS
    covered, cases = _cases(ledger, snapshot, only, ledger.open if sweep else spoken_of & ledger.open.keys())
    ledger = replace(ledger, heard=heard, said=said, covered_since=covered, swept_at=now if sweep else ledger.swept_at)
    ledger, starts = _Court(ledger, snapshot, history).decide(cases)
    if not 0 <= now - ledger.pruned_at < PRUNE_SECONDS:
        ledger = _prune(ledger, snapshot)
    return replace(ledger, previous=now), starts


def _follow_pullers(ledger: Ledger, snapshot: ClusterSnapshot) -> Ledger:
    """Keep our pods that are gone as evidence, until the node's record says what they pulled."""
    now, pods = snapshot.taken_at, snapshot.puller_pods
    if pods is ledger.pullers and not ledger.departed:
        return ledger
    departed = {
        uid: pod
        for uid, pod in ledger.departed.items()
        if pod.deleted_at is not None and pod.deleted_at <= now < pod.deleted_at + DEPARTED_SECONDS
    }
    for key, pod in ledger.pullers.items() if pods is not ledger.pullers else ():
        current = pods.get(key)
        if current is None or current.uid != pod.uid:
            departed[pod.uid] = replace(pod, deleted_at=now)
    return replace(ledger, pullers=pods, departed=departed)


def _listen(
    ledger: Ledger, snapshot: ClusterSnapshot, events: Iterable[KubeletEvent]
) -> tuple[Mapping[str, tuple[Heard, ...]], Mapping[tuple[str, str], Heard], set[str]]:
    """Add words to what was heard, in an order of their own: that of the events does not matter."""
    heard: dict[str, tuple[Heard, ...]] = {}
    said: dict[tuple[str, str], Heard] = {}
    for event in events:
        word = _word(event)
        if word is None:
            continue
        known = heard.get(event.pod_uid) or ledger.heard.get(event.pod_uid, ())
        if word in known:
            continue
        heard[event.pod_uid] = tuple(sorted((*known, word)))
        puller = snapshot.puller_pods.get((event.namespace, event.pod_name)) or ledger.departed.get(event.pod_uid)
        if puller is not None and puller.uid == event.pod_uid and _concludes(word):
            place = (puller.node_name, word.image)
            said[place] = max(word, said.get(place, word))
    if not heard:
        return ledger.heard, ledger.said, set()
    merged = {**ledger.heard, **heard}
    if len(merged) > MAX_HEARD_PODS:
        merged = dict(sorted(merged.items(), key=lambda item: (-item[1][-1].at, item[0]))[:MAX_HEARD_PODS])
    latest = {place: max(word, ledger.said.get(place, word)) for place, word in said.items()}
    return merged, {**ledger.said, **latest} if latest else ledger.said, set(heard)


def _word(event: KubeletEvent) -> Heard | None:
    message = read_message(event)
    if message is None or not event.pod_uid:
        return None
    return Heard(
        event.first_seen or event.last_seen,
        message.kind,
        canonical(message.image),
        event.container,
        message.pull_seconds,
        message.total_seconds,
        message.size_bytes,
    )


def _concludes(word: Heard) -> bool:
    """Whether it says that a target image of a puller pod is there; what its helper needed is of no interest."""
    ours = word.container == "" or word.container.startswith(PULL_CONTAINER_PREFIX)
    return ours and word.kind in {MessageKind.PULLED, MessageKind.PRESENT}


def _cases(
    ledger: Ledger, snapshot: ClusterSnapshot, only: Collection[WorkloadKey] | None, open_uids: Collection[str]
) -> tuple[Mapping[WorkloadKey, float], list[_Case]]:
    """Pods to look at: the unsettled ones of the workloads asked about, and the named open ones."""
    named = (key for key in (snapshot.workloads if only is None else sorted(only)))
    covered = dict(ledger.covered_since)
    cases: dict[str, _Case] = {}
    for key in named:
        workload = snapshot.workloads.get(key)
        asked = coverage(snapshot, workload) if workload is not None else None
        if workload is None or asked is None or asked.policy is None or asked.policy.mode is PolicyMode.OFF:
            covered.pop(key, None)
            continue
        since = covered.setdefault(key, float(floor(ledger.previous)))
        for pod in _pods_of(snapshot, workload):
            keys = start_keys(pod, asked.excluded)
            settled = ledger.settled.get(pod.uid)
            if settled is None:
                settled = _settled_before(ledger, snapshot, pod, keys, since)
            elif keys <= settled:
                continue
            cases[pod.uid] = _Case(key, pod, keys, settled)
    for uid in open_uids:
        if uid in cases:
            continue
        entry = ledger.open[uid]
        current = snapshot.pods.get(entry.pod.key)
        gone = current is None or current.uid != uid
        pod = entry.pod if current is None or gone else current
        cases[uid] = _Case(entry.workload, pod, entry.keys, ledger.settled.get(uid, _NOTHING), gone=gone)
    return covered, sorted(cases.values(), key=lambda case: (case.pod.created_at, case.pod.uid))


def _pods_of(snapshot: ClusterSnapshot, workload: Workload) -> Iterator[Pod]:
    yield from snapshot.pods_by_owner.get(workload.uid, {}).values()
    for replica_set in snapshot.replica_sets_by_owner.get(workload.uid, {}).values():
        yield from snapshot.pods_by_owner.get(replica_set.uid, {}).values()


def _settled_before(
    ledger: Ledger, snapshot: ClusterSnapshot, pod: Pod, keys: frozenset[StartKey], since: float
) -> frozenset[StartKey]:
    """Starts of a pod seen for the first time that are not ours to judge: before coverage, or before a restart."""
    if pod.created_at < since:
        return keys
    resumed = ledger.resumed
    if resumed is None:
        return _NOTHING
    happened = open_starts(pod, snapshot.nodes.get(pod.node_name), keys)
    return frozenset(key for key, start in happened if resumed.settled(pod.uid, key, start.started_at))


class _Court:
    """Decides the cases of one call; collects what the ledger has to learn."""

    def __init__(self, ledger: Ledger, snapshot: ClusterSnapshot, history: History) -> None:
        self._ledger = ledger
        self._snapshot = snapshot
        self._history = history
        self._now = snapshot.taken_at
        self._pullers: dict[str, list[Pod]] | None = None
        self._nodes: dict[str, NodePulls] = {}
        self._plans: dict[WorkloadKey, list[PlanInForce]] = {}
        for plan in history.plans_in_force:
            self._plans.setdefault(plan.workload, []).append(plan)
        self._credited = dict(ledger.credited)
        self._noticed = dict(ledger.noticed)
        self._starts: list[ContainerStart] = []

    def decide(self, cases: Collection[_Case]) -> tuple[Ledger, tuple[ContainerStart, ...]]:
        """Decide what can be decided."""
        if not cases:
            return self._ledger, ()
        settled, settled_at = dict(self._ledger.settled), dict(self._ledger.settled_at)
        still_open = dict(self._ledger.open)
        for case in cases:
            self._decide_pod(case)
            uid = case.pod.uid
            if case.gone or case.keys <= case.settled or case.pod.finished:
                still_open.pop(uid, None)
            else:
                still_open[uid] = OpenPod(case.workload, case.pod, case.keys)
            settled[uid] = case.settled | case.keys if case.pod.finished else case.settled
            settled_at[uid] = max(case.latest, settled_at.get(uid, 0.0))
        if len(still_open) > MAX_OPEN_PODS:
            newest = sorted(still_open.items(), key=lambda item: (-item[1].pod.created_at, item[0]))
            still_open = dict(newest[:MAX_OPEN_PODS])
        ledger = replace(
            self._ledger,
            settled=settled,
            settled_at=settled_at,
            open=still_open,
            credited=self._credited,
            noticed=self._noticed,
        )
        return ledger, tuple(self._starts)

    def _decide_pod(self, case: _Case) -> None:
        pod = case.pod
        node = self._snapshot.nodes.get(pod.node_name)
        heard = self._ledger.heard.get(pod.uid, ())
        replaced = {container for container, _ in case.settled}
        for key, start in open_starts(pod, node, case.keys - case.settled):
            words = [word for word in heard if word.image == start.image and word.container in {"", start.container}]
            if start.container in replaced:
                started = self._changed_in_place(pod.uid, key, start, words)
                if started is None:
                    continue
                start = started
            verdict = self._judge(case, start, words)
            if verdict is None:
                continue
            case.settled |= {key}
            case.latest = max(case.latest, start.started_at)
            self._noticed.pop((pod.uid, key), None)
            self._record(case, key, start, verdict)

    def _changed_in_place(
        self, uid: str, key: StartKey, start: OpenStart, words: Collection[Heard]
    ) -> OpenStart | None:
        """The start under a new image of a container that ran before; None until it happened."""
        noticed = self._noticed.setdefault((uid, key), self._now)
        said = [word.at for word in words]
        if said:
            at = max(start.started_at, *said)
        elif start.started_at >= noticed - RESOLUTION_SECONDS:
            at = start.started_at
        else:
            return None
        return replace(start, created_at=min(noticed, at), started_at=at, could_begin_at=None)

    def _judge(self, case: _Case, start: OpenStart, words: Collection[Heard]) -> Verdict | None:
        pod = case.pod
        over = case.gone or pod.finished
        verdict = judge(
            start,
            tuple(words),
            self._pulls_on(pod.node_name),
            self._plans.get(case.workload, ()),
            node_name=pod.node_name,
            credited=self._credited_until(pod.node_name, start),
            expected_seconds=self._history.pull_seconds(start.image, pod.node_name),
            now=self._now,
            over=over,
        )
        return Verdict(Outcome.UNKNOWN) if verdict is None and over else verdict

    def _credited_until(self, node: str, start: OpenStart) -> float | None:
        """End of the pull whose first use was counted; by the node's record where an earlier process counted it."""
        known = self._credited.get((node, start.image))
        record = self._snapshot.node_images.get(node)
        if known is not None or record is None or self._ledger.resumed is None:
            return known
        before = min(start.started_at, self._ledger.resumed.saved_at) - RESOLUTION_SECONDS
        used = (
            i.since for i in record.images if i.image == start.image and i.used_at is not None and i.used_at < before
        )
        return max(used, default=None)

    def _pulls_on(self, name: str) -> NodePulls:
        known = self._nodes.get(name)
        if known is None:
            self._pullers = (
                self._pullers if self._pullers is not None else pullers_by_node(self._snapshot, self._ledger)
            )
            node = self._snapshot.nodes.get(name, Node(name))
            known = self._nodes[name] = pulls_on(self._snapshot, self._ledger, node, self._pullers.get(name, []))
        return known

    def _record(self, case: _Case, key: StartKey, start: OpenStart, verdict: Verdict) -> None:
        pod, pull = case.pod, verdict.pull
        lead = saved = None
        if pull is not None:
            ended = pull.ended if pull.ended is not None else start.started_at
            known = self._credited.get((pod.node_name, start.image), 0.0)
            self._credited[pod.node_name, start.image] = max(known, ended)
            if verdict.outcome is Outcome.HIT_PREWARMED:
                lead = start.created_at - ended
                saved = pull.seconds if pull.seconds is not None else self._estimate(start, pod.node_name)
        self._starts.append(
            ContainerStart(
                workload=case.workload,
                pod_uid=pod.uid,
                container=key[0],
                image=key[1],
                node=pod.node_name,
                outcome=verdict.outcome,
                created_at=start.created_at,
                started_at=start.started_at,
                lead_seconds=lead,
                saved_seconds=saved,
                pull_seconds=verdict.pull_seconds,
                pod_name=pod.name,
            )
        )

    def _estimate(self, start: OpenStart, node: str) -> float | None:
        return self._history.pull_seconds(start.image, node)


def _prune(ledger: Ledger, snapshot: ClusterSnapshot) -> Ledger:
    """Forget pods that are gone and words that nobody waits for."""
    now = snapshot.taken_at
    present = {pod.uid for pod in snapshot.pods.values()}
    pullers = {pod.uid for pod in snapshot.puller_pods.values()}
    settled = {uid: keys for uid, keys in ledger.settled.items() if uid in present or uid in ledger.open}
    heard = {
        uid: words
        for uid, words in ledger.heard.items()
        if uid in pullers or uid in ledger.open or words[-1].at > now - HEARD_SECONDS
    }
    aged = {key for key, at in ledger.credited.items() if at <= now - HEARD_SECONDS}
    # Only the records that matter: those of all nodes name some ten thousand images.
    records = {name: snapshot.node_images[name] for name, _ in aged if name in snapshot.node_images}
    recorded = {(name, image.image) for name, record in records.items() for image in record.images}
    return replace(
        ledger,
        settled=settled,
        settled_at={uid: at for uid, at in ledger.settled_at.items() if uid in settled},
        heard=heard,
        said={key: word for key, word in ledger.said.items() if word.at > now - SAID_SECONDS},
        credited={key: at for key, at in ledger.credited.items() if key in recorded or key not in aged},
        noticed={key: at for key, at in ledger.noticed.items() if key[0] in present},
        covered_since={key: at for key, at in ledger.covered_since.items() if key in snapshot.workloads},
        pruned_at=now,
    )
