"""NodeName and NodeAffinity with nodeSelector (plugins/nodename, plugins/nodeaffinity)."""

from collections.abc import Iterable

import numpy as np

from prewarm.model.pods import PodShape
from prewarm.model.selectors import NodeSelectorTerm, Operator
from prewarm.placement.arrays import Mask, Scores
from prewarm.placement.cluster_arrays import ClusterArrays

STEERING_WEIGHT = 1
"""Of the term that steers pods (charts/prewarm/files/steer/pods.yaml): the least that a term can have."""


def named(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """The node that the pod names, or all if it names none."""
    if not shape.node_name:
        return np.ones(cluster.count, dtype=np.bool_)
    return cluster.mask(lambda node: node.name == shape.node_name)


def listed(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """The nodes that required terms name one by one, or all: no other filter is asked about the rest (PreFilter)."""
    names = _listed_names(shape.affinity.required_node_terms or ())
    if names is None:
        return np.ones(cluster.count, dtype=np.bool_)
    return cluster.mask(lambda node: node.name in names)


def asked(shape: PodShape, cluster: ClusterArrays) -> int | None:
    """Of how many nodes of the whole cluster a share is scored, where required terms name them; None: of all."""
    names = _listed_names(shape.affinity.required_node_terms or ())
    return None if names is None else sum(node.name in names for node in cluster.whole.nodes)


def _listed_names(terms: Iterable[NodeSelectorTerm]) -> frozenset[str] | None:
    """None if some term names no nodes, or there is none."""
    found: list[frozenset[str]] = []
    for term in terms:
        fields = [frozenset(one.values) for one in term.match_fields if one.operator is Operator.IN]
        if not fields:
            return None
        found.append(fields[0].intersection(*fields))
    return frozenset().union(*found) if found else None


def required(shape: PodShape, cluster: ClusterArrays) -> Mask:
    """Nodes that meet nodeSelector and one of the required terms; an empty list of terms is met by no node."""
    selector, terms = shape.node_selector, shape.affinity.required_node_terms

    def find() -> Mask:
        found = np.ones(cluster.count, dtype=np.bool_)
        for key, value in selector:
            found &= cluster.topology(key).having(value)
        if terms is not None:
            found &= cluster.mask(lambda node: any(term.matches(node.name, node.labels) for term in terms))
        return found

    return cluster.known_mask((selector, terms), find)


def preference(shape: PodShape, cluster: ClusterArrays) -> Scores | None:
    """Summed weights of the preferred terms that each node meets; None if no node meets any."""
    terms = [term for term in shape.affinity.preferred_node_terms if term.weight]
    if not terms:
        return None
    weights = [
        sum(term.weight for term in terms if term.term.matches(node.name, node.labels)) for node in cluster.nodes
    ]
    result = np.array(weights, dtype=np.float32)
    return result if result.any() else None


def with_preferred(names: Iterable[str], before: Scores | None, cluster: ClusterArrays) -> Scores | None:
    """Weights as `preference` gives them, with one more term of weight 1 that these nodes meet."""
    columns = [cluster.column[name] for name in names if name in cluster.column]
    if not columns:
        return before
    result = np.zeros(cluster.count, dtype=np.float32) if before is None else before.copy()
    result[columns] += STEERING_WEIGHT
    return result
