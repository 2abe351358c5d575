"""What the reflectors have seen, kept so that a snapshot costs nearly nothing and no grouping is ever rebuilt."""

from typing import TypeVar

from prewarm.api.names import LABEL_PULLER, TRUE
from prewarm.cluster.changes import ChangeCollector, Changes
from prewarm.cluster.sinks import EventBuffer, TableSink
from prewarm.cluster.stops import Stops
from prewarm.cluster.tables import Grouping, Table
from prewarm.model.image_caches import ImageCache, Policy
from prewarm.model.nodes import Node, NodeImages
from prewarm.model.pods import OwnerReference, Pod
from prewarm.model.progressive import PRIMARY_SUFFIX, ImagePolicy, Revision, workload_kind
from prewarm.model.quotas import LimitRange, ResourceQuota
from prewarm.model.scheduling import DisruptionBudget, PriorityClass
from prewarm.model.snapshot import ClusterSnapshot, NodeUsage, ObjectKey
from prewarm.model.volumes import AttachLimits, Volume, VolumeClaim
from prewarm.model.workloads import Autoscaler, KubeletEvent, Namespace, Service, Workload, WorkloadKey

T = TypeVar("T")
_PLANNED_KINDS = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "CloneSet", "AdvancedStatefulSet", "AdvancedDaemonSet", "Rollout"}
)


class PodTables:
    """All pods, and the groupings of them that planning needs, always consistent with each other."""

    def __init__(self) -> None:
        self.all: Table[ObjectKey, Pod] = Table()
        self.by_node: Grouping[str, ObjectKey, Pod] = Grouping()
        self.by_namespace: Grouping[str, ObjectKey, Pod] = Grouping()
        self.by_owner: Grouping[str, ObjectKey, Pod] = Grouping()
        self.waiting: Table[ObjectKey, Pod] = Table()
        self.with_affinity: Table[ObjectKey, Pod] = Table()
        self.pullers: Table[ObjectKey, Pod] = Table()
        self.usage: Table[str, NodeUsage] = Table()

    def update(self, key: ObjectKey, old: Pod | None, new: Pod | None) -> None:
        """Move a pod from where it was to where it is."""
        if old is not None:
            self._take_out(key, old, new)
        self.waiting.set(key, new if new is not None and waits(new) else None)
        if new is None:
            return
        self.by_namespace.put(new.namespace, key, new)
        if new.owner is not None:
            self.by_owner.put(new.owner.uid, key, new)
        if new.labels.get(LABEL_PULLER) == TRUE:
            self.pullers.put(key, new)
        if occupies_node(new):
            self.by_node.put(new.node_name, key, new)
            if new.shape.affinity.concerns_pods:
                self.with_affinity.put(key, new)
        self._count(old, new)

    def _take_out(self, key: ObjectKey, old: Pod, new: Pod | None) -> None:
        """Remove the pod from groups that it has left."""
        stays = new is not None and occupies_node(new)
        if occupies_node(old):
            if not stays or new is None or new.node_name != old.node_name:
                self.by_node.pop(old.node_name, key)
            if not stays or new is None or not new.shape.affinity.concerns_pods:
                self.with_affinity.pop(key)
        if new is None:
            self.by_namespace.pop(old.namespace, key)
            self._count(old, None)
        if old.owner is not None and (new is None or new.owner is None or new.owner.uid != old.owner.uid):
            self.by_owner.pop(old.owner.uid, key)
        if new is None or new.labels.get(LABEL_PULLER) != TRUE:
            self.pullers.pop(key)

    def _count(self, old: Pod | None, new: Pod | None) -> None:
        """Most changes of a pod are of its status: its node's sums stay."""
        before = old if old is not None and occupies_node(old) else None
        after = new if new is not None and occupies_node(new) else None
        if before and after and before.node_name == after.node_name and before.shape == after.shape:
            return
        if before is not None:
            used = (self.usage.get(before.node_name) or NodeUsage()).plus(before, -1)
            if used.pods:
                self.usage.put(before.node_name, used)
            else:
                self.usage.pop(before.node_name)
        if after is not None:
            self.usage.put(after.node_name, (self.usage.get(after.node_name) or NodeUsage()).plus(after))


def occupies_node(pod: Pod) -> bool:
    """Whether it is bound and not finished: then it counts on its node."""
    return bool(pod.node_name) and not pod.finished


def waits(pod: Pod) -> bool:
    """Whether it is still to be scheduled."""
    return not pod.node_name and not pod.finished and pod.deleted_at is None


class Store:
    """Takes objects through its sinks, gives snapshots. Not for use from several threads.

    Attributes:
        pods, nodes, ...: sinks, one a kind, for reflectors.
        events: kubelet Events waiting for accounting.
    """

    def __init__(self) -> None:
        self._changes = changes = ChangeCollector()
        self._pods = PodTables()
        self._stops = Stops()
        self._nodes: Table[str, Node] = Table()
        self._workloads: Table[WorkloadKey, Workload] = Table()
        self._deployments_by_namespace: Grouping[str, WorkloadKey, Workload] = Grouping()
        self._replica_sets: Table[ObjectKey, Workload] = Table()
        self._jobs: Table[ObjectKey, Workload] = Table()
        self._replica_sets_by_owner: Grouping[str, ObjectKey, Workload] = Grouping()
        self._revisions_by_owner: Grouping[str, ObjectKey, Revision] = Grouping()
        self._autoscalers: Table[WorkloadKey, Autoscaler] = Table()
        self._autoscalers_by_target: Grouping[WorkloadKey, ObjectKey, Autoscaler] = Grouping()
        self._services: Table[str, tuple[Service, ...]] = Table()
        self._services_by_namespace: Grouping[str, ObjectKey, Service] = Grouping()
        self._quotas: Table[str, tuple[ResourceQuota, ...]] = Table()
        self._quotas_by_namespace: Grouping[str, ObjectKey, ResourceQuota] = Grouping()
        self._limit_ranges: Table[str, tuple[LimitRange, ...]] = Table()
        self._limit_ranges_by_namespace: Grouping[str, ObjectKey, LimitRange] = Grouping()
        self._volume_claims: Table[ObjectKey, VolumeClaim] = Table()
        self._volumes: Table[str, Volume] = Table()
        self._attach_limits: Table[str, AttachLimits] = Table()
        self._priority_classes: Table[str, PriorityClass] = Table()
        self._disruption_budgets: Table[ObjectKey, DisruptionBudget] = Table()
        self._namespaces: Table[str, Namespace] = Table()
        self._image_caches: Table[ObjectKey, ImageCache] = Table()
        self._node_images: Table[str, NodeImages] = Table()
        self._policies: Table[str, Policy] = Table()
        self._image_policies: Table[ObjectKey, ImagePolicy] = Table()

        self.pods = TableSink(self._pod, changes, self._pods.all)
        self.nodes = TableSink(self._node, changes)
        self.deployments = TableSink(self._deployment, changes)
        self.stateful_sets = TableSink(self._workload, changes)
        self.daemon_sets = TableSink(self._workload, changes)
        self.cron_jobs = TableSink(self._workload, changes)
        self.jobs = TableSink(self._job, changes, self._jobs)
        self.clone_sets = TableSink(self._workload, changes)
        self.advanced_stateful_sets = TableSink(self._workload, changes)
        self.advanced_daemon_sets = TableSink(self._workload, changes)
        self.rollouts = TableSink(self._workload, changes)
        self.canaries = TableSink(self._canary, changes)
        self.revisions = TableSink(self._revision, changes)
        self.image_policies = TableSink(self._image_policy, changes, self._image_policies)
        self.replica_sets = TableSink(self._replica_set, changes, self._replica_sets)
        self.autoscalers = TableSink(self._autoscaler, changes)
        self.services = TableSink(self._service, changes)
        self.quotas = TableSink(self._quota, changes)
        self.limit_ranges = TableSink(self._limit_range, changes)
        self.volume_claims = TableSink(self._volume_claim, changes, self._volume_claims)
        self.volumes = TableSink(self._volume, changes)
        self.attach_limits = TableSink(self._attach_limit, changes)
        self.priority_classes = TableSink(self._priority_class, changes)
        self.disruption_budgets = TableSink(self._nothing_to_plan, changes, self._disruption_budgets)
        self.namespaces = TableSink(self._namespace, changes)
        self.image_caches = TableSink(self._image_cache, changes, self._image_caches)
        self.node_images = TableSink(self._node_image, changes)
        self.policies = TableSink(self._policy, changes)
        self.events = EventBuffer(changes)

    def snapshot(self, now: float) -> ClusterSnapshot:
        """Everything as of now; costs microseconds, since what follows copies only what it writes."""
        pods = self._pods
        return ClusterSnapshot(
            taken_at=now,
            nodes=self._nodes.view(),
            pods=pods.all.view(),
            pods_by_node=pods.by_node.view(),
            pods_by_namespace=pods.by_namespace.view(),
            pods_by_owner=pods.by_owner.view(),
            waiting_pods=pods.waiting.view(),
            pods_with_affinity=pods.with_affinity.view(),
            puller_pods=pods.pullers.view(),
            usage=pods.usage.view(),
            stops=self._stops.view(),
            workloads=self._workloads.view(),
            deployments_by_namespace=self._deployments_by_namespace.view(),
            replica_sets=self._replica_sets.view(),
            replica_sets_by_owner=self._replica_sets_by_owner.view(),
            revisions_by_owner=self._revisions_by_owner.view(),
            autoscalers=self._autoscalers.view(),
            services_by_namespace=self._services.view(),
            quotas=self._quotas.view(),
            limit_ranges=self._limit_ranges.view(),
            volume_claims=self._volume_claims.view(),
            volumes=self._volumes.view(),
            attach_limits=self._attach_limits.view(),
            priority_classes=self._priority_classes.view(),
            disruption_budgets=self._disruption_budgets.view(),
            namespaces=self._namespaces.view(),
            image_caches=self._image_caches.view(),
            node_images=self._node_images.view(),
            policies=self._policies.view(),
            image_policies=self._image_policies.view(),
        )

    def changed(self) -> Changes:
        """What was touched since the last call."""
        return self._changes.take()

    async def wait_for_change(self) -> None:
        """Return once something was touched or an Event came since the last call of `changed`."""
        await self._changes.happened.wait()

    def drain_events(self) -> tuple[KubeletEvent, ...]:
        """Kubelet Events since the last call."""
        return self.events.drain()

    def _pod(self, key: ObjectKey, old: Pod | None, new: Pod | None) -> None:
        self._pods.update(key, old, new)
        for pod in (old, new):
            if pod is None:
                continue
            if pod.node_name:
                self._changes.used_nodes.add(pod.node_name)
            if pod.owner is not None:
                self._touch_owner(pod.namespace, pod.owner)
        if new is None and old is not None and old.stopping_since is not None and old.owner is not None:
            workload = self._workload_of(old.namespace, old.owner)
            if workload is not None and self._workloads.get(workload) is not None:
                self._stops.missed(workload, old)

    def _touch_owner(self, namespace: str, owner: OwnerReference) -> None:
        workload = self._workload_of(namespace, owner)
        if workload is not None:
            self._changes.workloads.add(workload)
        elif owner.kind == "ImageCache":
            self._changes.image_caches.add((namespace, owner.name))

    def _workload_of(self, namespace: str, owner: OwnerReference) -> WorkloadKey | None:
        """The workload that is planned for what this owner controls, which may be gone; None if there is none."""
        if owner.kind == "ReplicaSet":
            replica_set = self._replica_sets.get((namespace, owner.name))
            if replica_set is None or replica_set.owner is None:
                return None if replica_set is None else replica_set.key
            owner = replica_set.owner
        elif owner.kind == "Job" and owner.api_version.startswith("batch/"):
            job = self._jobs.get((namespace, owner.name))
            return None if job is None else _of_job(job)
        kind = workload_kind(owner.api_version, owner.kind)
        return WorkloadKey(kind, namespace, owner.name) if kind in _PLANNED_KINDS else None

    def _node(self, key: ObjectKey, _old: Node | None, new: Node | None) -> None:
        self._nodes.set(key[1], new)
        self._changes.nodes.add(key[1])

    def _workload(self, _key: ObjectKey, old: Workload | None, new: Workload | None) -> None:
        either = new or old
        if either is not None:
            self._workloads.set(either.key, new)
            if new is None:
                self._stops.forget(either.key)
            self._changes.workloads.add(either.key)
            if old is None or new is None or old.generation != new.generation:
                self._changes.intended.add(either.key)

    def _deployment(self, key: ObjectKey, old: Workload | None, new: Workload | None) -> None:
        self._workload(key, old, new)
        if new is not None:
            self._deployments_by_namespace.put(key[0], new.key, new)
        elif old is not None:
            self._deployments_by_namespace.pop(key[0], old.key)

    def _canary(self, key: ObjectKey, old: Workload | None, new: Workload | None) -> None:
        """A Canary speaks for the Deployment that Flagger made of its target."""
        self._workload(key, old, new)
        for canary in (old, new):
            if canary is not None and canary.flagger is not None:
                primary = WorkloadKey("Deployment", key[0], f"{canary.flagger.target_name}{PRIMARY_SUFFIX}")
                self._changes.workloads.add(primary)

    def _revision(self, key: ObjectKey, old: Revision | None, new: Revision | None) -> None:
        if old is not None:
            self._revisions_by_owner.pop(old.owner_uid, key)
        if new is not None:
            self._revisions_by_owner.put(new.owner_uid, key, new)

    def _replica_set(self, key: ObjectKey, old: Workload | None, new: Workload | None) -> None:
        """One that nothing controls is a workload by itself, until a Deployment adopts it."""
        lone_old, lone_new = (one if one is not None and one.owner is None else None for one in (old, new))
        if lone_old is not None or lone_new is not None:
            self._workload(key, lone_old, lone_new)
        for replica_set in (old, new):
            if replica_set is not None and replica_set.owner is not None:
                self._touch_owner(key[0], replica_set.owner)
        if old is not None and old.owner is not None:
            self._replica_sets_by_owner.pop(old.owner.uid, key)
        if new is not None and new.owner is not None:
            self._replica_sets_by_owner.put(new.owner.uid, key, new)

    def _job(self, key: ObjectKey, old: Workload | None, new: Workload | None) -> None:
        """One of a CronJob stands for a run of it; any other is a workload by itself."""
        own_old, own_new = (one if one is not None and _of_job(one) == one.key else None for one in (old, new))
        if own_old is not None or own_new is not None:
            self._workload(key, own_old, own_new)
        if old is not None and own_old is None and old.owner is not None:
            self._replica_sets_by_owner.pop(old.owner.uid, key)
            self._changes.workloads.add(_of_job(old))
        if new is not None and own_new is None and new.owner is not None:
            self._replica_sets_by_owner.put(new.owner.uid, key, new)
            self._changes.workloads.add(_of_job(new))

    def _autoscaler(self, key: ObjectKey, old: Autoscaler | None, new: Autoscaler | None) -> None:
        """Two autoscalers on one target fight; the first by name speaks for both."""
        if old is not None:
            self._autoscalers_by_target.pop(old.target, key)
        if new is not None:
            self._autoscalers_by_target.put(new.target, key, new)
        for target in {autoscaler.target for autoscaler in (old, new) if autoscaler is not None}:
            rivals = self._autoscalers_by_target.group(target)
            self._autoscalers.set(target, rivals[min(rivals)] if rivals else None)
            self._changes.workloads.add(target)

    def _service(self, key: ObjectKey, _old: Service | None, new: Service | None) -> None:
        _regroup(self._services, self._services_by_namespace, key, new)
        self._changes.namespaces.add(key[0])

    def _quota(self, key: ObjectKey, _old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        _regroup(self._quotas, self._quotas_by_namespace, key, new)
        self._changes.quotas.add(key[0])

    def _limit_range(self, key: ObjectKey, _old: LimitRange | None, new: LimitRange | None) -> None:
        _regroup(self._limit_ranges, self._limit_ranges_by_namespace, key, new)
        self._changes.quotas.add(key[0])

    def _volume_claim(self, key: ObjectKey, _old: VolumeClaim | None, new: VolumeClaim | None) -> None:
        """Claims that are not bound say nothing yet."""
        if new is None or new.volume_name:
            self._changes.namespaces.add(key[0])

    def _volume(self, key: ObjectKey, _old: Volume | None, new: Volume | None) -> None:
        self._volumes.set(key[1], new)
        if new is not None and new.claim_namespace:
            self._changes.namespaces.add(new.claim_namespace)

    def _attach_limit(self, key: ObjectKey, _old: AttachLimits | None, new: AttachLimits | None) -> None:
        self._attach_limits.set(key[1], new)
        self._changes.nodes.add(key[1])

    def _priority_class(self, key: ObjectKey, _old: PriorityClass | None, new: PriorityClass | None) -> None:
        """Pods keep the priority that they came with: nothing is to be planned again at once."""
        self._priority_classes.set(key[1], new)

    def _nothing_to_plan(self, _key: ObjectKey, _old: DisruptionBudget | None, _new: DisruptionBudget | None) -> None:
        """Budgets change with every pod that becomes ready, and the pods' own changes lead to plans."""

    def _namespace(self, key: ObjectKey, _old: Namespace | None, new: Namespace | None) -> None:
        self._namespaces.set(key[1], new)
        self._changes.namespaces.add(key[1])

    def _image_cache(self, key: ObjectKey, _old: ImageCache | None, _new: ImageCache | None) -> None:
        self._changes.image_caches.add(key)

    def _node_image(self, key: ObjectKey, _old: NodeImages | None, new: NodeImages | None) -> None:
        self._node_images.set(key[1], new)
        self._changes.nodes.add(key[1])

    def _image_policy(self, key: ObjectKey, _old: ImagePolicy | None, _new: ImagePolicy | None) -> None:
        self._changes.image_policies.add(key)

    def _policy(self, key: ObjectKey, _old: Policy | None, new: Policy | None) -> None:
        self._policies.set(key[1], new)
        self._changes.policies.add(key[1])


def _of_job(job: Workload) -> WorkloadKey:
    """The CronJob of which a Job is a run, or the Job itself."""
    owner = job.owner
    if owner is not None and owner.kind == "CronJob" and owner.api_version.startswith("batch/"):
        return WorkloadKey("CronJob", job.key.namespace, owner.name)
    return job.key


def _regroup(
    table: Table[str, tuple[T, ...]], groups: Grouping[str, ObjectKey, T], key: ObjectKey, new: T | None
) -> None:
    """Put or remove an object, and keep its namespace's objects in order of name."""
    namespace = key[0]
    if new is None:
        groups.pop(namespace, key)
    else:
        groups.put(namespace, key, new)
    found = groups.group(namespace)
    table.set(namespace, tuple(found[name] for name in sorted(found)) or None)
