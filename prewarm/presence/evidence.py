"""What shows that an image is on one node: our record, the node's own list, containers that started there."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from prewarm.api.names import ANNOTATION_REFRESHED_AT
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeImages, PresentImage, pull_identity
from prewarm.model.pods import ContainerKind, ContainerPhase, ContainerStatus, Pod
from prewarm.presence.names import by_digest, digest_among, digest_of, keys

PULL_CONTAINER_PREFIX = "pull-"
"""Containers of a puller pod with such names run target images; others are helpers or were injected."""

_LATEST_SECONDS = 3600.0
"""How far a pod may come after the time for which it says it pulls: people may edit annotations."""

LISTED_IMAGES = 50
"""Images in status.images by default (kubelet nodeStatusMaxImages): a shorter list is taken for complete."""

_CREATED_REASONS = frozenset(
    {"CreateContainerError", "CreateContainerConfigError", "RunContainerError", "StartError", "ContainerCannotRun"}
)
"""Reasons that the kubelet gives after a pull that succeeded (pkg/kubelet/kuberuntime startContainer pulls first)."""


class Sighting(Struct, frozen=True, gc=False):
    """One proof that an image is on a node. `identity` None: nobody knows under which credentials it came."""

    evidence: Evidence
    since: float
    identity: str | None = None
    digest: str = ""
    size_bytes: int = 0
    cache: str = ""
    pull_seconds: float | None = None
    used_at: float | None = None


Sightings = Mapping[str, tuple[Sighting, ...]]
"""By spelling of the image."""


def proves_presence(status: ContainerStatus) -> bool:
    """Whether the container got as far as needing its image on the node.

    ContainerStatusUnknown is what remains of a container that the kubelet lost or that never ran: it proves nothing.
    """
    match status.phase:
        case ContainerPhase.RUNNING:
            return True
        case ContainerPhase.TERMINATED:
            return status.reason != "ContainerStatusUnknown"
        case ContainerPhase.WAITING:
            return status.reason in _CREATED_REASONS or (status.restart_count > 0 and bool(status.image_id))


def record_holds(record: NodeImages | None, node: Node) -> bool:
    """Whether a NodeImage record speaks of this very node since its last boot."""
    return record is not None and record.node_uid == node.uid and record.boot_id == node.boot_id


def vanished(entry: PresentImage, node: Node, listed: Mapping[str, int]) -> bool:
    """Whether the node's own list says that a recorded image went: it was listed once and is not any more.

    `listed` maps the spellings on the list to sizes. A full list proves nothing about images smaller than its
    smallest; an empty one (nodes that report none) nothing at all. A not ready node's list is as old as its silence.
    """
    if entry.size_bytes <= 0 or not node.images or not node.ready:
        return False
    if any(key in listed for key in keys(entry.image)) or by_digest(entry.image, entry.digest) in listed:
        return False
    if len(node.images) < LISTED_IMAGES:
        return True
    return entry.size_bytes > min(image.size_bytes for image in node.images)


def listed_names(node: Node) -> dict[str, int]:
    """Every spelling on the node's own list with the image's size."""
    return {canonical(name): image.size_bytes for image in node.images for name in image.names}


def images_started(pod: Pod) -> Iterator[tuple[str, ContainerStatus]]:
    """Images that a pod's containers prove to be present, as the pod spec (or the runtime) spells them.

    The status' own image name is not reliable (two tags of one image both read the first tag), so the spec's counts;
    except where the status names another repository tag, as after an in-place change that has not happened yet.
    """
    shapes = {shape.name: shape for shape in pod.shape.containers if shape.kind is not ContainerKind.IMAGE_VOLUME}
    for status in pod.containers:
        shape = shapes.get(status.name)
        if shape is None or not proves_presence(status):
            continue
        said = status.image
        if not said or "sha256:" in said.split("@")[0] or canonical(said) == canonical(shape.image):
            yield shape.image, status
        else:
            yield said, status


def pulls_for(pod: Pod) -> float:
    """Beginning of the refresh for which a puller pod pulls, Unix seconds; 0 where the annotation does not say."""
    text = pod.annotations.get(ANNOTATION_REFRESHED_AT, "")
    at = float(text) if text.isascii() and text.isdigit() and len(text) < 13 else 0.0
    return at if at <= pod.created_at + _LATEST_SECONDS else 0.0


def pulled_images(pod: Pod) -> tuple[tuple[str, str], ...]:
    """Container and image of everything that a puller pod pulls, in order, as the spec spells it.

    In form Volume a container of ours mounts the image, which is a volume with the container's name.
    """
    volumes = {shape.name: shape.image for shape in pod.shape.containers if shape.kind is ContainerKind.IMAGE_VOLUME}
    return tuple(
        (shape.name, volumes.get(shape.name, shape.image))
        for shape in pod.shape.containers
        if shape.kind is ContainerKind.MAIN and shape.name.startswith(PULL_CONTAINER_PREFIX)
    )


def mounts_its_images(pod: Pod) -> bool:
    """Whether a puller pod has form Volume: then a container's imageID is our own image's."""
    return any(shape.kind is ContainerKind.IMAGE_VOLUME for shape in pod.shape.containers)


def our_pulls(pod: Pod) -> Iterator[tuple[str, Sighting]]:
    """What the containers of one of our puller pods prove, by the image as the pod's spec spells it."""
    identity = pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets)
    images = dict(pulled_images(pod))
    mounted = mounts_its_images(pod)
    cache = f"{pod.namespace}/{pod.owner.name}" if pod.owner is not None else ""
    begun = pulls_for(pod)
    ready_at = max((status.finished_at or 0.0 for status in pod.containers if status.init), default=0.0)
    if mounted:
        # All images come before the first container: of several, nobody knows how long each took.
        ready_at = (pod.sandbox_ready_at or pod.created_at) if len(images) == 1 else 0.0
    for status in pod.containers:
        image = images.get(status.name)
        if image is None or not proves_presence(status):
            continue
        # A container that could not start reports the year 1970.
        started = status.started_at or status.finished_at or pod.created_at
        took = max(0.0, started - ready_at) if ready_at and status.started_at else None
        ready_at = 0.0 if mounted else status.finished_at or ready_at
        yield (
            image,
            Sighting(
                Evidence.OUR_PULL,
                # A node whose clock is behind must not have to pull again and again for one refresh.
                since=max(started, begun),
                identity=identity,
                digest="" if mounted else digest_of(status.image_id),
                cache=cache,
                pull_seconds=took,
            ),
        )


def pulls_shown(pullers: Iterable[Pod], record: NodeImages | None, node: Node) -> Iterator[tuple[str, Sighting]]:
    """What our puller pods on a node show beyond the record.

    Where the record speaks of a pull, it alone counts: a finished pod that is held says the same for hours, whatever
    became of the image. So does one from before the node was created or became ready, as it does after a boot.
    """
    recorded = {
        (entry.image, entry.pull_identity): entry.since
        for entry in (record.images if record is not None and record_holds(record, node) else ())
        if entry.evidence is Evidence.OUR_PULL
    }
    for pod in sorted(pullers, key=lambda pod: (pod.created_at, pod.key)):
        if pod.created_at < node.created_at:
            continue
        for image, pull in our_pulls(pod):
            known = recorded.get((canonical(image), pull.identity or ""))
            if pull.since >= node.ready_since and (known is None or known < pull.since):
                yield image, pull


def _of_record(entry: PresentImage) -> Sighting:
    identity = None if entry.evidence is Evidence.NODE_STATUS else entry.pull_identity
    return Sighting(
        entry.evidence,
        since=entry.since,
        identity=identity,
        digest=entry.digest,
        size_bytes=entry.size_bytes,
        cache=entry.cache,
        pull_seconds=entry.pull_seconds,
        used_at=entry.used_at,
    )


def gather(node: Node, record: NodeImages | None, pods: Iterable[Pod], pullers: Iterable[Pod]) -> Sightings:
    """Everything that shows which images are on a node, by spelling; our pulls first."""
    found: dict[str, dict[Sighting, None]] = {}

    def add(image: str, sighting: Sighting) -> None:
        for key in dict.fromkeys((*keys(image), by_digest(image, sighting.digest))):
            if key:
                found.setdefault(key, {})[sighting] = None

    listed = listed_names(node)
    pullers = tuple(pullers)
    ours = {pod.key for pod in pullers}
    for image, sighting in pulls_shown(pullers, record, node):
        add(image, sighting)
    if record is not None and record_holds(record, node):
        for known in record.images:
            if not vanished(known, node, listed):
                add(known.image, _of_record(known))
    for pod in pods:
        if pod.key in ours:
            continue
        identity = pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets)
        for image, status in images_started(pod):
            since = status.started_at or pod.created_at
            add(image, Sighting(Evidence.RUNNING_POD, since, identity, digest_of(status.image_id)))
    for entry in node.images:
        sighting = Sighting(Evidence.NODE_STATUS, 0.0, None, digest_among(entry.names), entry.size_bytes)
        for name in entry.names:
            found.setdefault(canonical(name), {})[sighting] = None
    return {image: tuple(sightings) for image, sightings in found.items()}
