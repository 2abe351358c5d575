"""Emulated nodes: how many, how large, where; as profiles for the model and as manifests for the API server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from msgspec import Struct
from msgspec import field as struct_field

from prewarm.model.intents import Manifest
from prewarm.model.pods import Resources, Taint, TaintEffect
from prewarm.simulation.messages import Runtime
from prewarm.simulation.specs import NodeProfile, Timings, fraction

LABEL = "emulator.prewarm.dev/node"
_SIZES = ((4, 16), (8, 32), (16, 64))
"""Cores and GiB of varied nodes."""
_RESERVED_CPU_MILLI, _RESERVED_MEMORY = 200, 1 << 30


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """Nodes to emulate.

    Attributes:
        count: how many.
        prefix: their names are prefix and number.
        zones: they take turns in so many zones.
        region: topology.kubernetes.io/region; zones are named after it.
        seed: decides the sizes, and the phases of the kubelets' loops.
        varied: sizes differ from node to node; else all have 8 cores and 32 GiB.
        bandwidth: bytes a second of each node.
        unpack_rate: compressed bytes a second that a node unpacks.
        pull_slots: pulls at once; 1 as kubelets do by default, None without limit.
        image_disk: bytes of the image file system.
        gc_high_percent: imageGCHighThresholdPercent: from which share of it in use images are collected.
        gc_low_percent: imageGCLowThresholdPercent: down to which.
        gc_minimum_age: imageMinimumGCAge, in seconds.
        gc_period: seconds between two collections.
        runtime: whose error texts the nodes use.
        labels: on every node.
        taints: on every node.
        max_pods: pods a node takes.
        timings: of the kubelets' own steps.
    """

    count: int
    prefix: str = "node"
    zones: int = 3
    region: str = "region-1"
    seed: str = "1"
    varied: bool = True
    bandwidth: float = 125e6
    unpack_rate: float = 500e6
    pull_slots: int | None = 1
    image_disk: float = 100e9
    gc_high_percent: int = 85
    gc_low_percent: int = 80
    gc_minimum_age: float = 120.0
    gc_period: float = 300.0
    runtime: Runtime = Runtime.CONTAINERD_2
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    max_pods: int = 110
    timings: Timings = field(default_factory=Timings)

    def profiles(self) -> list[NodeProfile]:
        """One profile a node, the same for the same plan."""
        width = len(str(self.count - 1))
        return [self._profile(index, f"{self.prefix}-{index:0{width}d}") for index in range(self.count)]

    def _profile(self, index: int, name: str) -> NodeProfile:
        cores, memory = _SIZES[int(fraction(self.seed, name, "size") * len(_SIZES))] if self.varied else _SIZES[1]
        high, low = divmod(index, 250)
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": f"emulated-{cores}",
            "topology.kubernetes.io/region": self.region,
            "topology.kubernetes.io/zone": f"{self.region}-{index % self.zones}",
            LABEL: "true",
            **self.labels,
        }
        return NodeProfile(
            name,
            labels,
            self.taints,
            Resources(cores * 1000 - _RESERVED_CPU_MILLI, (memory << 30) - _RESERVED_MEMORY, 90 << 30),
            self.max_pods,
            self.bandwidth,
            self.unpack_rate,
            self.pull_slots,
            runtime=self.runtime,
            image_disk=self.image_disk,
            gc_high_percent=self.gc_high_percent,
            gc_low_percent=self.gc_low_percent,
            gc_minimum_age=self.gc_minimum_age,
            gc_period=self.gc_period,
            pod_ip_prefix=f"10.{64 + high}.{low}.",
            host_ip=f"192.168.{high}.{low + 1}",
            timings=self.timings,
        )


class _Metadata(Struct):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] = {}


class _Taint(Struct):
    key: str
    effect: TaintEffect
    value: str = ""


class _Spec(Struct):
    taints: list[_Taint] = []


class ObservedNode(Struct):
    """What a kubelet reads of its own Node object."""

    metadata: _Metadata
    spec: _Spec = struct_field(default_factory=_Spec)

    @property
    def taints(self) -> tuple[Taint, ...]:
        """spec.taints."""
        return tuple(Taint(taint.key, taint.value, taint.effect) for taint in self.spec.taints)


def manifest(profile: NodeProfile) -> Manifest:
    """The Node object; KWOK makes it Ready and keeps it so."""
    room = profile.allocatable
    pods = str(profile.max_pods)
    allocatable = {
        "cpu": f"{room.milli_cpu}m",
        "memory": str(room.memory),
        "ephemeral-storage": str(room.ephemeral_storage),
        "pods": pods,
    }
    capacity = allocatable | {
        "cpu": f"{room.milli_cpu + _RESERVED_CPU_MILLI}m",
        "memory": str(room.memory + _RESERVED_MEMORY),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": profile.name, "labels": dict(profile.labels)},
        "spec": {"taints": [{"key": t.key, "value": t.value, "effect": t.effect.value} for t in profile.taints]},
        "status": {
            "capacity": capacity,
            "allocatable": allocatable,
            "addresses": [
                {"type": "InternalIP", "address": profile.host_ip},
                {"type": "Hostname", "address": profile.name},
            ],
            "nodeInfo": {
                "architecture": profile.labels.get("kubernetes.io/arch", "amd64"),
                "bootID": _uuid(profile.name, "boot"),
                "containerRuntimeVersion": profile.runtime.value,
                "kernelVersion": "6.12.0",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.3",
                "machineID": _uuid(profile.name, "machine"),
                "operatingSystem": "linux",
                "osImage": "emulated",
                "systemUUID": _uuid(profile.name, "system"),
            },
        },
    }


def _uuid(name: str, what: str) -> str:
    return str(UUID(bytes=sha256(f"{name}/{what}".encode()).digest()[:16]))
