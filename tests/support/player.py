"""Plays the Deployment controller, the scheduler and the kubelets through a rollout, one event at a time.

The controller's steps are written from rolling.go and recreate.go, apart from `prewarm.demand`, which is tested against
them. The scheduler is `prewarm.placement` with one replay and a seed of its own.
"""

import heapq
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from prewarm.api.names import ANNOTATION_IMAGES, LABEL_PULLER
from prewarm.cluster.stops import KEPT
from prewarm.demand.departures import departure_order
from prewarm.model.nodes import Evidence, Node, NodeImages, NodeImageStatus, PresentImage
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import ContainerPhase, ContainerStatus, OwnerReference, Pod, PodPhase, PodTemplate
from prewarm.model.quantities import int_or_percent
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import UpdateStrategy, Workload
from prewarm.placement import place
from tests.support.clusters import cluster, hash_of, node, replica_set, shape

_Action = Callable[[], None]


@dataclass
class Player:
    """A cluster in motion. Times are seconds; `pull_seconds` is what every image takes on every node."""

    nodes: dict[str, Node]
    workload: Workload
    pull_seconds: float = 20.0
    start_seconds: float = 4.0
    stop_seconds: float = 1.0
    grace_seconds: float = 30.0
    image_bytes: int = 10**9
    listed_after: float | None = None
    """Seconds from an image's arrival until its node's status lists it; None: it never does."""
    seed: int = 1
    now: float = 1000.0
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    sets: dict[str, Workload] = field(default_factory=dict)
    present: dict[str, dict[str, PresentImage]] = field(default_factory=dict)
    """By node and image."""
    pulling: dict[str, dict[str, tuple[float, bool]]] = field(default_factory=dict)
    """By node and image: when the pull ends, and whether it is ours."""
    starts: list[tuple[str, str, float]] = field(default_factory=list)
    """Pods of the Deployment in order of binding: node, outcome, time of creation."""
    stops: list[float] = field(default_factory=list)
    """Seconds that its pods took to stop, as the store would know them."""
    _agenda: list[tuple[float, int, _Action]] = field(default_factory=list)
    _serial: int = 0
    _others: list[Pod] = field(default_factory=list)

    def at(self, seconds: float, action: _Action) -> None:
        """Do something after some seconds."""
        self._serial += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._serial, action))

    def step(self) -> bool:
        """Let the next event happen, and the controller react; False if nothing is left to happen."""
        if not self._agenda:
            return False
        self.now, _, action = heapq.heappop(self._agenda)
        action()
        self.reconcile()
        return True

    def settle(self) -> None:
        """Play until nothing is left to happen."""
        while self.step():
            pass

    def snapshot(self) -> ClusterSnapshot:
        """The cluster as it is now."""
        records = [
            NodeImages(name, self.nodes[name].uid, self.nodes[name].boot_id, tuple(images.values()))
            for name, images in self.present.items()
        ]
        found = cluster(
            self.nodes.values(),
            [*self._others, *self.pods.values(), *self._pullers()],
            [self.workload],
            self.sets.values(),
            now=self.now,
            node_images=records,
        )
        return replace(found, stops={self.workload.key: tuple(self.stops[-KEPT:])}) if self.stops else found

    def _pullers(self) -> list[Pod]:
        """A puller pod for each pull of ours under way."""
        return [
            Pod(
                "shop",
                f"pull-{name}",
                f"uid-pull-{name}",
                name,
                labels={LABEL_PULLER: "true"},
                annotations={ANNOTATION_IMAGES: json.dumps([image])},
                created_at=ends - self.pull_seconds,
            )
            for name, images in self.pulling.items()
            for image, (ends, ours) in images.items()
            if ours
        ]

    def change(self, template: PodTemplate) -> None:
        """Give the Deployment another template; the controller has not seen it yet."""
        self.workload = replace(self.workload, template=template, template_hash=hash_of(template))

    def own(self) -> list[Pod]:
        """Pods of the Deployment."""
        return list(self.pods.values())

    def load(self, others: Iterable[Pod]) -> None:
        """Pods of others, which stay where they are."""
        self._others = list(others)

    def prewarm(self, name: str, images: Iterable[str]) -> None:
        """Pull images on a node for us."""
        for image in images:
            if image not in self.present.get(name, {}) and image not in self.pulling.get(name, {}):
                self._pull(name, image, ours=True)

    def _pull(self, name: str, image: str, *, ours: bool) -> float:
        ends = self.now + self.pull_seconds
        self.pulling.setdefault(name, {})[image] = (ends, ours)
        self.at(self.pull_seconds, lambda: self._pulled(name, image, ours=ours))
        return ends

    def _pulled(self, name: str, image: str, *, ours: bool) -> None:
        del self.pulling[name][image]
        evidence = Evidence.OUR_PULL if ours else Evidence.RUNNING_POD
        self.present.setdefault(name, {})[image] = PresentImage(
            image, evidence, self.now, size_bytes=self.image_bytes, pull_seconds=self.pull_seconds if ours else None
        )
        if self.listed_after is not None:
            self.at(self.listed_after, lambda: self._listed(name, image))

    def _listed(self, name: str, image: str) -> None:
        found = self.nodes[name]
        self.nodes[name] = replace(found, images=(*found.images, NodeImageStatus((image,), self.image_bytes)))

    def reconcile(self) -> None:
        """The Deployment controller and the ReplicaSets, until they have nothing to do."""
        while self._reconcile_once():
            pass
        for found in list(self.sets.values()):
            self._scale(found)

    def _reconcile_once(self) -> bool:
        deployed = self.workload
        current = self.sets.get(deployed.template_hash)
        old = sorted((s for h, s in self.sets.items() if h != deployed.template_hash), key=lambda s: s.created_at)
        if deployed.paused:
            return False
        if deployed.strategy is UpdateStrategy.RECREATE:
            return self._recreate(current, old)
        if current is None:
            current = self._create_set(0)
        surge = int_or_percent(deployed.max_surge, deployed.replicas, round_up=True)
        unavailable = int_or_percent(deployed.max_unavailable, deployed.replicas, round_up=False)
        if surge == unavailable == 0:
            unavailable = 1
        total = sum(s.replicas for s in self.sets.values())
        up = min(deployed.replicas + surge - total, deployed.replicas - current.replicas)
        if up > 0:
            self._resize(current, current.replicas + up)
            return True
        minimum = deployed.replicas - unavailable
        allowed = total - minimum - (current.replicas - self._available(current))
        changed = False
        for found in old:
            unhealthy = min(allowed, found.replicas - self._available(found))
            if unhealthy > 0:
                self._resize(found, found.replicas - unhealthy)
                allowed -= unhealthy
                changed = True
        if allowed > 0 or changed:
            spare = sum(self._available(self.sets[h]) for h in self.sets) - minimum
            for found in (self.sets[s.template_hash] for s in old):
                down = min(found.replicas, spare)
                if down > 0:
                    self._resize(found, found.replicas - down)
                    spare -= down
                    changed = True
        return changed

    def _recreate(self, current: Workload | None, old: list[Workload]) -> bool:
        for found in old:
            if found.replicas:
                self._resize(found, 0)
                return True
        if any(pod.labels["pod-template-hash"] != self.workload.template_hash for pod in self.pods.values()):
            return False
        current = current or self._create_set(0)
        if current.replicas != self.workload.replicas:
            self._resize(current, self.workload.replicas)
            return True
        return False

    def _create_set(self, replicas: int) -> Workload:
        made = replica_set(self.workload, self.workload.template, replicas, created_at=self.now)
        self.sets[made.template_hash] = made
        return made

    def _resize(self, found: Workload, replicas: int) -> None:
        self.sets[found.template_hash] = replace(found, replicas=replicas)
        self._scale(self.sets[found.template_hash])

    def _pods_of(self, found: Workload) -> list[Pod]:
        return [p for p in self.pods.values() if p.owner and p.owner.uid == found.uid and p.deleted_at is None]

    def _available(self, found: Workload) -> int:
        return min(found.replicas, sum(p.ready_at is not None for p in self._pods_of(found)))

    def _scale(self, found: Workload) -> None:
        pods = self._pods_of(found)
        extra = len(pods) - found.replicas
        if extra > 0:
            others = [p for p in self.pods.values() if p not in pods and p.deleted_at is None]
            for pod in departure_order(pods, others, extra, self.now)[:extra]:
                self._delete(pod)
        for _ in range(-extra):
            self._create(found)

    def _delete(self, pod: Pod) -> None:
        self.pods[pod.key] = replace(pod, deleted_at=self.now + self.grace_seconds, stopping_since=self.now)
        self.at(self.stop_seconds, lambda: self._end(pod))

    def _end(self, pod: Pod) -> None:
        if self.pods.pop(pod.key, None) is not None:
            self.stops.append(self.stop_seconds)

    def _create(self, found: Workload) -> None:
        self._serial += 1
        pod = Pod(
            found.key.namespace,
            f"{found.key.name}-{self._serial:05d}",
            f"uid-{(self._serial * 7919) % 100003:06d}",
            labels=found.template.labels,
            owner=OwnerReference("ReplicaSet", found.key.name, found.uid),
            shape=found.template.shape,
            created_at=self.now,
        )
        self.pods[pod.key] = pod
        self.at(0.05, lambda: self._bind(pod))

    def _bind(self, pod: Pod) -> None:
        if pod.key not in self.pods or self.pods[pod.key].deleted_at is not None:
            return
        name = self._schedule(pod)
        if not name:
            self.pods[pod.key] = replace(self.pods[pod.key], unschedulable=True)
            self.at(1.0, lambda: self._bind(pod))
            return
        self.pods[pod.key] = replace(self.pods[pod.key], node_name=name, scheduled_at=self.now, unschedulable=False)
        ends, outcome = self.now, "present"
        for image in pod.shape.images:
            known = self.present.get(name, {}).get(image)
            if known is not None:
                if known.evidence is Evidence.OUR_PULL and known.used_at is None:
                    outcome = "prewarmed" if outcome == "present" else outcome
                    self.present[name][image] = replace(known, used_at=self.now)
                continue
            until, ours = self.pulling.get(name, {}).get(image, (0.0, False))
            outcome = "late" if ours else "miss"
            ends = max(ends, until or self._pull(name, image, ours=False))
        self.starts.append((name, outcome, pod.created_at))
        self.at(ends - self.now, lambda: self._started(pod))

    def _started(self, pod: Pod) -> None:
        if pod.key in self.pods:
            running = (ContainerStatus("c0", ContainerPhase.RUNNING, started_at=self.now),)
            self.pods[pod.key] = replace(self.pods[pod.key], containers=running, phase=PodPhase.RUNNING)
            jitter = Random(f"{self.seed}/{pod.uid}").random()  # noqa: S311 - not cryptography
            self.at(self.start_seconds + jitter, lambda: self._ready(pod))

    def _ready(self, pod: Pod) -> None:
        if pod.key in self.pods and self.pods[pod.key].deleted_at is None:
            self.pods[pod.key] = replace(self.pods[pod.key], ready_at=self.now)

    def _schedule(self, pod: Pod) -> str:
        """One decision of the scheduler, with the pod alone in its queue."""
        assert pod.owner is not None
        found = self.sets[pod.labels["pod-template-hash"]]
        demand = Demand(
            self.workload.key,
            self.workload.uid,
            Trigger.ROLLOUT,
            found.template_hash,
            pod.shape.images,
            PodTemplate(self.workload.template.labels, pod.shape),
            (Batch(self.now, 1),),
            revision_labels=(("pod-template-hash", found.template_hash),),
        )
        alone = replace(self.snapshot(), waiting_pods={})
        self._serial += 1
        nodes = place(demand, alone, replays=1, seed=self.seed * 100_000 + self._serial).nodes
        return nodes[0].name if nodes else ""


def varied_nodes(count: int, seed: int) -> dict[str, Node]:
    """Nodes of three sizes in three zones."""
    random = Random(seed)  # noqa: S311 - not cryptography
    sizes = ((8, 32), (16, 64), (32, 128))
    made = [
        node(f"node-{index:03d}", cpu=cpu, memory=memory, zone="abc"[index % 3])
        for index in range(count)
        for cpu, memory in [random.choice(sizes)]
    ]
    return {found.name: found for found in made}


def background(nodes: dict[str, Node], pods: int, seed: int) -> list[Pod]:
    """Pods of others of varied sizes, where there is room, more on some nodes than on others."""
    random = Random(seed)  # noqa: S311 - not cryptography
    shapes = [
        shape("registry.test/background:v1", cpu=cpu, memory=gib) for cpu in (100, 250, 500, 750) for gib in (1, 2)
    ]
    names = sorted(nodes)
    return [
        Pod(
            "background",
            f"b{index}",
            f"uid-b{index}",
            node_name=random.choice(names),
            labels={"app": "background"},
            shape=random.choice(shapes),
            phase=PodPhase.RUNNING,
            ready_at=1.0,
        )
        for index in range(pods)
    ]
