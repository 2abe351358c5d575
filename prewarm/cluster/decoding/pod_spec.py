"""Pod specs to PodShapes: equal shapes become one object."""

from functools import lru_cache
from sys import intern

import msgspec
from msgspec import Struct, field

from prewarm.cluster.decoding.affinity import (
    WireAffinity,
    WireNodeAffinity,
    WireSpread,
    WireToleration,
    affinity,
    spread_constraints,
    tolerations,
)
from prewarm.cluster.decoding.common import Scalar, shared_mapping, sorted_pairs
from prewarm.cluster.decoding.problems import Report
from prewarm.cluster.decoding.requests import (
    SCORING_DEFAULTS,
    Amounts,
    RequestingContainer,
    WireResources,
    amounts,
    as_resources,
    pod_requests,
)
from prewarm.model.images import PullPolicy
from prewarm.model.pods import ContainerKind, ContainerShape, HostPort, PodShape, PodTemplate

_CACHED_SHAPES = 32768


class WirePort(Struct, rename="camel", gc=False):
    """v1.ContainerPort."""

    container_port: int = 0
    host_port: int = 0
    protocol: str = "TCP"
    host_ip: str = field(default="", name="hostIP")


class WireContainer(Struct, rename="camel", gc=False):
    """v1.Container."""

    name: str = ""
    image: str = ""
    image_pull_policy: str = ""
    restart_policy: str | None = None
    resources: WireResources | None = None
    ports: list[WirePort] | None = None


class WireClaim(Struct, rename="camel", gc=False):
    """v1.PersistentVolumeClaimVolumeSource."""

    claim_name: str = ""


class WireImageSource(Struct, rename="camel", gc=False):
    """v1.ImageVolumeSource."""

    reference: str = ""
    pull_policy: str = ""


class WireEphemeral(Struct, gc=False):
    """v1.EphemeralVolumeSource: its claim is named after pod and volume."""


class WireVolume(Struct, rename="camel", gc=False):
    """v1.Volume, the kinds that bear on placement or pulls."""

    name: str = ""
    persistent_volume_claim: WireClaim | None = None
    image: WireImageSource | None = None
    ephemeral: WireEphemeral | None = None


class WireLocalName(Struct, gc=False):
    """v1.LocalObjectReference."""

    name: str = ""


class WirePodSpec(Struct, rename="camel", gc=False):
    """v1.PodSpec."""

    node_name: str = ""
    containers: list[WireContainer] | None = None
    init_containers: list[WireContainer] | None = None
    volumes: list[WireVolume] | None = None
    resources: WireResources | None = None
    overhead: dict[str, Scalar] | None = None
    node_selector: dict[str, str] | None = None
    affinity: WireAffinity | None = None
    tolerations: list[WireToleration] | None = None
    topology_spread_constraints: list[WireSpread] | None = None
    priority: int | None = None
    priority_class_name: str = ""
    preemption_policy: str | None = None
    scheduler_name: str = ""
    scheduling_gates: list[WireLocalName] | None = None
    service_account_name: str = ""
    image_pull_secrets: list[WireLocalName] | None = None
    host_network: bool = False
    runtime_class_name: str | None = None


class WireTemplateMeta(Struct, gc=False):
    """metadata of a pod template."""

    labels: dict[str, str] | None = None


class WireTemplate(Struct, gc=False):
    """v1.PodTemplateSpec."""

    metadata: WireTemplateMeta | None = None
    spec: WirePodSpec | None = None


_ENCODER = msgspec.msgpack.Encoder()
_SPEC = msgspec.msgpack.Decoder(WirePodSpec)


def shape_of_pod(spec: WirePodSpec, pod_name: str, report: Report) -> PodShape:
    """The shape without the node that the pod is bound to. Changes `spec`."""
    if spec.node_name:
        spec.node_name = ""
        if spec.affinity is not None and spec.affinity.node_affinity is not None:
            _forget_node(spec.affinity.node_affinity)
    return _shape(spec, pod_name, report)


def _forget_node(wanted: WireNodeAffinity) -> None:
    """A DaemonSet's pod asks for its node by name: once bound, that only hides that its siblings are equal."""
    required = wanted.requiredDuringSchedulingIgnoredDuringExecution
    if required is None or not any(term.match_fields for term in required.node_selector_terms or ()):
        return
    for term in required.node_selector_terms or ():
        term.match_fields = None
    if not all(term.match_expressions for term in required.node_selector_terms or ()):
        wanted.requiredDuringSchedulingIgnoredDuringExecution = None


def pod_template(wire: WireTemplate | None, report: Report) -> PodTemplate:
    """spec.template of a workload."""
    if wire is None:
        return PodTemplate()
    labels = wire.metadata.labels if wire.metadata else None
    spec = wire.spec or WirePodSpec()
    _complete(spec)
    return PodTemplate(shared_mapping(labels), _shape(spec, "", report))


def _complete(spec: WirePodSpec) -> None:
    """Fill in what the API server gives to pods but not to templates (SetDefaults_Pod). Changes `spec`.

    Limits stand in for requests that are not named; on the host's network containers take their ports of it.
    """
    containers = [*(spec.init_containers or ()), *(spec.containers or ())]
    for container in containers:
        resources = container.resources
        if resources is not None and resources.limits:
            resources.requests = resources.limits | (resources.requests or {})
        if spec.host_network:
            for port in container.ports or ():
                port.host_port = port.host_port or port.container_port
    if spec.resources is not None and spec.resources.limits:
        asked = {name for one in containers if one.resources for name in one.resources.requests or ()}
        limits = {name: limit for name, limit in spec.resources.limits.items() if name not in asked}
        spec.resources.requests = limits | (spec.resources.requests or {})


def _shape(spec: WirePodSpec, pod_name: str, report: Report) -> PodShape:
    """Replicas differ in volumes that do not matter here (their tokens'); without those their encodings are equal."""
    if spec.volumes:
        spec.volumes = [volume for volume in spec.volumes if _matters(volume, pod_name)]
    shape, problems = _shape_of(_ENCODER.encode(spec))
    for problem in problems:
        report(problem)
    return shape


def _matters(volume: WireVolume, pod_name: str) -> bool:
    if volume.ephemeral is not None and pod_name:
        volume.persistent_volume_claim = WireClaim(f"{pod_name}-{volume.name}")
        volume.ephemeral = None
    return volume.persistent_volume_claim is not None or volume.image is not None


@lru_cache(maxsize=_CACHED_SHAPES)
def _shape_of(encoded: bytes) -> tuple[PodShape, tuple[str, ...]]:
    problems: list[str] = []
    return _one(_build(_SPEC.decode(encoded), problems.append)), tuple(problems)


@lru_cache(maxsize=_CACHED_SHAPES)
def _one(shape: PodShape) -> PodShape:
    """Specs spelt differently may still have equal shapes."""
    return shape


def _build(spec: WirePodSpec, report: Report) -> PodShape:
    init = [_requesting(container, report) for container in spec.init_containers or ()]
    main = [_requesting(container, report) for container in spec.containers or ()]
    pod_level = amounts(spec.resources.requests, report) if spec.resources else {}
    overhead = amounts(spec.overhead, report)
    scoring = pod_requests(init, main, pod_level, overhead, SCORING_DEFAULTS)
    return PodShape(
        containers=_containers(spec, report),
        requests=as_resources(pod_requests(init, main, pod_level, overhead, {})),
        overhead=as_resources(overhead),
        limits=as_resources(_limits(spec, report)),
        scoring_milli_cpu=scoring.get("cpu", 0),
        scoring_memory=scoring.get("memory", 0),
        node_selector=sorted_pairs(spec.node_selector),
        affinity=affinity(spec.affinity, report),
        tolerations=tolerations(spec.tolerations),
        spread=spread_constraints(spec.topology_spread_constraints, report),
        host_ports=_host_ports(spec),
        priority=spec.priority or 0,
        preempts=spec.preemption_policy != "Never",
        priority_class=spec.priority_class_name,
        scheduler_name=spec.scheduler_name or "default-scheduler",
        gated=bool(spec.scheduling_gates),
        node_name=intern(spec.node_name),
        volume_claims=tuple(
            volume.persistent_volume_claim.claim_name
            for volume in spec.volumes or ()
            if volume.persistent_volume_claim is not None
        ),
        service_account=intern(spec.service_account_name),
        pull_secrets=tuple(intern(secret.name) for secret in spec.image_pull_secrets or () if secret.name),
        host_network=spec.host_network,
        runtime_class=spec.runtime_class_name or "",
    )


def _limits(spec: WirePodSpec, report: Report) -> Amounts:
    """Limits add up as requests do; a container without one counts as nothing, as in quotas."""

    def limited(wire: WireContainer) -> RequestingContainer:
        limits = wire.resources.limits if wire.resources else None
        return RequestingContainer(amounts(limits, report), wire.restart_policy == "Always")

    init = [limited(wire) for wire in spec.init_containers or ()]
    main = [limited(wire) for wire in spec.containers or ()]
    pod_level = amounts(spec.resources.limits, report) if spec.resources else {}
    return pod_requests(init, main, pod_level, {}, {})


def _requesting(container: WireContainer, report: Report) -> RequestingContainer:
    requests = container.resources.requests if container.resources else None
    return RequestingContainer(amounts(requests, report), container.restart_policy == "Always")


def _containers(spec: WirePodSpec, report: Report) -> tuple[ContainerShape, ...]:
    """In the kubelet's order: image volumes, init containers, containers."""
    volumes = [
        _container(volume.name, volume.image.reference, volume.image.pull_policy, ContainerKind.IMAGE_VOLUME, report)
        for volume in spec.volumes or ()
        if volume.image is not None
    ]
    init = [
        _container(
            wire.name,
            wire.image,
            wire.image_pull_policy,
            ContainerKind.SIDECAR if wire.restart_policy == "Always" else ContainerKind.INIT,
            report,
        )
        for wire in spec.init_containers or ()
    ]
    main = [
        _container(wire.name, wire.image, wire.image_pull_policy, ContainerKind.MAIN, report)
        for wire in spec.containers or ()
    ]
    return (*volumes, *init, *main)


def _container(name: str, image: str, policy: str, kind: ContainerKind, report: Report) -> ContainerShape:
    return ContainerShape(intern(name), intern(image), _pull_policy(policy, image, report), kind)


def _pull_policy(text: str, image: str, report: Report) -> PullPolicy:
    """Absent: Always for :latest and no tag, as the API server fills in (pkg/apis/core/v1/defaults.go)."""
    try:
        if text:
            return PullPolicy(text)
    except ValueError:
        report(f"imagePullPolicy {text!r} is unknown")
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return PullPolicy.ALWAYS if not digest and tag in {"", "latest"} else PullPolicy.IF_NOT_PRESENT


def _host_ports(spec: WirePodSpec) -> tuple[HostPort, ...]:
    """Ports of containers and of sidecars, which run as long (scheduler's NodePorts)."""
    sidecars = [wire for wire in spec.init_containers or () if wire.restart_policy == "Always"]
    return tuple(
        HostPort(port.host_port, port.protocol, port.host_ip or "0.0.0.0")  # noqa: S104 - the API's default
        for wire in [*sidecars, *(spec.containers or ())]
        for port in wire.ports or ()
        if port.host_port
    )
