"""An emulated node's image store, asked as a container runtime is asked by the pod that removes images."""

from collections.abc import Callable, Sequence

from prewarm.model.images import parse_reference
from prewarm.runtime.interface import RuntimeContainer, RuntimeImage
from prewarm.simulation.store import ImageStore, StoredImage


class StoreRuntime:
    """Speaks for a store; `used` are images of containers, exited ones included, in the node's own order."""

    def __init__(
        self,
        store: ImageStore,
        used: Callable[[], Sequence[StoredImage]],
        remove: Callable[[StoredImage], None],
    ) -> None:
        self._store, self._used, self._remove = store, used, remove

    def image(self, reference: str) -> RuntimeImage | None:
        """The image of that name; None if there is none."""
        found = self._store.find(parse_reference(reference))
        if found is None:
            return None
        return RuntimeImage(found.remote.digest, tuple(found.tags), tuple(found.digests), found.remote.size)

    def containers(self) -> Sequence[RuntimeContainer]:
        """All containers, by the images that they use; image volumes are told of in the same way."""
        return [RuntimeContainer(str(number), (image.remote.digest,)) for number, image in enumerate(self._used())]

    def mounted_images(self, container_id: str) -> Sequence[str]:  # noqa: ARG002 - part of Runtime
        """None beside what `containers` says."""
        return ()

    def remove(self, reference: str) -> None:
        """Remove an image with all its names."""
        found = self._store.find(parse_reference(reference))
        if found is not None:
            self._remove(found)
