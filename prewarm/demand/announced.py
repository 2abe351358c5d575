"""Which images does a workload's owner say will come next?"""

import re
from collections.abc import Mapping

from prewarm.api.names import ANNOTATION_NEXT_IMAGES
from prewarm.demand.what_if import with_images
from prewarm.model.images import MAX_REFERENCE_LENGTH, parse_reference
from prewarm.model.workloads import Workload

MAX_IMAGES = 64
"""Images that one annotation may announce."""
_MAX_TEXT = MAX_IMAGES * (MAX_REFERENCE_LENGTH + 64)
_SEPARATOR = re.compile(r"[,\s]+")
_EXAMPLE = "write container=image, separated by commas, such as web=registry.example/web:v2"


def next_images(workload: Workload) -> Mapping[str, str]:
    """Announced image by container; empty without the annotation. A lone image is that of a lone container.

    Raises:
        ValueError: if the annotation cannot be read, or names a container that the template does not have.
    """
    value = workload.annotations.get(ANNOTATION_NEXT_IMAGES)
    if value is None or not value.strip():
        return {}
    if len(value) > _MAX_TEXT:
        raise ValueError(f"it has {len(value)} characters: announce at most {MAX_IMAGES} images")
    entries = [entry for entry in _SEPARATOR.split(value) if entry]
    if len(entries) > MAX_IMAGES:
        raise ValueError(f"it announces {len(entries)} images: at most {MAX_IMAGES}")
    containers = [container.name for container in workload.template.shape.containers]
    images: dict[str, str] = {}
    for entry in entries:
        name, equals, image = entry.partition("=")
        if not equals:
            if len(containers) != 1:
                raise ValueError(f"{entry[:64]!r} names no container: {_EXAMPLE}")
            name, image = containers[0], entry
        try:
            parse_reference(image)
        except ValueError as error:
            raise ValueError(f"{entry[:64]!r}: {error}: {_EXAMPLE}") from None
        if name not in containers:
            raise ValueError(f"there is no container {name[:63]!r}; there are: {', '.join(containers[:10]) or 'none'}")
        images[name] = image
    return images


def announced(workload: Workload) -> Workload | None:
    """The workload as its owner will change it; None if nothing is announced that it does not have.

    Raises:
        ValueError: as `next_images` does.
    """
    changed = with_images(workload, next_images(workload))
    return None if changed is workload else changed
