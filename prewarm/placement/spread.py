"""PodTopologySpread (plugins/podtopologyspread) with the system's default constraints."""

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct

from prewarm.model.pods import Pod, SpreadConstraint
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement.arrays import MAX_NODE_SCORE, Ints, Mask, Scores, extremes
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.incoming import IncomingPod, PodView

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
_SYSTEM_DEFAULTS = (SpreadConstraint(3, HOSTNAME, hard=False), SpreadConstraint(5, ZONE, hard=False))
"""plugin.go systemDefaultConstraints: in force for pods without constraints of their own."""


class NodeInclusion(Struct, frozen=True):
    """Which nodes count for nodeAffinityPolicy and nodeTaintsPolicy: those that pass the filter of that name."""

    affinity: Mask
    taints: Mask


class _Rule(Struct, frozen=True):
    constraint: SpreadConstraint
    selector: LabelSelector | None

    @property
    def counts_nothing(self) -> bool:
        """CountPodsMatchSelector counts no pod for a selector without requirements."""
        return self.selector is None or not (self.selector.match_labels or self.selector.match_expressions)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.selector is not None and self.selector.matches(labels)


def _rules(pod: IncomingPod, snapshot: ClusterSnapshot) -> tuple[list[_Rule], bool]:
    """The pod's constraints, or the defaults (True); matchLabelKeys of a template are merged as in a pod."""
    if pod.shape.spread:
        return [_Rule(constraint, _with_label_keys(constraint, pod.labels)) for constraint in pod.shape.spread], False
    selector = _default_selector(pod, snapshot)
    if selector is None:
        return [], True
    return [_Rule(constraint, selector) for constraint in _SYSTEM_DEFAULTS], True


def _with_label_keys(constraint: SpreadConstraint, labels: Mapping[str, str]) -> LabelSelector | None:
    selector = constraint.selector
    if selector is None:
        return None
    extra = tuple((key, labels[key]) for key in constraint.match_label_keys if key in labels)
    return LabelSelector(selector.match_labels + extra, selector.match_expressions) if extra else selector


def _default_selector(pod: IncomingPod, snapshot: ClusterSnapshot) -> LabelSelector | None:
    """helper.DefaultSelector: the Services that select the pod and its owner's selector, all together."""
    labels: dict[str, str] = {}
    for service in snapshot.services_by_namespace.get(pod.namespace, ()):
        if service.selector and all(pod.labels.get(key) == value for key, value in service.selector):
            labels.update(service.selector)
    owner = pod.owner_selector or LabelSelector()
    labels.update(owner.match_labels)
    if not labels and not owner.match_expressions:
        return None
    return LabelSelector(tuple(sorted(labels.items())), owner.match_expressions)


class _Counter:
    """Matching pods per domain (or per node, for hostname scores) of one constraint, one row a replay."""

    def __init__(self, rule: _Rule, cluster: ClusterArrays, counted: Mask, rows: int, *, per_node: bool) -> None:
        topology = cluster.topology(rule.constraint.topology_key)
        self.rule = rule
        self.per_node = per_node
        self.labelled = topology.labelled
        self.all_labelled = bool(topology.labelled.all())
        self.missing = topology.size
        """Index of the last column, which stands for nodes without the label."""
        self.domain: Ints = (
            np.arange(cluster.count) if per_node else np.where(topology.labelled, topology.domain, topology.size)
        )
        self.counted: Mask = np.ones(cluster.count, dtype=np.bool_) if per_node else counted
        self.counts: Scores = np.zeros((rows, cluster.count if per_node else topology.size + 1), dtype=np.float32)
        self.eligible: Mask = np.zeros(topology.size, dtype=np.bool_)
        self.eligible[topology.domain[counted & topology.labelled]] = True
        self.one_hot = np.zeros((cluster.count, topology.size + 1), dtype=np.float32)
        if not per_node:
            self.one_hot[np.arange(cluster.count), self.domain] = 1

    def seed(self, columns: Ints) -> None:
        """Count existing pods on these columns, in every replay."""
        columns = columns[self.counted[columns]]
        self.counts += np.bincount(self.domain[columns], minlength=self.counts.shape[1]).astype(np.float32)

    def apply(self, rows: Ints, columns: Ints, sign: int) -> None:
        """One matching pod per row came or went."""
        cells = self.counts.reshape(-1)  # one index costs numpy a quarter of what two do
        cells[rows * self.counts.shape[1] + self.domain[columns]] += sign * self.counted[columns]

    def by_node(self) -> Scores:
        """The count of each node's domain."""
        if self.per_node:
            return self.counts
        result: Scores = np.take(self.counts, self.domain, axis=1)
        return result


class TopologySpread:
    """The counts that spread constraints depend on, the filter of hard ones and the score of soft ones."""

    def __init__(
        self,
        pod: IncomingPod,
        snapshot: ClusterSnapshot,
        cluster: ClusterArrays,
        inclusion: NodeInclusion,
        rows: int,
    ) -> None:
        rules, defaulted = _rules(pod, snapshot)
        hard = [rule for rule in rules if rule.constraint.hard]
        soft = [rule for rule in rules if not rule.constraint.hard]
        self._pod = pod
        self._cluster = cluster
        self.hard = [self._counter(rule, hard, inclusion, rows, score=False) for rule in hard]
        keys = soft if not defaulted else []
        self.soft = [self._counter(rule, keys, inclusion, rows, score=True) for rule in soft]
        self._ignored: Mask = ~_labelled(cluster, keys)
        """Nodes without some key of the pod's own soft constraints score 0 (not so for the system's defaults)."""
        self._some_ignored = bool(self._ignored.any())
        self._seed(snapshot, defaulted=defaulted)

    def _counter(self, rule: _Rule, keys: list[_Rule], inclusion: NodeInclusion, rows: int, *, score: bool) -> _Counter:
        counted = _labelled(self._cluster, keys)
        if rule.constraint.honor_node_affinity:
            counted = counted & inclusion.affinity
        if rule.constraint.honor_node_taints:
            counted = counted & inclusion.taints
        per_node = score and rule.constraint.topology_key == HOSTNAME
        return _Counter(rule, self._cluster, counted, rows, per_node=per_node)

    def _seed(self, snapshot: ClusterSnapshot, *, defaulted: bool) -> None:
        counters = [counter for counter in (*self.hard, *self.soft) if not counter.rule.counts_nothing]
        if not counters:
            return
        pods: Iterable[Pod]
        if defaulted and self._pod.owner_selector is not None:
            pods = snapshot.pods_by_owner.get(self._pod.owner_uid, {}).values()
        else:
            pods = snapshot.pods_by_namespace.get(self._pod.namespace, {}).values()
        column = self._cluster.column
        standing = [
            (pod.labels, column[pod.node_name])
            for pod in pods
            if pod.node_name in column and pod.deleted_at is None and not pod.finished
        ]
        for counter in counters:
            matching = [at for labels, at in standing if counter.rule.matches(labels)]
            if matching:
                counter.seed(np.array(matching, dtype=np.int64))

    def effect(self, other: PodView) -> tuple[bool, ...]:
        """Which counters a pod adds to."""
        counters = (*self.hard, *self.soft)
        if other.namespace != self._pod.namespace:
            return (False,) * len(counters)
        return tuple(not c.rule.counts_nothing and c.rule.matches(other.labels) for c in counters)

    def apply(self, effect: tuple[bool, ...], rows: Ints, columns: Ints, sign: int) -> None:
        """A pod with this effect has landed on (sign 1) or left (-1) these cells."""
        for counter, counts in zip((*self.hard, *self.soft), effect, strict=True):
            if counts:
                counter.apply(rows, columns, sign)

    def allowed(self) -> Mask | None:
        """Where the hard constraints hold; None if there are none."""
        allowed = None
        for counter in self.hard:
            constraint = counter.rule.constraint
            domains = counter.counts[:, : counter.missing]
            enough = int(counter.eligible.sum()) >= max(1, constraint.min_domains)
            least = np.where(counter.eligible, domains, np.float32(np.inf)).min(axis=1) if enough else 0
            itself = int(counter.rule.matches(self._pod.labels))
            skew = counter.by_node() + itself - np.reshape(least, (-1, 1))
            holds = (skew <= constraint.max_skew) & counter.labelled
            allowed = holds if allowed is None else allowed & holds
        return allowed

    def score(self, selected: Mask) -> Scores | None:
        """Normalised score of the soft constraints over the selected nodes; None if there are none."""
        if not self.soft:
            return None
        scored = selected & ~self._ignored if self._some_ignored else selected
        every = bool(scored.all())
        total = self._weighted(self.soft[0], scored, every=every)
        for counter in self.soft[1:]:
            total += self._weighted(counter, scored, every=every)
        total += np.float32(0.5)
        np.floor(total, out=total)
        low, high = extremes(total, scored, every=every)
        # 100 x (high + low - total) / high in Go's integers, in place.
        total *= -MAX_NODE_SCORE
        total += MAX_NODE_SCORE * (high + low)
        total /= np.where(high == 0, np.float32(1), high)
        np.floor(total, out=total)
        if not high.all():
            total = np.where(high == 0, np.float32(MAX_NODE_SCORE), total)
        return np.where(self._ignored, np.float32(0), total) if self._some_ignored else total

    def _weighted(self, counter: _Counter, scored: Mask, *, every: bool) -> Scores:
        """One constraint's part: count x ln(domains + 2) + maxSkew - 1, 0 where the label is missing."""
        # Where all nodes are scored, the domains are the same for each replay.
        domains = self._domains(counter, scored[:1] if every else scored)
        by_domain: Scores = counter.counts * np.log(domains + 2.0).astype(np.float32)
        by_domain += np.float32(counter.rule.constraint.max_skew - 1)
        if not counter.per_node:
            by_domain[:, counter.missing] = 0
            return np.take(by_domain, counter.domain, axis=1)
        if not counter.all_labelled:
            by_domain[:, ~counter.labelled] = 0
        return by_domain

    def _domains(self, counter: _Counter, scored: Mask) -> Ints:
        """Number of domains among the scored nodes of each replay, as a column."""
        if counter.per_node:
            nodes: Ints = scored.sum(axis=1, keepdims=True)
            return nodes
        present: Mask = (scored.astype(np.float32) @ counter.one_hot) > 0
        domains: Ints = present.sum(axis=1, keepdims=True)
        return domains


def _labelled(cluster: ClusterArrays, rules: list[_Rule]) -> Mask:
    """Nodes that have every topology key of the rules."""
    labelled = np.ones(cluster.count, dtype=np.bool_)
    for rule in rules:
        labelled &= cluster.topology(rule.constraint.topology_key).labelled
    return labelled
