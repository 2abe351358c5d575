"""A node's image store: images by every name, layers shared between them, pull records, disk."""

from collections import Counter

from prewarm.model.images import ImageReference, parse_reference
from prewarm.model.nodes import NodeImageStatus
from prewarm.simulation.registry import Layer, RemoteImage

_NAMES_IN_STATUS = 5
"""nodestatus.MaxNamesPerImageInNodeStatus."""


class PullRecord:
    """Who may use an image under one repository name (KEP-2535)."""

    __slots__ = ("node_accessible", "secrets")

    def __init__(self) -> None:
        self.node_accessible = False
        self.secrets: dict[tuple[str, str], str] = {}
        """Credentials by namespace and name of the secret."""


class StoredImage:
    """An image on the node."""

    __slots__ = ("detected_at", "digests", "last_used_at", "records", "remote", "tags")

    def __init__(self, remote: RemoteImage) -> None:
        self.remote = remote
        self.digests: list[str] = []
        self.tags: list[str] = []
        self.records: dict[str, PullRecord] | None = None
        """None: nobody pulled it through the kubelet, it was preloaded."""
        self.detected_at: float | None = None
        self.last_used_at: float | None = None

    @property
    def shown_name(self) -> str:
        """containerStatuses[].image: the first tag; the id of an image that has none."""
        return self.tags[0] if self.tags else self.remote.digest

    def status(self) -> NodeImageStatus:
        """The entry of node.status.images: digests first, then tags, at most five."""
        return NodeImageStatus((*self.digests, *self.tags)[:_NAMES_IN_STATUS], self.remote.size)


class ImageStore:
    """All images of one node."""

    def __init__(self, disk_expansion: float) -> None:
        self._images: dict[str, StoredImage] = {}
        self._names: dict[str, StoredImage] = {}
        self._layers: Counter[str] = Counter()
        self._expansion = disk_expansion
        self.compressed_bytes = 0

    @property
    def disk_bytes(self) -> float:
        """What images take on the image file system."""
        return self.compressed_bytes * self._expansion

    def images(self) -> list[StoredImage]:
        """All images, oldest first."""
        return list(self._images.values())

    def find(self, reference: ImageReference) -> StoredImage | None:
        """The image that a reference names here; a digest beats a tag beside it."""
        return self._names.get(_name(reference))

    def missing_layers(self, remote: RemoteImage) -> list[Layer]:
        """Layers that a pull would have to download."""
        if remote.digest in self._images:
            return []
        return [layer for layer in dict.fromkeys(remote.layers) if not self._layers[layer.digest]]

    def has(self, remote: RemoteImage) -> bool:
        """Whether the image is here, under whatever name."""
        return remote.digest in self._images

    def add(self, reference: ImageReference, remote: RemoteImage) -> StoredImage:
        """Store an image, or give one that is here another name; a tag that led elsewhere moves."""
        image = self._images.get(remote.digest)
        if image is None:
            image = self._images[remote.digest] = StoredImage(remote)
            for layer in dict.fromkeys(remote.layers):
                if not self._layers[layer.digest]:
                    self.compressed_bytes += layer.size
                self._layers[layer.digest] += 1
            self.compressed_bytes += remote.other_bytes
        digest_name = f"{reference.name}@{remote.digest}"
        if digest_name not in image.digests:
            image.digests.append(digest_name)
            self._names[digest_name] = image
        if reference.tag and not reference.digest:
            self._tag(f"{reference.name}:{reference.tag}", image)
        return image

    def _tag(self, tag: str, image: StoredImage) -> None:
        holder = self._names.get(tag)
        if holder is image:
            return
        if holder is not None:
            holder.tags.remove(tag)
        image.tags.append(tag)
        self._names[tag] = image

    def remove(self, image: StoredImage) -> None:
        """Delete an image with all its names, and the layers that nothing else uses."""
        del self._images[image.remote.digest]
        for name in (*image.digests, *image.tags):
            del self._names[name]
        for layer in dict.fromkeys(image.remote.layers):
            self._layers[layer.digest] -= 1
            if not self._layers[layer.digest]:
                del self._layers[layer.digest]
                self.compressed_bytes -= layer.size
        self.compressed_bytes -= image.remote.other_bytes

    def status(self, most: int | None) -> tuple[NodeImageStatus, ...]:
        """node.status.images: the largest first, at most so many."""
        listed = sorted((image.status() for image in self._images.values()), key=lambda s: -s.size_bytes)
        return tuple(listed if most is None else listed[:most])


def _name(reference: ImageReference) -> str:
    return f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"


def repository_digest(image: str, stored: StoredImage) -> str:
    """containerStatuses[].imageID: the repository that was asked for, and the digest."""
    return f"{parse_reference(image).name}@{stored.remote.digest}"
