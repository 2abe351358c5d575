"""Registries and what they hold: the side of a pull that the node does not control."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from hashlib import sha256

from msgspec import Struct

from prewarm.model.images import ImageReference, canonical, parse_reference

MANIFEST_AND_CONFIG_BYTES = 4096
"""Weight of an image beside its layers where nothing else is said."""


class Layer(Struct, frozen=True):
    """A layer; `size` is compressed, in bytes."""

    digest: str
    size: int


class RemoteImage(Struct, frozen=True):
    """What a reference leads to. `digest` is that of the manifest (or index)."""

    digest: str
    layers: tuple[Layer, ...] = ()
    other_bytes: int = MANIFEST_AND_CONFIG_BYTES
    matches_platform: bool = True
    """False for an index that lists no manifest for the node's architecture."""
    user: str = "0"
    """USER of the image config."""
    architectures: frozenset[str] | None = None
    """Those of an index's manifests, as nodes are labelled (amd64, arm64); None: every node's."""
    has_programs: bool = True
    """False for one that holds nothing to start, as `FROM scratch` with data alone: its containers bring their own."""

    @property
    def size(self) -> int:
        """What containerd reports as the image's size: config, manifest and compressed layers."""
        return self.other_bytes + sum(layer.size for layer in self.layers)


class Behaviour(StrEnum):
    """How a registry's host answers."""

    SERVES = "Serves"
    REFUSES = "Refuses"
    UNKNOWN_HOST = "UnknownHost"
    SILENT = "Silent"


class Registry(Struct, frozen=True):
    """One registry host."""

    host: str
    egress: float | None = None
    """Bytes a second for all nodes together; None is unlimited."""
    behaviour: Behaviour = Behaviour.SERVES
    endpoints: int = 1
    """Endpoints that the runtime tries in turn; each costs a silent registry's timeout."""
    accepts: frozenset[str] | None = None
    """Credentials that may pull; None lets everybody."""


class RegistryAnswer(StrEnum):
    """Outcome of resolving a reference."""

    FOUND = "Found"
    NOT_FOUND = "NotFound"
    NO_CREDENTIALS = "NoCredentials"
    WRONG_CREDENTIALS = "WrongCredentials"
    WRONG_PLATFORM = "WrongPlatform"
    REFUSED = "Refused"
    UNKNOWN_HOST = "UnknownHost"
    TIMED_OUT = "TimedOut"


Convention = Callable[[ImageReference], RemoteImage | None]
"""Says what a reference that nobody pushed leads to; None: nothing."""


class Registries:
    """All registries that nodes can reach. A host that nobody declared serves without limit."""

    def __init__(self, registries: Iterable[Registry] = (), convention: Convention | None = None) -> None:
        self._registries = {registry.host: registry for registry in registries}
        self._images: dict[str, RemoteImage] = {}
        self._by_digest: dict[tuple[str, str], RemoteImage] = {}
        self._convention = convention

    def push(self, reference: str, image: RemoteImage) -> None:
        """Make a reference (and its digest) lead to an image; a tag that existed moves."""
        name = parse_reference(reference)
        self._images[canonical(reference)] = image
        self._by_digest[name.name, image.digest] = image

    def remove(self, reference: str) -> None:
        """Make a reference lead nowhere; what it led to can still be pulled by digest."""
        self._images.pop(canonical(reference), None)

    def declare(self, registry: Registry) -> None:
        """Add a registry, or change how one behaves."""
        self._registries[registry.host] = registry

    def registry(self, host: str) -> Registry:
        """The registry of a host."""
        return self._registries.get(host) or Registry(host)

    def resolve(
        self, reference: ImageReference, credentials: str | None, architecture: str = "amd64"
    ) -> tuple[RegistryAnswer, RemoteImage | None]:
        """What a manifest request gives; `credentials` is None for an anonymous one."""
        registry = self.registry(reference.registry)
        match registry.behaviour:
            case Behaviour.REFUSES:
                return RegistryAnswer.REFUSED, None
            case Behaviour.UNKNOWN_HOST:
                return RegistryAnswer.UNKNOWN_HOST, None
            case Behaviour.SILENT:
                return RegistryAnswer.TIMED_OUT, None
            case Behaviour.SERVES:
                pass
        if registry.accepts is not None and credentials not in registry.accepts:
            return (RegistryAnswer.NO_CREDENTIALS if credentials is None else RegistryAnswer.WRONG_CREDENTIALS), None
        image = self._find(reference)
        if image is None:
            return RegistryAnswer.NOT_FOUND, None
        listed = image.matches_platform and (image.architectures is None or architecture in image.architectures)
        return (RegistryAnswer.FOUND if listed else RegistryAnswer.WRONG_PLATFORM), image

    def _find(self, reference: ImageReference) -> RemoteImage | None:
        if reference.digest:
            image = self._by_digest.get((reference.name, reference.digest))
            if image is not None:
                return image
        image = self._images.get(str(reference))
        if image is None and self._convention is not None:
            image = self._convention(reference)
            if image is not None:
                self._images[str(reference)] = image
                self._by_digest[reference.name, image.digest] = image
        return image


def synthetic_image(
    name: str, layer_sizes: Iterable[int], *, shared: Iterable[Layer] = (), other_bytes: int = MANIFEST_AND_CONFIG_BYTES
) -> RemoteImage:
    """An image whose digests follow from its name: `shared` layers first, then its own of the given sizes."""
    own = tuple(Layer(_digest(f"{name}#{index}"), size) for index, size in enumerate(layer_sizes))
    return RemoteImage(_digest(name), (*shared, *own), other_bytes)


def _digest(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"
