"""Filters that look at one node at a time: what may a node be like, and does it take the pod?"""

from collections.abc import Mapping

from e2e.placement.rows import Object, Row, Standing, asking, container
from prewarm.model.intents import Json

_TEAM: Object = {"key": "team", "value": "ml", "effect": "NoSchedule"}
_PLAIN: Mapping[str, Mapping[str, Json]] = {"a": {}}


def _tainted(shows: str, *tolerations: Json, taints: tuple[Json, ...] = (_TEAM,)) -> Row:
    return Row(shows, {"a": {"taints": taints}}, {"tolerations": tolerations})


def _cordoned(shows: str, *tolerations: Json) -> Row:
    return Row(shows, {"a": {"unschedulable": True}}, {"tolerations": tolerations})


_CORDON = "node.kubernetes.io/unschedulable"
NODE_UNSCHEDULABLE = (
    _cordoned("a cordon keeps pods away"),
    _cordoned("a cordon is tolerated by key", {"key": _CORDON, "operator": "Exists"}),
    _cordoned(
        "a cordon is tolerated by key and effect", {"key": _CORDON, "operator": "Exists", "effect": "NoSchedule"}
    ),
    _cordoned(
        "a cordon is not tolerated by another effect", {"key": _CORDON, "operator": "Exists", "effect": "NoExecute"}
    ),
)

TAINT_TOLERATION = (
    _tainted("an untolerated taint"),
    _tainted("a tolerated value", {"key": "team", "value": "ml"}),
    _tainted("another value", {"key": "team", "value": "web"}),
    _tainted("another key", {"key": "crew", "operator": "Exists"}),
    _tainted("any value of a key", {"key": "team", "operator": "Exists"}),
    _tainted("another effect", {"key": "team", "operator": "Exists", "effect": "NoExecute"}),
    _tainted("everything is tolerated", {"operator": "Exists"}),
    _tainted("everything of one effect", {"operator": "Exists", "effect": "NoSchedule"}),
    _tainted("an empty value is a value", {"key": "team"}),
    _tainted("NoExecute keeps new pods away", taints=({"key": "team", "effect": "NoExecute"},)),
    _tainted(
        "NoExecute tolerated for some time",
        {"key": "team", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
        taints=({"key": "team", "effect": "NoExecute"},),
    ),
    _tainted(
        "one of two taints is tolerated", {"key": "team", "operator": "Exists"}, taints=(_TEAM, {**_TEAM, "key": "x"})
    ),
    _tainted("PreferNoSchedule keeps nobody away", taints=({**_TEAM, "effect": "PreferNoSchedule"},)),
)

_RANKED: Mapping[str, Mapping[str, Json]] = {
    "a": {"labels": {"rank": "7", "disk": "ssd"}},
    "b": {"labels": {"rank": "5", "disk": "hdd"}},
    "c": {"labels": {"rank": "x7"}},
}


def _expression(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, **({"values": values} if values else {})}


def _selecting(shows: str, *terms: Object, **spec: Json) -> Row:
    required: Object = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return Row(shows, _RANKED, {"affinity": {"nodeAffinity": required}, **spec})


def _all(*expressions: Object) -> Object:
    return {"matchExpressions": expressions}


def _by_name(operator: str) -> Object:
    return {"matchFields": [_expression("metadata.name", operator, "@-a")]}


NODE_AFFINITY = (
    Row("nodeSelector", _RANKED, {"nodeSelector": {"disk": "ssd"}}),
    _selecting("In", _all(_expression("disk", "In", "ssd", "nvme"))),
    _selecting("NotIn holds without the label", _all(_expression("disk", "NotIn", "ssd"))),
    _selecting("Exists", _all(_expression("disk", "Exists"))),
    _selecting("DoesNotExist", _all(_expression("disk", "DoesNotExist"))),
    _selecting("Gt compares numbers alone", _all(_expression("rank", "Gt", "5"))),
    _selecting("Lt compares numbers alone", _all(_expression("rank", "Lt", "7"))),
    _selecting("Gt fails without the label", _all(_expression("height", "Gt", "0"))),
    _selecting("all expressions of a term", _all(_expression("disk", "Exists"), _expression("rank", "Lt", "6"))),
    _selecting(
        "any of the terms", _all(_expression("disk", "In", "ssd")), _all(_expression("rank", "In", "x7", "none"))
    ),
    _selecting("an empty term is met by no node", {}, _all(_expression("disk", "In", "hdd"))),
    _selecting("matchFields In", _by_name("In")),
    _selecting("matchFields NotIn", _by_name("NotIn")),
    _selecting("matchFields and expressions", {**_by_name("In"), **_all(_expression("disk", "In", "hdd"))}),
    _selecting("a name or a label", _by_name("In"), _all(_expression("disk", "In", "hdd"))),
    _selecting("nodeSelector and term", _all(_expression("rank", "Exists")), nodeSelector={"disk": "hdd"}),
)


def _port(number: int, protocol: str = "TCP", ip: str = "") -> Object:
    return {"containerPort": number, "hostPort": number, "protocol": protocol, **({"hostIP": ip} if ip else {})}


def _with_ports(*ports: Json) -> Object:
    return {"containers": [container(ports=ports)]}


def _ports(shows: str, taken: Object, wanted: Object, state: str = "") -> Row:
    return Row(shows, _PLAIN, wanted, (Standing("a", spec=taken, state=state),))


def _before(*ports: Json, restarts: bool) -> Object:
    more: Object = {"restartPolicy": "Always"} if restarts else {}
    return {"initContainers": [container(name="before", ports=ports, **more)]}


_ANY, _ONE, _OTHER = "0.0.0.0", "127.0.0.1", "127.0.0.2"  # noqa: S104 - Kubernetes' own spelling of "every address"
_ON_HOST: Object = {"hostNetwork": True, "containers": [container(ports=[{"containerPort": 80}])]}
NODE_PORTS = (
    _ports("the same port", _with_ports(_port(80)), _with_ports(_port(80))),
    _ports("another port", _with_ports(_port(81)), _with_ports(_port(80))),
    _ports("another protocol", _with_ports(_port(80, "UDP")), _with_ports(_port(80))),
    _ports("every address against one", _with_ports(_port(80, ip=_ANY)), _with_ports(_port(80, ip=_ONE))),
    _ports("one address against every", _with_ports(_port(80, ip=_ONE)), _with_ports(_port(80))),
    _ports("two addresses", _with_ports(_port(80, ip=_ONE)), _with_ports(_port(80, ip=_OTHER))),
    _ports("the same address", _with_ports(_port(80, ip=_ONE)), _with_ports(_port(80, ip=_ONE))),
    _ports("every IPv6 address is one of many", _with_ports(_port(80, ip="::")), _with_ports(_port(80, ip=_ONE))),
    _ports("a sidecar's port is taken", _before(_port(80), restarts=True), _with_ports(_port(80))),
    _ports("a sidecar wants a port", _with_ports(_port(80)), _before(_port(80), restarts=True)),
    _ports("an init container's port is free", _before(_port(80), restarts=False), _with_ports(_port(80))),
    _ports("a finished pod's port is free", _with_ports(_port(80)), _with_ports(_port(80)), "Succeeded"),
    _ports("a terminating pod's port is taken", _with_ports(_port(80)), _with_ports(_port(80)), "Terminating"),
    _ports("a template on the host's network takes its containers' ports", _with_ports(_port(80)), _ON_HOST),
    _ports("a pod on the host's network has taken its containers' ports", _ON_HOST, _with_ports(_port(80))),
)

_GPU = "example.com/gpu"
_SMALL: Mapping[str, Mapping[str, Json]] = {
    "a": {
        "allocatable": {
            "cpu": "2",
            "memory": "2Gi",
            "ephemeral-storage": "2Gi",
            "pods": "3",
            "hugepages-2Mi": "8Mi",
            _GPU: "1",
        }
    }
}


def _room(shows: str, spec: Mapping[str, Json], *standing: Mapping[str, Json], state: str = "") -> Row:
    """On a node with 2 CPUs, 2 GiB, 3 slots and a device."""
    return Row(shows, _SMALL, spec, tuple(Standing("a", spec=one, state=state) for one in standing))


def _init(*containers: tuple[str, bool], main: str = "500m", **more: Json) -> Object:
    """Init containers with their CPUs, and whether they are sidecars."""
    before: list[Json] = [
        container({"cpu": cpu}, name=f"before-{index}", **({"restartPolicy": "Always"} if stays else {}))
        for index, (cpu, stays) in enumerate(containers)
    ]
    return {**asking(cpu=main), "initContainers": before, **more}


def _devices(name: str, much: str) -> Object:
    return {"containers": [container({name: much}, {name: much})]}


def _pod_level(own: Mapping[str, str], **containers: str) -> Object:
    return {**asking(**containers), "resources": {"requests": dict(own)}}


_HUGE: Object = {"containers": [container({"cpu": "1", "hugepages-2Mi": "6Mi"}, {"cpu": "1", "hugepages-2Mi": "6Mi"})]}
NODE_RESOURCES_FIT = (
    _room("all of the CPU", asking(cpu="500m"), asking(cpu="1500m")),
    _room("a millicore too many", asking(cpu="501m"), asking(cpu="1500m")),
    _room("all of the memory", asking(memory="1Gi"), asking(memory="1Gi")),
    _room("too little memory", asking(memory="1025Mi"), asking(memory="1Gi")),
    _room("CPU and memory are short", asking(cpu="3", memory="3Gi")),
    _room("all of the storage", asking(ephemeral_storage="1Gi"), asking(ephemeral_storage="1Gi")),
    _room("too little storage", asking(ephemeral_storage="1025Mi"), asking(ephemeral_storage="1Gi")),
    _room("a free device", _devices(_GPU, "1")),
    _room("a taken device", _devices(_GPU, "1"), _devices(_GPU, "1")),
    _room("a device that the node does not have", _devices("example.com/fpga", "1")),
    _room("huge pages", _HUGE),
    _room("too few huge pages", _HUGE, _HUGE),
    _room("who asks for nothing fits where too much is promised", {}, asking(cpu="9", memory="9Gi")),
    _room("who asks for memory fits where too much CPU is promised", asking(memory="1Gi"), asking(cpu="9")),
    _room("no pod slot", {}, {}, {}, {}),
    _room("finished pods hold nothing", asking(cpu="2"), asking(cpu="2"), state="Succeeded"),
    _room("terminating pods hold on", asking(cpu="2"), asking(cpu="2"), state="Terminating"),
    _room("a large init container", _init(("2001m", False))),
    _room("init containers come one after the other", _init(("2", False), ("2", False))),
    _room("a sidecar adds to the containers", _init(("1501m", True))),
    _room("a sidecar beside the containers fits", _init(("1500m", True))),
    _room("an init container after a sidecar runs beside it", _init(("1", True), ("1001m", False))),
    _room("an init container before a sidecar does not", _init(("2", False), ("1", True))),
    _room("standing sidecars count", asking(cpu="1"), _init(("501m", True))),
    _room("standing init containers count as long as the pod is", asking(cpu="1"), _init(("1001m", False))),
    _room("pod-level requests above the containers'", _pod_level({"cpu": "2001m"}, cpu="1")),
    _room("pod-level requests that fit", _pod_level({"cpu": "2"}, cpu="1")),
    _room("pod-level requests of memory leave the CPU alone", _pod_level({"memory": "1Gi"}, cpu="2001m")),
    _room("standing pod-level requests count", asking(cpu="1"), _pod_level({"cpu": "1001m"}, cpu="1")),
    _room("limits stand in for requests", {"containers": [container({}, {"cpu": "2001m"})]}),
    _room("limits do not raise requests", {"containers": [container({"cpu": "1"}, {"cpu": "9"})]}),
    _room("limits of an init container stand in", {"initContainers": [container({}, {"cpu": "2001m"}, name="before")]}),
    _room(
        "pod-level limits stand in for requests",
        {"containers": [container({})], "resources": {"limits": {"cpu": "2001m"}}},
    ),
    _room(
        "a container's requests come before pod-level limits",
        {"containers": [container({"cpu": "1"})], "resources": {"limits": {"cpu": "2001m"}}},
    ),
    _room("overhead of a RuntimeClass", {**asking(cpu="1"), "runtimeClassName": "heavy"}),
    _room("overhead that fits", {**asking(cpu="900m"), "runtimeClassName": "heavy"}),
    _room("standing overhead counts", asking(cpu="1"), {**asking(cpu="1"), "runtimeClassName": "heavy"}),
)
OVERHEAD = {"cpu": "1100m"}
"""Of the RuntimeClass `heavy`."""
