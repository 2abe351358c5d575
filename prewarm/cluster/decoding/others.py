"""Services, namespaces and the kubelet's Events."""

import re
from sys import intern

from msgspec import Struct, field

from prewarm.cluster.decoding.common import WireMeta, shared_mapping, sorted_pairs, unix
from prewarm.cluster.decoding.problems import Report
from prewarm.model.workloads import KubeletEvent, Namespace, Service

_LONGEST_MESSAGE = 4096
_CONTAINER_PATH = re.compile(r"spec\.(?:containers|initContainers|ephemeralContainers)\{(?P<name>[^}]+)\}")


class WireServiceSpec(Struct, gc=False):
    """v1.ServiceSpec."""

    selector: dict[str, str] | None = None


class WireService(Struct, gc=False):
    """v1.Service."""

    metadata: WireMeta
    spec: WireServiceSpec = field(default_factory=WireServiceSpec)


class WireNamespaceStatus(Struct, gc=False):
    """v1.NamespaceStatus."""

    phase: str = ""


class WireNamespace(Struct, gc=False):
    """v1.Namespace."""

    metadata: WireMeta
    status: WireNamespaceStatus = field(default_factory=WireNamespaceStatus)


class WireInvolved(Struct, rename="camel", gc=False):
    """v1.ObjectReference."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    field_path: str = ""


class WireEventSource(Struct, gc=False):
    """v1.EventSource."""

    component: str = ""
    host: str = ""


class WireSeries(Struct, rename="camel", gc=False):
    """v1.EventSeries."""

    count: int = 0
    last_observed_time: str | None = None


class WireEvent(Struct, rename="camel", gc=False):
    """v1.Event, as client-go's old and new recorders fill it in."""

    metadata: WireMeta
    involved_object: WireInvolved = field(default_factory=WireInvolved)
    reason: str = ""
    message: str = ""
    source: WireEventSource | None = None
    reporting_instance: str = ""
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    count: int | None = None
    series: WireSeries | None = None


def service(wire: WireService, _report: Report) -> Service:
    """A Service's selector."""
    return Service(wire.metadata.namespace, wire.metadata.name, sorted_pairs(wire.spec.selector))


def namespace(wire: WireNamespace, _report: Report) -> Namespace:
    """A namespace."""
    return Namespace(
        wire.metadata.name, shared_mapping(wire.metadata.labels), terminating=wire.status.phase == "Terminating"
    )


def kubelet_event(wire: WireEvent, _report: Report) -> KubeletEvent:
    """An Event about a pod; `first_seen` and `last_seen` have a resolution of one second."""
    involved, series, source = wire.involved_object, wire.series, wire.source or WireEventSource()
    path = _CONTAINER_PATH.fullmatch(involved.field_path)
    created = unix(wire.metadata.creation_timestamp) or 0.0
    first = unix(wire.first_timestamp) or unix(wire.event_time) or created
    last = (unix(series.last_observed_time) if series else None) or unix(wire.last_timestamp) or first
    return KubeletEvent(
        uid=wire.metadata.uid,
        namespace=intern(involved.namespace),
        pod_name=involved.name,
        pod_uid=involved.uid,
        reason=intern(wire.reason),
        message=wire.message[:_LONGEST_MESSAGE],
        node_name=intern(source.host or wire.reporting_instance),
        container=intern(path["name"]) if path else "",
        first_seen=first,
        last_seen=last,
        count=(series.count if series else None) or wire.count or 1,
    )
