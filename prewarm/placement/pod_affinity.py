"""InterPodAffinity (plugins/interpodaffinity): the pod's own terms, and those that other pods hold about it."""

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
from msgspec import Struct

from prewarm.model.pods import Affinity, Pod, PodAffinityTerm, PodShape, WeightedPodAffinityTerm
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import MAX_NODE_SCORE, Ints, Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.incoming import IncomingPod, PodView

HARD_POD_AFFINITY_WEIGHT = 1
"""InterPodAffinityArgs.hardPodAffinityWeight: what a required term of another pod about this one is worth."""


class AffinityEffect(Struct, frozen=True):
    """What one pod on a node means for the domain that the node is in, per topology key."""

    blocked: tuple[str, ...] = ()
    """Keys whose domain no further pod of ours may enter."""
    wanted: bool = False
    """Whether it satisfies all required affinity terms of ours."""
    weights: tuple[tuple[str, int], ...] = ()

    @property
    def matters(self) -> bool:
        """Whether it changes anything."""
        return bool(self.blocked or self.wanted or self.weights)


class _DomainCounts:
    """Sums per domain of one topology key, one row a replay; the last column is for nodes without the label."""

    def __init__(self, key: str, cluster: ClusterArrays, rows: int) -> None:
        topology = cluster.topology(key)
        self.labelled = topology.labelled
        self._domain = topology.domain
        self.counts: Ints = np.zeros((rows, topology.size + 1), dtype=np.int64)

    def add(self, rows: Ints | slice, columns: Ints | int, amount: int) -> None:
        self.counts[rows, self._domain[columns]] += amount
        self.counts[:, -1] = 0

    def by_node(self) -> Ints:
        result: Ints = np.take(self.counts, self._domain, axis=1)
        return result


class PodAffinity:
    """The sums that pod affinity depends on, its filter and its score."""

    def __init__(self, pod: IncomingPod, snapshot: ClusterSnapshot, cluster: ClusterArrays, rows: int) -> None:
        self._pod = pod
        self._affinity = pod.shape.affinity
        self._cluster = cluster
        self._rows = rows
        self._namespaces = {name: namespace.labels for name, namespace in snapshot.namespaces.items()}
        self._blocked: dict[str, _DomainCounts] = {}
        self._wanted = {
            key: _DomainCounts(key, cluster, rows)
            for key in dict.fromkeys(term.topology_key for term in self._affinity.required_pod_affinity)
        }
        self._weights: dict[str, _DomainCounts] = {}
        self._held: dict[tuple[int, str], tuple[tuple[str, ...], tuple[tuple[str, int], ...]]] = {}
        self._shapes: list[PodShape] = []
        self._first_may_enter = bool(self._wanted) and self._matches_all(pod)
        self._seed(snapshot)

    @property
    def matters(self) -> bool:
        """Whether any term, ours or another pod's, concerns this pod or one like it."""
        return bool(self._affinity.concerns_pods or self._blocked or self._weights)

    def _seed(self, snapshot: ClusterSnapshot) -> None:
        column = self._cluster.column
        every = slice(None)
        for pod in self._concerned(snapshot):
            at = column.get(pod.node_name)
            if at is None or pod.finished:
                continue
            effect = self.effect(pod)
            if effect.matters:
                self._add(effect, every, at, 1)

    def _concerned(self, snapshot: ClusterSnapshot) -> Iterable[Pod]:
        """Pods with terms about others; all pods of the namespaces that our own terms speak of, too."""
        terms = list(_terms(self._affinity))
        if not terms:
            return snapshot.pods_with_affinity.values()
        spaces = [
            pods
            for namespace, pods in snapshot.pods_by_namespace.items()
            if any(self._covers(term, self._pod.namespace, namespace) for term in terms)
        ]
        covered = {id(pods) for pods in spaces}
        others = (
            pod
            for pod in snapshot.pods_with_affinity.values()
            if id(snapshot.pods_by_namespace.get(pod.namespace)) not in covered
        )
        return chain(chain.from_iterable(pods.values() for pods in spaces), others)

    def _covers(self, term: PodAffinityTerm, own: str, namespace: str) -> bool:
        if namespace in term.namespaces:
            return True
        if term.namespace_selector is None:
            return not term.namespaces and namespace == own
        return term.namespace_selector.matches(self._namespaces.get(namespace, {}))

    def _matches(self, term: PodAffinityTerm, holder: str, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a term of a pod in namespace `holder` is about a pod with these labels."""
        return term.selector is not None and self._covers(term, holder, namespace) and term.selector.matches(labels)

    def _matches_all(self, other: PodView) -> bool:
        own = self._pod.namespace
        required = self._affinity.required_pod_affinity
        return bool(required) and all(self._matches(term, own, other.namespace, other.labels) for term in required)

    def effect(self, other: PodView) -> AffinityEffect:
        """What the other pod means for ours: our terms about it, and its terms about ours."""
        own = self._pod.namespace
        blocked, weights = self._terms_held(other)
        ours = self._affinity
        about_it = [
            term.topology_key
            for term in ours.required_pod_anti_affinity
            if self._matches(term, own, other.namespace, other.labels)
        ]
        preferred = list(weights)
        for sign, terms in ((1, ours.preferred_pod_affinity), (-1, ours.preferred_pod_anti_affinity)):
            preferred += [
                (weighted.term.topology_key, sign * weighted.weight)
                for weighted in terms
                if self._matches(weighted.term, own, other.namespace, other.labels)
            ]
        return AffinityEffect(blocked + tuple(about_it), self._matches_all(other), tuple(preferred))

    def _terms_held(self, other: PodView) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
        """Of the other pod's terms, those about ours; pods of equal shape share the answer."""
        shape, namespace = other.shape, other.namespace
        if not shape.affinity.concerns_pods:
            return (), ()
        known = self._held.get((id(shape), namespace))
        if known is not None:
            return known
        held = shape.affinity
        pod = self._pod
        blocked = tuple(
            term.topology_key
            for term in held.required_pod_anti_affinity
            if self._matches(term, namespace, pod.namespace, pod.labels)
        )
        weighted: list[tuple[int, tuple[WeightedPodAffinityTerm, ...]]] = [
            (1, tuple(WeightedPodAffinityTerm(HARD_POD_AFFINITY_WEIGHT, t) for t in held.required_pod_affinity)),
            (1, held.preferred_pod_affinity),
            (-1, held.preferred_pod_anti_affinity),
        ]
        weights = tuple(
            (entry.term.topology_key, sign * entry.weight)
            for sign, entries in weighted
            for entry in entries
            if self._matches(entry.term, namespace, pod.namespace, pod.labels)
        )
        self._shapes.append(shape)  # keeps the id in use as long as the memo lives
        self._held[id(shape), namespace] = (blocked, weights)
        return blocked, weights

    def apply(self, effect: AffinityEffect, rows: Ints, columns: Ints, sign: int) -> None:
        """A pod with this effect has landed on (sign 1) or left (-1) these cells."""
        if effect.matters:
            self._add(effect, rows, columns, sign)

    def _add(self, effect: AffinityEffect, rows: Ints | slice, columns: Ints | int, sign: int) -> None:
        for key in effect.blocked:
            self._counts(self._blocked, key).add(rows, columns, sign)
        if effect.wanted:
            for counts in self._wanted.values():
                counts.add(rows, columns, sign)
        for key, weight in effect.weights:
            self._counts(self._weights, key).add(rows, columns, sign * weight)

    def _counts(self, table: dict[str, _DomainCounts], key: str) -> _DomainCounts:
        if key not in table:
            table[key] = _DomainCounts(key, self._cluster, self._rows)
        return table[key]

    def allowed(self) -> Mask | None:
        """Where the required terms hold; None if none is in force."""
        allowed = None
        for counts in self._blocked.values():
            holds = counts.by_node() <= 0
            allowed = holds if allowed is None else allowed & holds
        if self._wanted:
            found = self._found()
            allowed = found if allowed is None else allowed & found
        return allowed

    def _found(self) -> Mask:
        """Where all required affinity is satisfied; the first of a group that wants its own kind may go anywhere."""
        tables = list(self._wanted.values())
        satisfied, labelled = tables[0].by_node() > 0, tables[0].labelled
        nowhere = ~(tables[0].counts > 0).any(axis=1, keepdims=True)
        for counts in tables[1:]:
            satisfied = satisfied & (counts.by_node() > 0)
            labelled = labelled & counts.labelled
            nowhere = nowhere & ~(counts.counts > 0).any(axis=1, keepdims=True)
        if self._first_may_enter:
            satisfied = satisfied | nowhere
        found: Mask = satisfied & labelled
        return found

    def score(self, selected: Mask) -> Scores | None:
        """Normalised score of the preferred terms over the selected nodes; None if nothing weighs."""
        if not self._weights:
            return None
        total = np.zeros(selected.shape)  # 64 bits, as in Go: the share below is rounded before it is cut
        for counts in self._weights.values():
            total += counts.by_node()
        low = np.where(selected, total, np.inf).min(axis=1, keepdims=True)
        high = np.where(selected, total, -np.inf).max(axis=1, keepdims=True)
        difference = np.where(np.isinf(low), 0.0, high - low)
        share = (total - np.where(np.isinf(low), 0.0, low)) / np.where(difference == 0, 1.0, difference)
        score: Scores = np.where(difference > 0, np.trunc(MAX_NODE_SCORE * share), 0.0).astype(np.float32)
        return score


def _terms(affinity: Affinity) -> Iterable[PodAffinityTerm]:
    yield from affinity.required_pod_affinity
    yield from affinity.required_pod_anti_affinity
    for weighted in (*affinity.preferred_pod_affinity, *affinity.preferred_pod_anti_affinity):
        yield weighted.term
