"""What would an autoscaler add for pods that fit nowhere? Nodes like those that a group of nodes has already.

A group is known by the label that its manager puts on every node. Whether anybody adds nodes to it is not known: said
is only which nodes would help. Groups without any node are not known either.
"""

from collections.abc import Iterable, Mapping
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.nodes import Node
from prewarm.model.plans import Batch, Demand, NewNodes
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage, ObjectKey
from prewarm.placement.cluster_arrays import ClusterArrays
from prewarm.placement.incoming import of_demand
from prewarm.placement.replay import Replays

GROUP_LABELS = (
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "alpha.eksctl.io/nodegroup-name",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "kops.k8s.io/instancegroup",
    "doks.digitalocean.com/node-pool",
    "lke.linode.com/pool-id",
)
"""The first of these that a node has says to which group it belongs."""
JOINING_SECONDS = 600.0
"""A node that is not ready, or has taints that others of its group lost, is starting up for so long after it joined."""
MOST_PODS = 110
"""Pods that are tried on one node, as many as a kubelet takes by default."""
_HOSTNAME = "kubernetes.io/hostname"


class _Group(Struct, frozen=True):
    label: str
    name: str
    members: tuple[Node, ...]

    @property
    def model(self) -> Node:
        """The member that a new one will be like once it has started: ready, with the fewest taints, the youngest."""
        return max(self.members, key=lambda node: (node.ready, -len(node.taints), node.created_at, node.name))

    def starting(self, now: float) -> tuple[str, ...]:
        """Members that joined just now and take no pods yet."""
        usual = set(self.model.taints)
        return tuple(
            node.name
            for node in self.members
            if node.created_at > now - JOINING_SECONDS
            and node.deleted_at is None
            and (not node.ready or not set(node.taints) <= usual)
        )


def new_nodes(demand: Demand, snapshot: ClusterSnapshot, pods: int) -> tuple[NewNodes, ...]:
    """Of which groups a new node would take pods of a demand, how many each, and which nodes are starting up.

    Args:
        demand: of which some pods fit nowhere.
        snapshot: the cluster now.
        pods: how many those are.
    """
    found = []
    for group in _groups(snapshot.nodes.values()):
        each = _fitting(demand, snapshot, group.model, min(pods, MOST_PODS))
        if each:
            starting = group.starting(snapshot.taken_at)
            found.append(NewNodes(group.label, group.name, each, ceil(pods / each), starting))
    return tuple(found)


def _groups(nodes: Iterable[Node]) -> list[_Group]:
    members: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        label = next((label for label in GROUP_LABELS if label in node.labels), None)
        if label is not None:
            members.setdefault((label, node.labels[label]), []).append(node)
    return [_Group(*key, tuple(found)) for key, found in sorted(members.items())]


def _fitting(demand: Demand, snapshot: ClusterSnapshot, model: Node, pods: int) -> int:
    """How many pods a node like `model` takes that has no pods but those that run on every node."""
    name = f"new-{model.name}"
    labels = {**model.labels, **({_HOSTNAME: name} if _HOSTNAME in model.labels else {})}
    fresh = replace(model, name=name, labels=labels, unschedulable=False, images=())
    everywhere = _daemons(snapshot.pods_by_node.get(model.name, {}))
    usage = NodeUsage()
    for pod in everywhere.values():
        usage = usage.plus(pod)
    limits = snapshot.attach_limits.get(model.name)
    alone = replace(
        snapshot,
        nodes={name: fresh},
        pods_by_node={name: everywhere},
        usage={name: usage},
        waiting_pods={},
        puller_pods={},
        attach_limits={} if limits is None else {name: limits},
    )
    wanted = replace(demand, batches=(Batch(snapshot.taken_at, pods),), leaving=(), leaving_first=0)
    if of_demand(wanted, alone).shape.affinity.required_pod_affinity:
        # Whom they want to be with is on other nodes: only the scheduler can tell whether a new one is near enough.
        return 0
    outcome = Replays(wanted, alone, ClusterArrays(alone.nodes), rows=1, seed=0, expected={}).run()[0]
    return int(outcome.counts.sum())


def _daemons(pods: Mapping[ObjectKey, Pod]) -> dict[ObjectKey, Pod]:
    return {key: pod for key, pod in pods.items() if pod.owner is not None and pod.owner.kind == "DaemonSet"}
