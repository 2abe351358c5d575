"""Plays rows side by side: what the real scheduler does with each row's pod, and the cluster as it was before."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.placement.rows import COPY, NAMESPACE, Copy, Object
from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.live import read_cluster
from prewarm.model.intents import NAMESPACES, NODES, PODS, REPLICA_SETS, SERVICES, Resource
from prewarm.model.plans import Batch, Candidates, Demand, RejectReason, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey
from prewarm.placement import place

T = TypeVar("T")
_TOGETHER = 16
_TIMEOUT_SECONDS = 120.0
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_BARE = "bare"
OPTIONS = ControlPlaneOptions(
    kwok=False,
    extra_flags={
        Component.KUBE_APISERVER: ("--disable-admission-plugins=TaintNodesByCondition",),
        Component.KUBE_CONTROLLER_MANAGER: ("--node-monitor-grace-period=1h",),
    },
)
"""Nodes are ready when they are made, and stay so without a kubelet: hundreds of them wait for nobody."""

_WORDS = {
    "were unschedulable": RejectReason.NODE_UNSCHEDULABLE,
    "had untolerated taint": RejectReason.TAINT_TOLERATION,
    "didn't match Pod's node affinity/selector": RejectReason.NODE_AFFINITY,
    "didn't satisfy plugin(s) [NodeAffinity]": RejectReason.NODE_AFFINITY,
    "didn't have free ports": RejectReason.NODE_PORTS,
    "Too many pods": RejectReason.TOO_MANY_PODS,
    "Insufficient cpu": RejectReason.INSUFFICIENT_CPU,
    "Insufficient memory": RejectReason.INSUFFICIENT_MEMORY,
    "Insufficient ": RejectReason.INSUFFICIENT_RESOURCE,
    "didn't match pod topology spread constraints": RejectReason.TOPOLOGY_SPREAD,
    "didn't match pod affinity rules": RejectReason.POD_AFFINITY,
    "didn't match pod anti-affinity rules": RejectReason.POD_AFFINITY,
    "didn't satisfy existing pods anti-affinity rules": RejectReason.POD_AFFINITY,
}
"""What the scheduler says of nodes, by our names."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a pod.

    Attributes:
        node: where it was bound; "" if it fits nowhere.
        message: the scheduler's.
    """

    node: str
    message: str = ""

    @property
    def rejected(self) -> Counter[RejectReason]:
        """How many nodes were rejected for what; one counts twice if it has too little of two resources."""
        found: Counter[RejectReason] = Counter()
        said = self.message.partition(" preemption:")[0].partition("nodes are available: ")[2]
        for number, words in re.findall(r"(\d+) (.*?)(?:, (?=\d)|\.? ?$)", said):
            found[next(reason for start, reason in _WORDS.items() if start in words)] += int(number)
        return found


@dataclass(frozen=True, slots=True)
class Played:
    """The cluster before the pods came, and what the scheduler did, by copy."""

    before: ClusterSnapshot
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def predicted(self, copy: Copy, replays: int = 16) -> Candidates:
        """Where our replays put the pod of a copy."""
        template = self.before.replica_sets[NAMESPACE, copy.name].template
        uid = self.before.replica_sets[NAMESPACE, copy.name].uid
        key = WorkloadKey("Pod" if copy.row.bare else "ReplicaSet", NAMESPACE, copy.name)
        images = template.shape.images
        demand = Demand(key, uid, Trigger.WHAT_IF, "row", images, template, (Batch(0.0, 1),))
        return place(demand, self.before, replays=replays)


async def play(client: Client, copies: Sequence[Copy], overhead: dict[str, str]) -> Played:
    """Build all rows in an empty cluster, look at it, and let their pods come.

    Args:
        client: of the cluster.
        copies: of all rows.
        overhead: of the RuntimeClass `heavy`.
    """
    heavy: Object = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "heavy"}}
    await client.create(RUNTIME_CLASSES, "", {**heavy, "handler": "heavy", "overhead": {"podFixed": dict(overhead)}})
    spaces = {_name(one): one for copy in copies for one in copy.namespaces()}
    await each(spaces.values(), lambda one: client.create(NAMESPACES, "", one))
    size = sum(len(copy.names) for copy in copies)
    nodes = [node for copy in copies for node in copy.nodes(size)]
    await each(nodes, lambda node: client.create(NODES, "", node))
    await seen(client, NODES, {_name(node) for node in nodes}, _is_settled)
    accounts = {f"{space}/default" for space in (NAMESPACE, *spaces)}
    await seen(client, SERVICE_ACCOUNTS, accounts, lambda _: True, _full_name)
    await each(copies, lambda copy: _stand(client, copy))
    services = [service for copy in copies for service in copy.services()]
    await each(services, lambda service: client.create(SERVICES, NAMESPACE, service))
    await each(copies, lambda copy: client.create(REPLICA_SETS, NAMESPACE, copy.replica_set()))
    owned = {_name(pod) for copy in copies for one, pod in copy.standing() if one.owned}
    await seen(client, PODS, owned, lambda pod: bool(pod["metadata"].get("ownerReferences")))
    before = await read_cluster(client, 0.0)
    standing = {name for _, name in before.pods}
    await each(copies, lambda copy: _come(client, copy))

    def who(pod: Any) -> str:
        metadata = pod["metadata"]
        labels = metadata.get("labels", {})
        return "" if metadata["name"] in standing else str(labels.get(_BARE) or labels.get(COPY, ""))

    found = await seen(client, PODS, {copy.name for copy in copies}, lambda pod: bool(_outcome(pod)), who)
    return Played(before, {name: outcome for name, pod in found.items() if (outcome := _outcome(pod)) is not None})


def _outcome(pod: Any) -> Outcome | None:
    if pod["spec"].get("nodeName"):
        return Outcome(pod["spec"]["nodeName"])
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Outcome("", condition.get("message", ""))
    return None


def _is_settled(node: Any) -> bool:
    """Whether a cordoned node has got the taint that tells of it."""
    taints = {taint["key"] for taint in node["spec"].get("taints", ())}
    return "node.kubernetes.io/unschedulable" in taints or not node["spec"].get("unschedulable")


async def _stand(client: Client, copy: Copy) -> None:
    for one, manifest in copy.standing():
        name = _name(manifest)
        await client.create(PODS, one.namespace, manifest)
        if one.state == "Succeeded":
            said: Object = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "status": {"phase": one.state},
            }
            await client.apply(PODS, one.namespace, name, said, "status")
        elif one.state == "Terminating":
            await client.delete(PODS, one.namespace, name)


async def _come(client: Client, copy: Copy) -> None:
    if copy.row.bare:
        await client.create(PODS, NAMESPACE, copy.pod())
    else:
        await client.merge_patch(REPLICA_SETS, NAMESPACE, copy.name, {"spec": {"replicas": copy.replicas}})


async def seen(
    client: Client,
    resource: Resource,
    wanted: AbstractSet[str],
    settled: Callable[[Any], bool],
    called: Callable[[Any], str] | None = None,
) -> dict[str, Any]:
    """Watch until all wanted objects are as they should be; gives them by what they are called.

    Raises:
        AssertionError: some were not in time.
    """
    name = called or (lambda manifest: str(manifest["metadata"]["name"]))
    last: dict[str, Any] = {}
    missing = set(wanted)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            async with aclosing(_events(client, resource)) as events:
                while missing:
                    manifest = await anext(events)
                    if (key := name(manifest)) in wanted:
                        last[key] = manifest
                        if settled(manifest):
                            missing.discard(key)
    except TimeoutError:
        raise AssertionError({key: last.get(key) for key in missing}) from None
    return last


async def _events(client: Client, resource: Resource) -> AsyncGenerator[Any]:
    """All objects as they are and become; a watch that the server ends is followed by another."""
    while True:
        async with aclosing(client.watch(resource, WatchOptions(initial_events=True))) as stream:
            async for lines in stream:
                for line in lines:
                    event = json.loads(line)
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        yield event["object"]


async def each(items: Iterable[T], do: Callable[[T], Awaitable[object]]) -> None:
    """Do something for every item, a few at a time."""
    gate = asyncio.Semaphore(_TOGETHER)

    async def one(item: T) -> None:
        async with gate:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(one(item))


def _name(manifest: Any) -> str:
    return str(manifest["metadata"]["name"])


def _full_name(manifest: Any) -> str:
    return f"{manifest['metadata']['namespace']}/{_name(manifest)}"
