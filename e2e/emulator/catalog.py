"""What emulated registries hold: images of declared sizes, whatever their tag.

Every tag of a repository exists and is an image of its own. Tags of one repository share their base layers, so a new
tag costs the part that changed; a tag that begins with `missing` does not exist.
"""

import re
from collections.abc import Mapping
from hashlib import sha256

from prewarm.model.images import ImageReference
from prewarm.model.quantities import whole
from prewarm.simulation.registry import Layer, RemoteImage, synthetic_image

_MISSING = re.compile(r"missing")


class Catalog:
    """Says what a reference leads to; a `Convention` of `Registries`."""

    def __init__(
        self,
        sizes: Mapping[str, int] | None = None,
        *,
        default_size: int = 50_000_000,
        shared_percent: int = 0,
        layers: int = 4,
    ) -> None:
        """Say what there is.

        Args:
            sizes: compressed bytes by repository (`registry.example/app`).
            default_size: of all others.
            shared_percent: how much of each is base.
            layers: into how many the rest is divided; the more, the more a pull costs to emulate.
        """
        if not 0 <= shared_percent <= 100:
            raise ValueError(f"shared part of an image: {shared_percent} % is not between 0 and 100")
        if layers < 1:
            raise ValueError(f"{layers} layers: an image has one at least")
        self._layers = layers
        self._sizes = dict(sizes or {})
        self._default_size = default_size
        self._shared_percent = shared_percent

    def declare(self, repository: str, size: int) -> None:
        """Set the size of a repository's images."""
        self._sizes[repository] = size

    def __call__(self, reference: ImageReference) -> RemoteImage | None:
        """The image of a tag; a digest alone names nothing that was not pulled by tag before."""
        if not reference.tag or _MISSING.match(reference.tag):
            return None
        size = self._sizes.get(reference.name, self._default_size)
        base = size * self._shared_percent // 100
        shared = _layers(f"{reference.name}#base", base) if base else ()
        own = size - base
        each = own // self._layers
        sizes = [each] * (self._layers - 1) + [own - each * (self._layers - 1)]
        return synthetic_image(str(reference), [part for part in sizes if part], shared=shared)


def _layers(name: str, size: int) -> tuple[Layer, ...]:
    return (Layer(f"sha256:{sha256(name.encode()).hexdigest()}", size),)


def parse_declaration(text: str) -> tuple[str, int]:
    """`registry.example/app=1G` as repository and bytes.

    Raises:
        ValueError: if it is not such a pair.
    """
    repository, separator, size = text.rpartition("=")
    if not separator or not repository:
        raise ValueError(f"{text!r} is no image declaration such as registry.example/app=1G")
    return repository, whole(size)
