"""Which images does a workload's owner say will come next, or Flux in their place?"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prewarm.api.names import ANNOTATION_IMAGE_POLICIES, ANNOTATION_NEXT_IMAGES
from prewarm.demand.what_if import with_images
from prewarm.model.images import MAX_REFERENCE_LENGTH, canonical, parse_reference
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.workloads import Workload

MAX_IMAGES = 64
"""Images, or ImagePolicies, that one annotation may name."""
_MAX_TEXT = MAX_IMAGES * (MAX_REFERENCE_LENGTH + 64)
_SEPARATOR = re.compile(r"[,\s]+")
_OBJECT = re.compile(r"(?:(?P<namespace>[a-z0-9][a-z0-9-]{0,62})/)?(?P<name>[a-z0-9][a-z0-9.-]{0,252})", re.ASCII)
_POLICY_EXAMPLE = "write container=namespace/name, separated by commas, such as web=flux-system/web"
_EXAMPLE = "write container=image, separated by commas, such as web=registry.example/web:v2"


def next_images(workload: Workload) -> Mapping[str, str]:
    """Announced image by container; empty without the annotation. A lone image is that of a lone container.

    Raises:
        ValueError: if the annotation cannot be read, or names a container that the template does not have.
    """
    images = _by_container(workload, workload.annotations.get(ANNOTATION_NEXT_IMAGES, ""), _EXAMPLE)
    for name, image in images.items():
        try:
            parse_reference(image)
        except ValueError as error:
            raise ValueError(f"{f'{name}={image}'[:64]!r}: {error}: {_EXAMPLE}") from None
    return images


def latest_images(snapshot: ClusterSnapshot, workload: Workload) -> Mapping[str, str]:
    """By container, the latest image of the ImagePolicy of Flux that the annotation names.

    One that is not there, or has found no image, announces nothing. Flux writes a digest beside the tag where the
    manifest's marker asks for it, which is not to be seen here: it counts where the template has one already.

    Raises:
        ValueError: if the annotation cannot be read, or names a container that the template does not have.
    """
    found: dict[str, str] = {}
    images = {container.name: container.image for container in workload.template.shape.containers}
    for container, key in _image_policies(workload).items():
        policy = snapshot.image_policies.get(key)
        if policy is not None and policy.image:
            found[container] = policy.image if "@" in images[container] else policy.image.partition("@")[0]
    return found


def policies_named(workload: Workload) -> frozenset[ObjectKey]:
    """ImagePolicies of Flux that the workload's annotation names; none if it cannot be read."""
    if ANNOTATION_IMAGE_POLICIES not in workload.annotations:
        return frozenset()
    try:
        return frozenset(_image_policies(workload).values())
    except ValueError:
        return frozenset()


def _image_policies(workload: Workload) -> Mapping[str, ObjectKey]:
    value = workload.annotations.get(ANNOTATION_IMAGE_POLICIES, "")
    named: dict[str, ObjectKey] = {}
    for container, text in _by_container(workload, value, _POLICY_EXAMPLE).items():
        match = _OBJECT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:64]!r} names no ImagePolicy: {_POLICY_EXAMPLE}")
        named[container] = (match["namespace"] or workload.key.namespace, match["name"])
    return named


def _by_container(workload: Workload, value: str, example: str) -> dict[str, str]:
    """The annotation's entries, container=value; a lone value is that of a lone container."""
    if not value.strip():
        return {}
    if len(value) > _MAX_TEXT:
        raise ValueError(f"it has {len(value)} characters: name at most {MAX_IMAGES} of them")
    entries = [entry for entry in _SEPARATOR.split(value) if entry]
    if len(entries) > MAX_IMAGES:
        raise ValueError(f"it has {len(entries)} entries: at most {MAX_IMAGES}")
    containers = [container.name for container in workload.template.shape.containers]
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, named = entry.partition("=")
        if not equals:
            if len(containers) != 1:
                raise ValueError(f"{entry[:64]!r} names no container: {example}")
            name, named = containers[0], entry
        if name not in containers:
            raise ValueError(f"there is no container {name[:63]!r}; there are: {', '.join(containers[:10]) or 'none'}")
        found[name] = named
    return found


def announced(snapshot: ClusterSnapshot, workload: Workload) -> Workload | None:
    """The workload as its owner or Flux will change it; None if nothing is announced that it does not have.

    What the owner says goes first. An ImagePolicy's image differs in spelling alone from what Flux wrote before where
    the registry is left out, so images are compared by what they name.

    Raises:
        ValueError: as `next_images` and `latest_images` do; the message begins with the annotation.
    """
    with _blaming(ANNOTATION_IMAGE_POLICIES, workload):
        latest = latest_images(snapshot, workload)
    with _blaming(ANNOTATION_NEXT_IMAGES, workload):
        said = next_images(workload)
    present = {container.name: canonical(container.image) for container in workload.template.shape.containers}
    images = {name: image for name, image in {**latest, **said}.items() if canonical(image) != present.get(name)}
    changed = with_images(workload, images)
    return None if changed is workload else changed


@contextmanager
def _blaming(annotation: str, workload: Workload) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"annotation {annotation} of {workload.key}: {error}") from None
