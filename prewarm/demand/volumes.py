"""Which volumes has a pod of its own, and do they leave it one node?"""

from collections.abc import Iterable, Sequence

from prewarm.model.nodes import Node
from prewarm.model.plans import Batch
from prewarm.model.selectors import NodeSelectorTerm, Operator
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.volumes import is_bindable, is_in_zone
from prewarm.model.workloads import Workload

_HOSTNAME = "kubernetes.io/hostname"


class PodVolumes:
    """The volumes of one workload's pods; made once for all its pods."""

    def __init__(self, snapshot: ClusterSnapshot, workload: Workload) -> None:
        self._snapshot = snapshot
        self._workload = workload
        self._by_hostname: dict[str, list[Node]] | None = None

    def batches(self, needed_at: float, pods: Sequence[str], leaving: int) -> list[Batch]:
        """The batch of some pods, by name; one for each pod if bound volumes of their own restrict them."""
        claims = [self.claims(pod) for pod in pods]
        if not any(map(self._are_bound, claims)):
            return [Batch(needed_at, len(pods), leaving, names=tuple(pods))]
        nodes = [self.only_node(own) for own in claims]
        return [
            Batch(needed_at, 1, int(index < leaving), (node,) if node else (), own, names=(pod,))
            for index, (pod, node, own) in enumerate(zip(pods, nodes, claims, strict=True))
        ]

    def claims(self, pod: str) -> tuple[str, ...]:
        """Names of the claims that a pod alone has (stateful_set_utils.go, getPersistentVolumeClaimName)."""
        return tuple(f"{template}-{pod}" for template in self._workload.claim_templates)

    def only_node(self, claims: Iterable[str]) -> str:
        """The one node where the bound volumes of some claims, and of the template's, can be used; "" if others can."""
        namespace = self._workload.key.namespace
        everything = (*self._workload.template.shape.volume_claims, *claims)
        volumes = self._snapshot.bound_volumes(namespace, everything)
        if not volumes:
            return ""
        found = [
            node.name
            for node in self._nodes(volumes[0].node_terms)
            if all(is_bindable(one.node_terms, node) and is_in_zone(one.zones, node) for one in volumes)
        ]
        return found[0] if len(found) == 1 else ""

    def _are_bound(self, claims: Iterable[str]) -> bool:
        return bool(self._snapshot.bound_volumes(self._workload.key.namespace, claims))

    def _nodes(self, terms: tuple[NodeSelectorTerm, ...] | None) -> Iterable[Node]:
        """Nodes that may meet some terms: those of the hostnames that every term names, else all."""
        named: list[str] = []
        for term in terms or (NodeSelectorTerm(),):
            hosts = [r for r in term.match_expressions if r.key == _HOSTNAME and r.operator is Operator.IN]
            if not hosts:
                return self._snapshot.nodes.values()
            named += hosts[0].values
        if self._by_hostname is None:
            self._by_hostname = {}
            for node in self._snapshot.nodes.values():
                self._by_hostname.setdefault(node.labels.get(_HOSTNAME, ""), []).append(node)
        return [node for name in dict.fromkeys(named) for node in self._by_hostname.get(name, ())]
