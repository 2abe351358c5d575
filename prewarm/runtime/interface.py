"""What removing images asks of a container runtime, real or emulated."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class RuntimeUnavailable(Exception):  # noqa: N818 - says what is the case, as built-in ConnectionRefusedError does
    """The runtime does not answer or refuses; the message is one clear line."""


class RuntimeImage(Struct, frozen=True):
    """An image as the runtime knows it: all its names together are one image."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size_bytes: int = 0
    pinned: bool = False


class RuntimeContainer(Struct, frozen=True):
    """A container in whatever state, with everything by which it names its image."""

    id: str
    images: tuple[str, ...]


class Runtime(Protocol):
    """What removing images asks of a container runtime."""

    def image(self, reference: str) -> RuntimeImage | None:
        """The image of that name; None if there is none."""

    def containers(self) -> Sequence[RuntimeContainer]:
        """All containers, exited ones included."""

    def mounted_images(self, container_id: str) -> Sequence[str]:
        """Images that a container mounts as volumes; none if it is gone meanwhile."""

    def remove(self, reference: str) -> None:
        """Remove an image by name or id; one that is gone already is no error. Names may be left of it."""
