"""A cluster in motion for the puller: its intents are carried out, emulated kubelets do the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import msgspec
from msgspec.structs import replace

from prewarm.api.image_cache_status import decode_status
from prewarm.api.names import ANNOTATION_PURGE, ANNOTATION_REFRESH
from prewarm.api.node_image import decode_node_images
from prewarm.cluster.decoding.pods import WirePod
from prewarm.cluster.decoding.pods import pod as decode_pod
from prewarm.history import History
from prewarm.model.image_caches import ImageCache, Policy
from prewarm.model.intents import (
    IMAGE_CACHES,
    NODE_IMAGES,
    PODS,
    Apply,
    Create,
    Delete,
    Intent,
    LabelNode,
    OpenGate,
    RecordEvent,
    RemoveAnnotation,
)
from prewarm.model.nodes import Node, NodeImages
from prewarm.model.pods import ContainerStatus, Pod, PodPhase
from prewarm.model.quotas import ResourceQuota
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import Namespace
from prewarm.puller import PullerMemory, PullerSettings, PurgeMemory, RememberedCache, reconcile
from prewarm.puller.pairs import Pairs
from prewarm.puller.standing import Standing
from prewarm.simulation.fleet import Fleet
from prewarm.simulation.manifests import pod_from_manifest
from prewarm.simulation.outputs import (
    DiskPressureChanged,
    NodeImagesChanged,
    Output,
    PodFinallyDeleted,
    PodStatusChanged,
    PullFinished,
)
from prewarm.simulation.registry import Registries, synthetic_image
from prewarm.simulation.specs import NodeProfile
from tests.support.clusters import cluster, node

HELPER = PullerSettings().helper_image
START = 1000.0
MB = 1_000_000


def registries(images: Mapping[str, int]) -> Registries:
    """Registries that hold these images (bytes), and the helper image."""
    found = Registries()
    found.push(HELPER, synthetic_image(HELPER, [MB]))
    for image, size in images.items():
        found.push(image, synthetic_image(image, [size]))
    return found


@dataclass
class World:
    """API server, kubelets and the puller, on one clock.

    Attributes:
        refusal: why the API server takes no pod; "" takes all.
        errors: by namespace, the words of the server's error (500) on every create; "" for no answer at all.
        made_anyhow: whether pods are made in spite of those errors.
        lost: numbers of creates, counted from 0, that get lost on the way without anybody noticing.
        gap: seconds between two looks of the puller at least.
    """

    registries: Registries
    nodes: dict[str, Node] = field(default_factory=dict)
    caches: dict[ObjectKey, ImageCache] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    quotas: dict[str, tuple[ResourceQuota, ...]] = field(default_factory=dict)
    settings: PullerSettings = field(default_factory=PullerSettings)
    history: History = field(default_factory=History)
    memory: PullerMemory = field(default_factory=PullerMemory)
    now: float = START
    pods: dict[ObjectKey, Pod] = field(default_factory=dict)
    records: dict[str, NodeImages] = field(default_factory=dict)
    pulls: list[PullFinished] = field(default_factory=list)
    events: list[RecordEvent] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    written: list[Intent] = field(default_factory=list)
    most_at_once: int = 0
    refusal: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    made_anyhow: bool = False
    lost: frozenset[int] = frozenset()
    gap: float = 0.0
    creates: int = 0
    serial: int = 0
    remembered: tuple[RememberedCache, ...] = ()
    """What the controller stored of caches to be purged."""

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.registries, now=self.now)

    def add_nodes(self, count: int, *, bandwidth: float = 50e6) -> None:
        """Ready nodes n0, n1, ... with emulated kubelets."""
        for index in range(len(self.nodes), len(self.nodes) + count):
            name = f"n{index}"
            self.nodes[name] = node(name)
            self.fleet.add_node(NodeProfile(name, bandwidth=bandwidth))

    def add_cache(self, cache: ImageCache) -> None:
        """Create or change an ImageCache."""
        self.caches[cache.key] = replace(cache, created_at=cache.created_at or self.now)

    def add_pod(self, manifest: Mapping[str, object]) -> Pod:
        """Create a bound pod, ours or another's."""
        self.serial += 1
        metadata = cast("Mapping[str, object]", manifest["metadata"])
        stamp = msgspec.json.decode(msgspec.json.encode(manifest))
        stamp["metadata"] = {**metadata, "uid": f"pod-{self.serial}"}
        pod = decode_pod(msgspec.convert(stamp, WirePod), _report)
        pod = replace(pod, created_at=float(int(self.now)), scheduled_at=float(int(self.now)))
        self.pods[pod.key] = pod
        self.fleet.pod_bound(pod_from_manifest(stamp))
        return pod

    def delete_pod(self, key: ObjectKey) -> None:
        """Remove a pod's object at once (grace period 0)."""
        pod = self.pods.pop(key, None)
        if pod is not None:
            self.fleet.pod_gone(pod.uid)

    def snapshot(self) -> ClusterSnapshot:
        """What the puller sees."""
        seen = cluster(
            self.nodes.values(),
            self.pods.values(),
            now=self.now,
            image_caches=self.caches.values(),
            node_images=self.records.values(),
            policies=self.policies.values(),
            namespaces=self.namespaces.values(),
        )
        return replace(seen, quotas=self.quotas)

    def restart_controller(self) -> None:
        """Forget everything that is only in the controller's memory."""
        self.memory = PullerMemory(purge=PurgeMemory(self.remembered))

    def step(self, until: float) -> None:
        """One reconcile, and time until the next thing happens."""
        decision = reconcile(self.snapshot(), self.settings, self.history, self.memory)
        if decision.remembered is not None:
            self.remembered = decision.remembered
        for intent in decision.intents:
            self._execute(intent)
        self.most_at_once = max(self.most_at_once, decision.in_flight)
        wakeups = [time for time in (self.fleet.next_wakeup(), decision.wake_at) if time is not None]
        soon = self.now + 0.01 if decision.intents else until
        after = min(soon, *(max(time, self.now + 0.001) for time in wakeups)) if wakeups else soon
        self.now = min(until, max(after, self.now + self.gap))
        for output in self.fleet.advance(self.now):
            self._observe(output)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.step(until)

    def settle(self, seconds: float = 3600.0) -> None:
        """Let time pass until every cache has its verdict and no pod of ours is left; at most so long."""
        until = self.now + seconds
        while self.now < until:
            self.step(until)
            told = all(
                cache.status.observed_generation == cache.generation and cache.status.completed_at is not None
                for cache in self.caches.values()
            )
            if told and not self.snapshot().puller_pods:
                return

    def condition(self, name: str, kind: str = "Ready") -> tuple[bool, str]:
        """Status and reason of a cache's condition."""
        for cache in self.caches.values():
            if cache.name == name:
                found = {condition.type: condition for condition in cache.status.conditions}
                return found[kind].status, found[kind].reason
        raise KeyError(name)

    def pulls_of(self, image: str) -> dict[str, int]:
        """Successful pulls of an image by node."""
        counts: dict[str, int] = {}
        for pull in self.pulls:
            if pull.image == image and not pull.error:
                counts[pull.node] = counts.get(pull.node, 0) + 1
        return counts

    def _execute(self, intent: Intent) -> None:
        assert not isinstance(intent, OpenGate | LabelNode), "the puller opens no gate and labels no node"
        self.written.append(intent)
        match intent:
            case Create(resource=resource, namespace=namespace, name=name, manifest=manifest):
                assert resource == PODS
                self.creates += 1
                if self.creates - 1 not in self.lost:
                    self._create(namespace, name, manifest)
            case Delete(resource=resource, namespace=namespace, name=name, uid=uid):
                if resource == NODE_IMAGES:
                    self.records.pop(name, None)
                elif resource == IMAGE_CACHES:
                    if self.caches[namespace, name].uid == uid:
                        del self.caches[namespace, name]
                elif (namespace, name) in self.pods and self.pods[namespace, name].uid == uid:
                    self.delete_pod((namespace, name))
            case Apply(resource=resource, namespace=namespace, name=name, manifest=manifest, subresource=subresource):
                if resource == NODE_IMAGES:
                    self.records[name] = decode_node_images(manifest)
                else:
                    assert (resource, subresource) == (IMAGE_CACHES, "status")
                    cache = self.caches[namespace, name]
                    self.caches[namespace, name] = replace(cache, status=decode_status(manifest["status"]))
            case RecordEvent():
                self.events.append(intent)
            case RemoveAnnotation(namespace=namespace, name=name, annotation=annotation):
                field = {ANNOTATION_REFRESH: "refresh_request", ANNOTATION_PURGE: "purge_request"}[annotation]
                self.caches[namespace, name] = replace(self.caches[namespace, name], **{field: None})

    def _create(self, namespace: str, name: str, manifest: Mapping[str, object]) -> None:
        there = (namespace, name) in self.pods
        fails = namespace in self.errors and not there
        if fails:
            self.memory.lost(namespace, name, self.now, self.errors[namespace])
        if self.refusal:
            self.memory.refused(namespace, name, self.refusal, self.now)
        elif not there and (not fails or self.made_anyhow):
            self.created.append(name)
            self.add_pod(manifest)

    def _observe(self, output: Output) -> None:
        match output:
            case PodStatusChanged(namespace=namespace, name=name, uid=uid, status=status):
                pod = self.pods.get((namespace, name))
                if pod is not None and pod.uid == uid:
                    init = (replace(_whole(container), init=True) for container in status.init_containers)
                    self.pods[namespace, name] = replace(
                        pod,
                        phase=PodPhase(status.phase),
                        reason=status.reason,
                        message=status.message,
                        containers=(*init, *map(_whole, status.containers)),
                    )
            case PodFinallyDeleted(namespace=namespace, name=name):
                self.delete_pod((namespace, name))
            case NodeImagesChanged(node=name, images=images):
                self.nodes[name] = replace(self.nodes[name], images=images)
            case DiskPressureChanged(node=name, pressure=pressure):
                self.nodes[name] = replace(
                    self.nodes[name], disk_pressure=pressure, disk_pressure_changed_at=float(int(self.now))
                )
            case PullFinished():
                if output.image != HELPER:
                    self.pulls.append(output)
            case _:
                pass


def assert_as_if_judged_anew(standing: Standing, judge: Pairs) -> None:
    """What was kept of a cache since the last snapshot is what reading all of this one gives."""
    fresh = Standing(standing.cache)
    fresh.course = standing.course
    fresh.judge_all(standing.cache, judge)
    assert list(standing.pairs()) == list(fresh.pairs())
    assert list(standing.open_pairs()) == list(fresh.open_pairs())
    assert +standing.counts == +fresh.counts
    assert +standing.reasons == +fresh.reasons


def _whole(status: ContainerStatus) -> ContainerStatus:
    """Times as the API keeps them: whole seconds."""
    started = None if status.started_at is None else float(int(status.started_at))
    finished = None if status.finished_at is None else float(int(status.finished_at))
    return replace(status, started_at=started, finished_at=finished)


def _report(problem: str) -> None:
    raise AssertionError(problem)
