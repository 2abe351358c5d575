"""Which images does a rollout replace that a rollback would need? Kept where their pods ran, until it is judged."""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from prewarm.api.plan_annotation import decode_summary
from prewarm.demand.argo_rollout import rollout_stage
from prewarm.demand.holds import hold
from prewarm.demand.revisions import REVISION_LABEL, is_current, own_pods, rollout_hash, with_template
from prewarm.demand.rollout import Stage, stage
from prewarm.demand.shapes import far_ahead, images
from prewarm.model.image_caches import ImageCache, ImageList, Policy
from prewarm.model.images import canonical
from prewarm.model.plans import Batch, Demand, Trigger
from prewarm.model.pods import ContainerShape, Pod, PodTemplate
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey

MAX_REVISIONS = 2
"""Replaced revisions that are kept for one workload, those that run on most nodes: after several changes in a row, the
one that served before and the last that became ready."""
_REVISION_LENGTH = 64
"""As long as the annotation of a plan keeps it."""
_WITH_SETS = frozenset({"Deployment", "Rollout"})
_WITHOUT_SETS = frozenset({"StatefulSet", "DaemonSet", "CloneSet", "AdvancedStatefulSet", "AdvancedDaemonSet"})


class _Revision(Struct):
    """A revision that is being replaced, and the pods of it that served and are not gone yet."""

    name: str
    template: PodTemplate
    pods: list[Pod]


class _Turn(Struct, frozen=True):
    """A rollout as far as judging it goes."""

    new_pods: Sequence[Pod]
    replaced: Sequence[_Revision]
    confirmed: bool = True
    """Whether the workload's own controller, where it has a say in this, takes the new revision for the stable one."""


def previous_demands(
    snapshot: ClusterSnapshot, key: WorkloadKey, policy: Policy, excluded: frozenset[str]
) -> tuple[Demand, ...]:
    """What a rollback would need, for as long as a rollout is under way and not judged; where the policy holds images.

    A rollout is judged well once all pods are of the new revision and have been ready for minReadySeconds, and an Argo
    Rollout once its controller calls the new revision stable. One that misses its progress deadline is not over: what
    it replaces stays, as a rollback is what comes next. Nodes are those of pods that served; which they were before is
    known from the ImageCache in force alone, so nothing is pulled again on nodes that nobody kept warm.
    """
    found = snapshot.workloads.get(key)
    if found is None or found.deleted_at is not None or key in snapshot.asked or not found.replicas:
        return ()
    if not policy.hold_seconds or not policy.rollout or key.kind not in _WITH_SETS | _WITHOUT_SETS:
        return ()
    found = with_template(snapshot, found)
    turn = _of_sets(snapshot, found) if key.kind in _WITH_SETS else _of_pods(snapshot, found)
    if not found.template.shape.containers or not _has_begun(found, turn) or _is_judged(snapshot, found, turn):
        return ()
    wanted = frozenset(map(canonical, found.template.shape.images))
    known = {revision.name: revision for revision in turn.replaced}
    current = _names(snapshot, found)
    in_force = {name: cache for name, cache in _in_force(snapshot, found) if name not in current}
    made: list[tuple[int, Demand]] = []
    for name in sorted(known.keys() | in_force.keys()):
        revision = known.get(name) or _of_cache(name, found, in_force[name])
        nodes = sorted({pod.node_name for pod in revision.pods if pod.node_name})
        needed = tuple(i for i in images(revision.template.shape, excluded) if canonical(i) not in wanted)
        if needed and (nodes or name in in_force):
            far = far_ahead(snapshot.taken_at)
            batches = (Batch(far, len(nodes), nodes=tuple(nodes)),) if nodes else ()
            breadth = len(nodes) + sum(len(entry.node_names or ()) for entry in _lists(in_force.get(name)))
            demand = Demand(key, found.uid, Trigger.ROLLBACK, name, needed, revision.template, batches)
            made.append((breadth, demand))
    made.sort(key=lambda entry: (-entry[0], entry[1].revision))
    return tuple(demand for _, demand in made[:MAX_REVISIONS])


def _of_sets(snapshot: ClusterSnapshot, workload: Workload) -> _Turn:
    at: Stage = rollout_stage(snapshot, workload) if workload.key.kind == "Rollout" else stage(snapshot, workload)
    revisions = []
    for replica_set in at.old:
        ending = (pod for pod in at.terminating if pod.owner is not None and pod.owner.uid == replica_set.uid)
        served = [pod for pod in (*at.old_pods[replica_set.uid], *ending) if _served(pod)]
        revisions.append(_Revision(replica_set.template_hash[:_REVISION_LENGTH], replica_set.template, served))
    rollout = workload.rollout
    stable = rollout.stable_hash if rollout is not None else ""
    confirmed = not stable or (at.current is not None and rollout_hash(at.current) == stable)
    return _Turn(at.new_pods, revisions, confirmed)


def _of_pods(snapshot: ClusterSnapshot, workload: Workload) -> _Turn:
    """Pods that the workload controls itself tell their revisions; containers that admission added do not count."""
    names = {container.name for container in workload.template.shape.containers}
    new: list[Pod] = []
    revisions: dict[str, _Revision] = {}
    for pod in sorted(own_pods(snapshot, workload), key=lambda pod: pod.key):
        if is_current(workload, pod):
            if pod.deleted_at is None:
                new.append(pod)
        elif _served(pod):
            own = tuple(container for container in pod.shape.containers if container.name in names)
            label = pod.labels.get(REVISION_LABEL, "") or "-".join(sorted({container.image for container in own}))
            template = PodTemplate(workload.template.labels, replace(pod.shape, containers=own))
            name = label[:_REVISION_LENGTH]
            revisions.setdefault(name, _Revision(name, template, [])).pods.append(pod)
    return _Turn(new, list(revisions.values()))


def _of_cache(name: str, workload: Workload, cache: ImageCache) -> _Revision:
    """A revision of which no pod and no ReplicaSet is left, as its ImageCache remembers it."""
    containers = tuple(ContainerShape(image, image) for entry in cache.lists for image in entry.images)
    shape = replace(
        workload.template.shape,
        containers=containers,
        service_account=cache.service_account,
        pull_secrets=cache.pull_secrets,
        tolerations=cache.tolerations,
    )
    return _Revision(name, PodTemplate(workload.template.labels, shape), [])


def _in_force(snapshot: ClusterSnapshot, workload: Workload) -> Iterator[tuple[str, ImageCache]]:
    name = str(workload.key)
    for cache in snapshot.image_caches.values():
        if cache.planned and cache.workload == name and cache.deleted_at is None:
            summary = decode_summary(cache.plan_annotation)
            if summary is not None and summary.trigger == Trigger.ROLLBACK and summary.revision:
                yield summary.revision, cache


def _names(snapshot: ClusterSnapshot, workload: Workload) -> frozenset[str]:
    """How the revision is called that the template asks for: after a rollback it is no longer the one replaced."""
    labels = {pod.labels.get(REVISION_LABEL, "") for pod in own_pods(snapshot, workload) if is_current(workload, pod)}
    return frozenset(name[:_REVISION_LENGTH] for name in (workload.template_hash, workload.update_revision, *labels))


def _lists(cache: ImageCache | None) -> tuple[ImageList, ...]:
    return () if cache is None else cache.lists


def _served(pod: Pod) -> bool:
    """Whether it was ready, as far as it still tells while it ends."""
    ended = pod.deleted_at is not None and any(status.started_at or status.finished_at for status in pod.containers)
    return pod.ready_at is not None or ended


def _has_begun(workload: Workload, turn: _Turn) -> bool:
    """Whether pods come and go; while a change is only announced, or held by the gate, all of them stay."""
    held = hold(workload)
    waits = workload.paused or (held is not None and held.in_force)
    going = any(pod.deleted_at is not None for revision in turn.replaced for pod in revision.pods)
    return bool(turn.new_pods) or going or not waits


def _is_judged(snapshot: ClusterSnapshot, workload: Workload, turn: _Turn) -> bool:
    now = snapshot.taken_at
    available = sum(
        pod.ready_at is not None and now - pod.ready_at >= workload.min_ready_seconds for pod in turn.new_pods
    )
    staying = any(pod.deleted_at is None for revision in turn.replaced for pod in revision.pods)
    return turn.confirmed and not staying and available >= workload.replicas
