"""Removes images from this node that nobody uses, and says of each what became of it."""

from collections.abc import Iterable, Sequence

from prewarm.model.images import canonical, parse_reference
from prewarm.model.removals import Removal, RemovalReport, RemovalResult, Removed
from prewarm.runtime.interface import Runtime, RuntimeImage, RuntimeUnavailable


def remove_images(runtime: Runtime, removals: Sequence[Removal]) -> RemovalReport:
    """Remove what is asked for unless it is in use, pinned, or known by a name that was not given.

    Trouble with one image does not keep the others.
    """
    allowed = {canonical(name) for removal in removals for name in (removal.image, *removal.names)}
    usage = _Usage(runtime)
    return RemovalReport(tuple(_remove(runtime, usage, removal.image, allowed) for removal in removals))


def _remove(runtime: Runtime, usage: "_Usage", reference: str, allowed: Iterable[str]) -> Removed:
    try:
        name = _spelling(reference)
    except ValueError as error:
        return Removed(RemovalResult.INVALID, str(error))
    try:
        image = runtime.image(name)
        if image is None:
            return Removed(RemovalResult.ABSENT)
        if image.pinned:
            return Removed(RemovalResult.PINNED)
        if usage.of(image):
            return Removed(RemovalResult.IN_USE)
        others = _others(image, allowed)
        if others:
            return Removed(RemovalResult.OTHER_NAMES, others[0])
        if not _take_away(runtime, name, image):
            return Removed(RemovalResult.FAILED, "the runtime removed it, and has it still")
    except RuntimeUnavailable as error:
        return Removed(RemovalResult.FAILED, str(error))
    return Removed(RemovalResult.REMOVED)


def _take_away(runtime: Runtime, name: str, image: RuntimeImage) -> bool:
    """Remove an image with all its names; level-triggered: not the answer counts, but whether it is gone.

    By name first, since CRI-O looks only then whether a container mounts it. But CRI-O takes that name alone away while
    there are others (server/image_remove.go), and cri-dockerd takes no name at all (core/image.go of each); by id, as
    the kubelet asks, both remove the image.

    Raises:
        RuntimeUnavailable: if the runtime refuses.
    """
    runtime.remove(name)
    if image.id and runtime.image(image.id) is not None:
        runtime.remove(image.id)
    return all(runtime.image(known) is None for known in (name, image.id) if known)


def _spelling(reference: str) -> str:
    """The one name that a runtime resolves a reference by; never the beginning of an image id, which runtimes take too.

    Raises:
        ValueError: if it is no reference.
    """
    parsed = parse_reference(reference)
    return f"{parsed.name}@{parsed.digest}" if parsed.digest else str(parsed)


def _others(image: RuntimeImage, allowed: Iterable[str]) -> list[str]:
    """Names of the image that were not given; the digest in a repository that was given belongs to it."""
    repositories = {_repository(name) for name in allowed}
    tags = [tag for tag in map(canonical, image.tags) if tag not in allowed]
    digests = [digest for digest in map(canonical, image.digests) if _repository(digest) not in repositories]
    return sorted(tags + digests)


def _repository(name: str) -> str:
    try:
        return parse_reference(name).name
    except ValueError:
        return name


class _Usage:
    """Which images containers use. Asked anew for every image; what a container mounts does not change."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mounts: dict[str, tuple[str, ...]] = {}

    def of(self, image: RuntimeImage) -> bool:
        """Whether any container uses the image, by whatever name.

        Raises:
            RuntimeUnavailable: if that cannot be found out.
        """
        names = {image.id, *map(canonical, (*image.tags, *image.digests))}
        for container in self._runtime.containers():
            if container.id not in self._mounts:
                self._mounts[container.id] = tuple(self._runtime.mounted_images(container.id))
            used = (*container.images, *self._mounts[container.id])
            if any(name in names or canonical(name) in names for name in used):
                return True
        return False
