"""Rows of tables that the real scheduler plays: a few nodes of their own, pods that stand there, one that comes.

All rows stand side by side in one cluster. What must not be shared between them is written with `@`, which becomes the
name of the row's copy: labels, topology domains, topology keys, namespaces.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from prewarm.model.intents import Json

Object = dict[str, Json]
HOST = "kubernetes.io/hostname"
COPY = "copy"
"""Label of nodes and of pods that come: the copy of a row to which they belong."""
NAMESPACE = "default"
_TURN = "example.com/turn"
"""Held by the one node of a copy that is asked about. Unlike a nodeSelector it leaves all nodes to spread."""
_MIB = 1024**2
_STRONGEST = 100
"""The largest weight of a preferred term."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A pod on a node; by default it asks for nothing, so that it changes no score.

    Attributes:
        on: the node's name in the row.
        labels: of the pod.
        spec: parts of its spec.
        namespace: where it is.
        state: "" or how its life ends: Succeeded, Terminating.
        owned: whether the ReplicaSet of the pod that comes owns it.
    """

    on: str
    labels: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Json] = field(default_factory=dict)
    namespace: str = NAMESPACE
    state: str = ""
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table.

    Attributes:
        shows: what is learnt from it; unique in its table.
        nodes: by name, what is special about a node: labels, taints, unschedulable, allocatable, images.
        spec: parts of the spec of the pod that comes.
        standing: pods that are there.
        labels: of the pod that comes.
        together: whether nodes bear on each other; else each is asked about by itself.
        namespaces: that the row needs, with their labels.
        service: whether a Service selects pods with the label app.
        bare: whether the pod has no owner.
        handicap: points that a node lacks against the first of the others, whatever the scores say. Even numbers.
        by_pods: whether pod affinity, not node affinity, gives the handicap.
    """

    shows: str
    nodes: Mapping[str, Mapping[str, Json]]
    spec: Mapping[str, Json] = field(default_factory=dict)
    standing: tuple[Standing, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: {"app": "@"})
    together: bool = False
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    service: bool = False
    bare: bool = False
    handicap: Mapping[str, int] = field(default_factory=dict)
    by_pods: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """A row as it stands in the cluster.

    Attributes:
        name: of the copy; its nodes are named after it.
        row: whose copy it is.
        asked: the node that is asked about, by its name in the row; "" for the best of all.
    """

    name: str
    row: Row
    asked: str = ""

    def node_name(self, name: str) -> str:
        """Name of a node of the row in the cluster."""
        return f"{self.name}-{name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the row of the nodes that are made."""
        return tuple(self.row.nodes) if self.row.together or not self.asked else (self.asked,)

    def nodes(self, cluster_size: int) -> Iterator[Object]:
        """Node manifests. An image has the size that counts as given if only one node of the cluster holds it."""
        for name in self.names:
            special = self.row.nodes[name]
            amounts: Object = {"cpu": "100", "memory": "100Gi", "ephemeral-storage": "100Gi", "pods": "110"}
            amounts |= cast("Object", special.get("allocatable", {}))
            if name == self.asked:
                amounts[_TURN] = "1"
            images: list[Json] = [
                {"names": [image], "sizeBytes": int(mib) * _MIB * cluster_size}
                for image, mib in cast("dict[str, int]", special.get("images", {})).items()
            ]
            node = self.node_name(name)
            yield self._named(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {
                        "name": node,
                        "labels": {HOST: node, COPY: self.name, **cast("Object", special.get("labels", {}))},
                    },
                    "spec": {"taints": special.get("taints", []), "unschedulable": special.get("unschedulable", False)},
                    "status": {
                        "allocatable": amounts,
                        "capacity": amounts,
                        "images": images,
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                }
            )

    def standing(self) -> Iterator[tuple[Standing, Object]]:
        """Manifests of the pods that stand on the copy's nodes."""
        stays: Object = {"terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}]}
        for index, one in enumerate(self._all_standing()):
            if one.on in self.names:
                labels = {**one.labels, **({COPY: self.name} if one.owned else {})}
                spec = {"containers": [container()], **stays, **one.spec, "nodeName": self.node_name(one.on)}
                metadata: Object = {"name": f"{self.name}-{index}", "namespace": one.namespace, "labels": labels}
                if one.state == "Terminating":
                    metadata["finalizers"] = ["example.com/stays"]
                pod = self._named({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
                yield replace(one, namespace=self._named({"name": one.namespace})["name"]), pod  # type: ignore[arg-type]

    def replica_set(self) -> Object:
        """The owner of the pod that comes, which it does not ask for yet."""
        owned = sum(one.owned and one.on in self.names for one in self.row.standing)
        selector: Object = {COPY: self.name}
        return {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": self.name},
            "spec": {"replicas": owned, "selector": {"matchLabels": selector}, "template": self._template()},
        }

    @property
    def replicas(self) -> int:
        """Of the owner, once the pod is asked for."""
        return 1 + sum(one.owned and one.on in self.names for one in self.row.standing)

    def pod(self) -> Object:
        """The pod that comes, where nobody owns it; by another label than its template's, so that nobody takes it."""
        template = self._template()
        labels = {**self._named(dict(self.row.labels)), "bare": self.name}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels},
            "spec": template["spec"],
        }

    def services(self) -> Iterator[Object]:
        """Service manifests."""
        if self.row.service:
            spec: Object = {"selector": {"app": "@"}, "ports": [{"port": 80}]}
            yield self._named({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "@"}, "spec": spec})

    def namespaces(self) -> Iterator[Object]:
        """Namespace manifests."""
        for name, labels in self.row.namespaces.items():
            metadata: Object = {"name": name, "labels": dict(labels)}
            yield self._named({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def _template(self) -> Object:
        spec: Object = {"containers": [container()], "terminationGracePeriodSeconds": 0, **self.row.spec}
        spec["nodeSelector"] = {COPY: self.name, **cast("Object", spec.get("nodeSelector", {}))}
        if self.asked:
            first, *others = cast("list[Object]", spec["containers"])
            asks = cast("dict[str, Object]", first.get("resources", {}))
            turn = {part: {**asks.get(part, {}), _TURN: "1"} for part in ("requests", "limits")}
            spec["containers"] = [{**first, "resources": {**asks, **turn}}, *others]
        if self.row.handicap:
            spec["affinity"] = self._with_handicap(cast("Object", spec.get("affinity", {})))
        return self._named({"metadata": {"labels": {**self.row.labels, COPY: self.name}}, "spec": spec})

    def _weights(self) -> Mapping[str, int]:
        """Of the preferred terms, by node: two points each. Nodes that nobody compares have none and stay behind."""
        return {name: _STRONGEST - points // 2 for name, points in self.row.handicap.items()}

    def _with_handicap(self, affinity: Object) -> Object:
        kind, term = ("podAffinity", "podAffinityTerm") if self.row.by_pods else ("nodeAffinity", "preference")
        terms: list[Json] = []
        for name, weight in self._weights().items():
            by_host: Object = {"matchExpressions": [{"key": HOST, "operator": "In", "values": [self.node_name(name)]}]}
            near: Object = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"ruler": self.node_name(name)}}}
            terms.append({"weight": weight, term: near if self.row.by_pods else by_host})
        return {**affinity, kind: {"preferredDuringSchedulingIgnoredDuringExecution": terms}}

    def _all_standing(self) -> Iterable[Standing]:
        yield from self.row.standing
        if self.row.by_pods:
            for name in self.row.handicap:
                yield Standing(name, {"ruler": self.node_name(name)})

    def _named(self, manifest: Object) -> Object:
        return cast("Object", json.loads(json.dumps(manifest).replace("@", self.name)))


def container(
    requests: Mapping[str, str] | None = None, limits: Mapping[str, str] | None = None, /, **more: Json
) -> Object:
    """A container; by default it asks for nothing in so many words, so that scores count nothing for it either."""
    asked = {"cpu": "0", "memory": "0"} if requests is None else requests
    resources: Object = {"requests": dict(asked), "limits": dict(limits or {})}
    return {"name": "main", "image": "registry.test/app:v1", "resources": resources, **more}


def asking(**requests: str) -> Object:
    """A spec whose container requests something; `_` stands for `-` in the names."""
    return {"containers": [container({name.replace("_", "-"): much for name, much in requests.items()})]}


def copies(prefix: str, rows: Iterable[Row]) -> list[Copy]:
    """For each row one copy a node that is asked about."""
    return [Copy(f"{prefix}{number}-{name}", row, name) for number, row in enumerate(rows) for name in row.nodes]


def rivals(prefix: str, rows: Iterable[Row]) -> list[Copy]:
    """One copy of each row, whose nodes compete."""
    return [Copy(f"{prefix}{number}", row) for number, row in enumerate(rows)]


def bracket(shows: str, points: int, nodes: Mapping[str, Mapping[str, Json]], **more: object) -> tuple[Row, Row]:
    """Two rows that show by how many points (1 to 196) the node `a` is better than `b`: a bit less, a bit more.

    Other nodes take part in what is normalised, and stay behind.
    """
    step = 1 if points % 2 else 2
    row = Row(shows, nodes, **more)  # type: ignore[arg-type]
    return (
        replace(row, shows=f"{shows}: more than {points - step} points", handicap={"a": points - step, "b": 0}),
        replace(row, shows=f"{shows}: less than {points + step} points", handicap={"a": points + step, "b": 0}),
    )
