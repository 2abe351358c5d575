"""Clusters and workloads from seeds: what one trial starts from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from prewarm.model.intents import Json

Object = dict[str, Json]
NAMESPACE = "default"
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Case:
    """A start state and the pods that come.

    Attributes:
        name: for reports.
        nodes: Node manifests.
        background: Pod manifests, bound by nodeName.
        old: replicas of the first revision, placed before the trial.
        new: pods that come in the trial.
        scale_out: whether they come to the first revision; else they are the second one's (a full surge).
        spec: parts of the pod spec beside the container.
        requests: of the container.
        service: whether a Service selects the workload.
        feature: what is special about the workload.
        volumes: PersistentVolume manifests; each is kept for the claim of its name.
        rivals: pods of another workload that is scaled at the same moment.
        classes: PriorityClass manifests.
    """

    name: str
    nodes: tuple[Object, ...]
    background: tuple[Object, ...]
    old: int
    new: int
    scale_out: bool
    spec: Mapping[str, Json] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)
    service: bool = True
    feature: str = "plain"
    volumes: tuple[Object, ...] = ()
    rivals: int = 0
    classes: tuple[Object, ...] = ()


def node(name: str, random: Random, *, zones: int, equal: bool = False) -> Object:
    """A node of one of three sizes in one of the zones; some are tainted, labelled or have GPUs."""
    cpu = 8 if equal else random.choice((4, 8, 16))
    labels: dict[str, Json] = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": f"zone-{random.randrange(zones)}",
    }
    spec: Object = {}
    allocatable: dict[str, Json] = {"cpu": str(cpu), "memory": f"{cpu * 4}Gi", "pods": "110"}
    if not equal:
        labels["disk"] = random.choice(("ssd", "hdd"))
        if random.random() < 0.15:
            spec["taints"] = [{"key": "team", "value": "ml", "effect": "NoSchedule"}]
        elif random.random() < 0.15:
            spec["taints"] = [{"key": "busy", "effect": "PreferNoSchedule"}]
        if random.random() < 0.3:
            allocatable["example.com/gpu"] = "4"
        if random.random() < 0.05:
            spec["unschedulable"] = True
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "capacity": allocatable},
    }


def background(names: list[str], random: Random, per_node: float) -> Iterator[Object]:
    """Pods of other workloads, spread unevenly; each fits the smallest node several times."""
    for index in range(int(len(names) * per_node)):
        requests: dict[str, Json] = {
            "cpu": f"{random.choice((50, 100, 250, 500))}m",
            "memory": f"{random.choice((64, 256, 512, 1024))}Mi",
        }
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"background-{index}", "labels": {"app": f"other-{index % 7}"}},
            "spec": {
                "nodeName": random.choice(names),
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "example.com/other:1", "resources": {"requests": requests}}],
            },
        }


_LEAST, _MOST = 1, 40
"""Priorities of the pods that fill a cluster; those that come have a higher one."""


def _filling(made: Iterable[Object], random: Random) -> Iterator[Object]:
    """Pods of many priorities that leave no room anywhere: each of four takes a quarter of a node."""
    for node_made in made:
        name, cores = _name(node_made), _cores(node_made)
        for index in range(4):
            requests: dict[str, Json] = {"cpu": f"{cores * 250 - 20}m", "memory": "64Mi"}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"filling-{name}-{index}", "labels": {"app": "filling"}},
                "spec": {
                    "nodeName": name,
                    "priorityClassName": f"priority-{random.randint(_LEAST, _MOST)}",
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {"name": "main", "image": "example.com/other:1", "resources": {"requests": requests}}
                    ],
                },
            }


def _name(manifest: Object) -> str:
    metadata = manifest["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["name"])


def _cores(manifest: Object) -> int:
    status = manifest["status"]
    assert isinstance(status, dict)
    return int(status["allocatable"]["cpu"])


def _classes() -> tuple[Object, ...]:
    return tuple(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": f"priority-{value}"},
            "value": value,
        }
        for value in range(_LEAST, _MOST + 2)
    )


def _spread(key: str, skew: int, when: str) -> Object:
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": skew,
                "topologyKey": key,
                "whenUnsatisfiable": when,
                "labelSelector": {"matchLabels": {"app": "web"}},
            }
        ]
    }


def _affinity(kind: str, *, required: bool, key: str) -> Object:
    term: Object = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}
    rule: Object = (
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        if required
        else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm": term}]}
    )
    return {"affinity": {kind: rule}}


def _prefers_ssd() -> Object:
    term: Object = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    rule: Object = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 30, "preference": term}]}
    return {"affinity": {"nodeAffinity": rule}}


def _claim() -> Object:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}


def _volume(*, zone: str) -> Object:
    """A volume that any number of pods in one zone can use at once."""
    term: Object = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "data"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": "/data"},
            "storageClassName": "none",
            "claimRef": {"namespace": NAMESPACE, "name": "data"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }


FEATURES: Mapping[str, Callable[[], Object]] = {
    "plain": dict,
    "tolerates": lambda: {"tolerations": [{"key": "team", "operator": "Exists"}]},
    "node selector": lambda: {"nodeSelector": {"disk": "ssd"}},
    "preferred nodes": _prefers_ssd,
    "hard zone spread": lambda: _spread("topology.kubernetes.io/zone", 1, "DoNotSchedule"),
    "soft host spread": lambda: _spread("kubernetes.io/hostname", 1, "ScheduleAnyway"),
    "soft zone spread": lambda: _spread("topology.kubernetes.io/zone", 1, "ScheduleAnyway"),
    "anti-affinity": lambda: _affinity("podAntiAffinity", required=False, key="kubernetes.io/hostname"),
    "hard anti-affinity": lambda: _affinity("podAntiAffinity", required=True, key="kubernetes.io/hostname"),
    "bound volume": _claim,
    "competition": dict,
    "gpu": dict,
    "preemption": lambda: {"priorityClassName": f"priority-{_MOST + 1}"},
    "affinity to zone": lambda: _affinity("podAffinity", required=False, key="topology.kubernetes.io/zone"),
}


_FEW = frozenset({"gpu", "hard anti-affinity"})
"""Of these only a part of the nodes can take a pod, or one each: more would not fit on some clusters."""
_PREEMPTION = "preemption"


def cases_from_seed(seed: int, count: int, sizes: Sequence[int]) -> list[Case]:
    """Cases of all features in turn, at sizes and with numbers of pods that the seed decides.

    The last ones of many are those where pods fit by preemption alone.
    """
    random = Random(f"cases {seed}")  # noqa: S311 - repeatable cases are wanted
    features = [*(name for name in FEATURES if name != _PREEMPTION), "equal empty nodes"]
    random.shuffle(features)
    found = []
    for index in range(count):
        last = index >= count - count // (len(features) + 1)
        feature = _PREEMPTION if last else features[index % len(features)]
        equal = feature == "equal empty nodes"
        nodes, new = random.choice(sizes), random.choice((5, 10, 20))
        if feature in _FEW:
            new = min(new, nodes // 6)
        found.append(
            case(
                "plain" if equal else feature,
                nodes,
                1000 * seed + index,
                new=new,
                scale_out=random.random() < 0.5,
                equal=equal,
            )
        )
    return found


def case(feature: str, nodes: int, seed: int, *, new: int = 20, scale_out: bool = False, equal: bool = False) -> Case:
    """A cluster of varied (or equal and empty) nodes, and a workload with one feature."""
    random = Random(f"{feature} {nodes} {seed}")  # noqa: S311 - repeatable clusters are wanted
    names = [f"node-{index:04d}" for index in range(nodes)]
    random.shuffle(names)
    made = tuple(node(name, random, zones=3, equal=equal) for name in names)
    requests = {"cpu": "250m", "memory": "512Mi"}
    if feature == "gpu":
        requests["example.com/gpu"] = "1"
    full = feature == _PREEMPTION
    # Old pods would have made room for themselves, and no run could begin where the one before it began.
    scale_out = scale_out and not full
    load = _filling(made, random) if full else background(names, random, 3.0)
    how = ("scale-out" if scale_out else "rollout") + (", equal nodes" if equal else "")
    return Case(
        name=f"{feature}, {nodes} nodes, {how}, seed {seed}",
        feature="equal empty nodes" if equal else feature,
        volumes=(_volume(zone="zone-0"),) if feature == "bound volume" else (),
        rivals=new if feature == "competition" else 0,
        nodes=made,
        background=() if equal else tuple(load),
        classes=_classes() if full else (),
        old=0 if full else new,
        new=new if not scale_out else max(1, new // 2),
        scale_out=scale_out,
        spec=FEATURES.get(feature, dict)(),
        requests=requests,
    )
