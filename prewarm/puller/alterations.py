"""What did admission make of a puller pod? Meshes add containers, mirrors change images, policies drop annotations."""

import json

from prewarm.api import names
from prewarm.model.images import canonical
from prewarm.model.pods import ContainerKind, ContainerPhase, Pod
from prewarm.presence import PULL_CONTAINER_PREFIX, pulled_images
from prewarm.puller.pods import HELPER_CONTAINER, SENTINEL_CONTAINER

_MAX_NAMED = 5


def is_ours(container: str) -> bool:
    """Whether a container of a puller pod with this name was asked for by us."""
    return container in {HELPER_CONTAINER, SENTINEL_CONTAINER} or container.startswith(PULL_CONTAINER_PREFIX)


def asked_images(pod: Pod) -> tuple[str, ...]:
    """The images that a puller pod was ordered for, in order, by its annotation; empty where that says nothing."""
    try:
        images: object = json.loads(pod.annotations.get(names.ANNOTATION_IMAGES, "null"))
    except (ValueError, RecursionError):
        return ()
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        return ()
    return tuple(images)


def targets(pod: Pod) -> tuple[tuple[str, str, str], ...]:
    """Container, image asked for and image in the spec of everything that a puller pod pulls, in order.

    They differ where admission changed the image, or where somebody edited the annotation: in both cases what the pod
    shows says nothing of the image that was asked for.
    """
    found = pulled_images(pod)
    asked = asked_images(pod)
    if len(asked) != len(found):
        asked = tuple(image for _, image in found)
    return tuple((name, image, actual) for (name, actual), image in zip(found, asked, strict=True))


def alterations(pod: Pod) -> tuple[str, ...]:
    """What is not as we ordered it, for people; empty if nothing is."""
    said = []
    added = [shape.name for shape in pod.shape.containers if not is_ours(shape.name)]
    if added:
        shown = ", ".join(added[:_MAX_NAMED]) + (", ..." if len(added) > _MAX_NAMED else "")
        said.append(f"added {'container' if len(added) == 1 else 'containers'} {shown}")
    said.extend(
        f"changed image {asked} to {actual}"
        for _, asked, actual in targets(pod)
        if canonical(asked) != canonical(actual)
    )
    if names.ANNOTATION_IMAGES not in pod.annotations or names.ANNOTATION_ATTEMPT not in pod.annotations:
        said.append("dropped annotations")
    main = {shape.name for shape in pod.shape.containers if shape.kind is ContainerKind.MAIN and is_ours(shape.name)}
    for status in pod.containers:
        if status.name not in main or status.phase is not ContainerPhase.TERMINATED:
            continue
        # What could not be started at all, or was lost, has another cause.
        if status.exit_code not in {0, None} and status.reason == "Error":
            said.append(
                f"container {status.name} ended with {status.exit_code}: its command was changed, or fails there"
            )
    return tuple(dict.fromkeys(said))
