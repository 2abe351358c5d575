"""What nodes that existed before the emulator hold: taken from their status, as a kubelet finds its disk."""

from hashlib import sha256

import msgspec
from msgspec import Struct, field

from prewarm.model.images import ImageReference, parse_reference
from prewarm.simulation.registry import Layer, Registries, RegistryAnswer, RemoteImage


class NodeImage(Struct, rename="camel"):
    """One entry of status.images."""

    names: list[str] = []
    size_bytes: int = 0


class _Status(Struct):
    images: list[NodeImage] | None = None


class _Node(Struct):
    status: _Status = field(default_factory=_Status)


def images_of(node: bytes) -> list[NodeImage]:
    """status.images of a Node object."""
    return msgspec.json.decode(node, type=_Node).status.images or []


def remote_image(image: NodeImage, registries: Registries) -> tuple[list[str], RemoteImage] | None:
    """Names and contents of a listed image; its layers if the registry still has it, else one of its size."""
    references: list[tuple[str, ImageReference]] = []
    for name in image.names:
        try:
            references.append((name, parse_reference(name)))
        except ValueError:
            continue
    digest = next((reference.digest for _, reference in references if reference.digest), "")
    if not digest:
        return None
    for _, reference in references:
        answer, remote = registries.resolve(reference, None)
        if answer is RegistryAnswer.FOUND and remote is not None and remote.digest == digest:
            return [name for name, _ in references], remote
    layer = Layer(f"sha256:{sha256(digest.encode()).hexdigest()}", image.size_bytes)
    return [name for name, _ in references], RemoteImage(digest, (layer,), 0)
