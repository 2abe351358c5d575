"""Nodes."""

from functools import lru_cache
from sys import intern

from msgspec import Struct, field

from prewarm.cluster.decoding.common import Scalar, WireCondition, WireMeta, shared_mapping, unix
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.requests import amounts, as_resources
from prewarm.model.nodes import Node, NodeImageStatus
from prewarm.model.pods import Taint, TaintEffect


class WireTaint(Struct, gc=False):
    """v1.Taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class WireNodeSpec(Struct, gc=False):
    """v1.NodeSpec."""

    taints: list[WireTaint] | None = None
    unschedulable: bool = False


class WireImage(Struct, rename="camel", gc=False):
    """v1.ContainerImage."""

    names: list[str] | None = None
    size_bytes: int = 0


class WireNodeInfo(Struct, rename="camel", gc=False):
    """v1.NodeSystemInfo."""

    boot_id: str = field(default="", name="bootID")
    operating_system: str = ""
    architecture: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""


class WireNodeStatus(Struct, rename="camel", gc=False):
    """v1.NodeStatus."""

    allocatable: dict[str, Scalar] | None = None
    conditions: list[WireCondition] | None = None
    images: list[WireImage] | None = None
    node_info: WireNodeInfo = field(default_factory=WireNodeInfo)


class WireNode(Struct, gc=False):
    """v1.Node."""

    metadata: WireMeta
    spec: WireNodeSpec = field(default_factory=WireNodeSpec)
    status: WireNodeStatus = field(default_factory=WireNodeStatus)


def node(wire: WireNode, report: Report) -> Node:
    """A node; what its heartbeats change (lastHeartbeatTime, resourceVersion aside) is not read."""
    meta, status = wire.metadata, wire.status
    conditions = {condition.type: condition for condition in status.conditions or ()}
    ready, pressure = conditions.get("Ready"), conditions.get("DiskPressure")
    true = {name for name, condition in conditions.items() if condition.status == "True"}
    allocatable = amounts(status.allocatable, report)
    info = status.node_info
    return Node(
        name=intern(meta.name),
        uid=meta.uid,
        boot_id=info.boot_id,
        labels=shared_mapping(meta.labels),
        taints=tuple(taint for wire_taint in wire.spec.taints or () if (taint := _taint(wire_taint, report))),
        unschedulable=wire.spec.unschedulable,
        ready="Ready" in true,
        ready_since=(unix(ready.last_transition_time) or 0.0) if ready and "Ready" in true else 0.0,
        disk_pressure="DiskPressure" in true,
        disk_pressure_changed_at=(unix(pressure.last_transition_time) or 0.0) if pressure else 0.0,
        memory_pressure="MemoryPressure" in true,
        pid_pressure="PIDPressure" in true,
        deleted_at=unix(meta.deletion_timestamp),
        created_at=unix(meta.creation_timestamp) or 0.0,
        allocatable=as_resources(allocatable),
        max_pods=allocatable.get("pods", 110),
        images=tuple(_image(tuple(image.names or ()), image.size_bytes) for image in status.images or ()),
        operating_system=intern(info.operating_system or "linux"),
        architecture=intern(info.architecture or "amd64"),
        runtime_version=intern(info.container_runtime_version),
        kubelet_version=intern(info.kubelet_version),
        resource_version=meta.resource_version,
    )


def _taint(wire: WireTaint, report: Report) -> Taint | None:
    try:
        return Taint(intern(wire.key), intern(wire.value), TaintEffect(wire.effect))
    except ValueError:
        report(f"taint {wire.key!r} has the unknown effect {wire.effect!r}")
        return None


@lru_cache(maxsize=16384)
def _image(names: tuple[str, ...], size_bytes: int) -> NodeImageStatus:
    """Nodes hold mostly the same images: one object for all."""
    return NodeImageStatus(tuple(intern(name) for name in names), size_bytes)
