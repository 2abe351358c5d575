"""Container runtimes that answer CRI over a Unix socket as CRI-O and cri-dockerd do, by their public sources.

What they differ in is what is here: which names they know an image by, what they call a container's image, what
removing an image by name, digest or id does, and in which words they refuse.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import grpc
from google.protobuf.message import Message
from msgspec import Struct, field

from prewarm.model.images import canonical, parse_reference
from prewarm.runtime import cri_pb2 as cri


class Stored(Struct):
    """An image in a runtime's store."""

    number: str
    """Sixty-four hexadecimal digits: of its config, which CRI-O and Docker take for the id."""
    manifest: str
    """The same of its manifest, by which registries know it."""
    names: list[str] = field(default_factory=list)
    """As the runtime keeps them: with a tag or, if pulled so, with a digest."""
    pinned: bool = False


class Held(Struct):
    """A container, and what it uses."""

    id: str
    image: Stored
    asked: str
    """The image as the pod spells it."""
    mounts: tuple[Stored, ...] = ()


class Refused(Exception):  # noqa: N818 - the runtime's answer
    """An error that a runtime answers with."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


class RuntimeModel(Protocol):
    """What a server asks of a runtime; every method may raise `Refused`."""

    images: list[Stored]
    containers: list[Held]

    def image(self, reference: str) -> cri.Image | None:
        """ImageStatus."""

    def remove(self, reference: str) -> None:
        """RemoveImage."""

    def container(self, held: Held) -> cri.Container:
        """An entry of ListContainers."""

    def status(self, container_id: str) -> cri.ContainerStatus:
        """ContainerStatus."""


class Crio:
    """CRI-O: server/image_status.go, image_remove.go, container_status.go and internal/storage/image.go."""

    def __init__(self, *, tells_mounts: bool = True) -> None:
        """`tells_mounts`: whether a container's status names the images that it mounts."""
        self.images: list[Stored] = []
        self.containers: list[Held] = []
        self._tells_mounts = tells_mounts

    def image(self, reference: str) -> cri.Image | None:
        """By id without its algorithm, by name, or by a digest in a repository that it is known by."""
        found = self._find(reference)
        if found is None:
            return None
        tags = [name for name in found.names if "@" not in name]
        return cri.Image(id=found.number, repo_tags=tags, repo_digests=self._digests(found), pinned=found.pinned)

    def remove(self, reference: str) -> None:
        """By id the image; by name that name, and the image with the last one."""
        found = self._find(reference)
        if found is None:
            return
        if reference == found.number:
            if any(held.image is found for held in self.containers):
                raise Refused(grpc.StatusCode.UNKNOWN, f"delete image: image used by {self.containers[0].id}")
            self.images.remove(found)
            return
        for held in self.containers:
            if found in held.mounts:
                words = f'image "{reference}" is mounted as volume to container with ID: {held.id}'
                raise Refused(grpc.StatusCode.UNKNOWN, words)
        if any(name != reference for name in found.names):
            # A digest that follows from a tag is no name: nothing happens.
            found.names = [name for name in found.names if name != reference]
        else:
            self.images.remove(found)

    def container(self, held: Held) -> cri.Container:
        """With the id that the image has, and the digest that it was found by."""
        return cri.Container(
            id=held.id,
            image=cri.ImageSpec(image=held.asked, user_specified_image=held.asked),
            image_ref=next(iter(self._digests(held.image)), held.image.number),
            image_id=held.image.number,
        )

    def status(self, container_id: str) -> cri.ContainerStatus:
        """Mounts of images, by the names that pods give; versions before they could be told say nothing of them."""
        held = next((held for held in self.containers if held.id == container_id), None)
        if held is None:
            words = f'could not find container "{container_id}": container with ID starting with it not found'
            raise Refused(grpc.StatusCode.NOT_FOUND, words)
        mounts = [cri.Mount(image=cri.ImageSpec(image=image.names[0])) for image in held.mounts]
        return cri.ContainerStatus(mounts=mounts if self._tells_mounts else [])

    @staticmethod
    def _digests(image: Stored) -> list[str]:
        return sorted({f"{parse_reference(name).name}@sha256:{image.manifest}" for name in image.names})

    def _find(self, reference: str) -> Stored | None:
        for image in self.images:
            if reference in (image.number, *image.names, *self._digests(image)):
                return image
        return None


class Dockerd:
    """Docker behind cri-dockerd: core/image.go, container_status.go, libdocker/helpers.go; names are familiar ones."""

    def __init__(self) -> None:
        self.images: list[Stored] = []
        self.containers: list[Held] = []

    def image(self, reference: str) -> cri.Image | None:
        """By id with its algorithm, or by any spelling of a name."""
        found = self._find(reference)
        if found is None:
            return None
        tags = [name for name in found.names if "@" not in name]
        digests = [name for name in found.names if "@" in name]
        return cri.Image(id=_id(found), repo_tags=tags, repo_digests=digests, pinned=found.pinned)

    def remove(self, reference: str) -> None:
        """By id alone: then with every tag and digest. A name is taken for an image that is not there."""
        found = next((image for image in self.images if reference == _id(image)), None)
        if found is None:
            return
        user = next((held for held in self.containers if held.image is found), None)
        if user is not None:
            words = (
                f'Error response from daemon: conflict: unable to remove repository reference "{found.names[0]}" '
                f"(must force) - container {user.id} is using its referenced image {found.number[:12]}"
            )
            raise Refused(grpc.StatusCode.UNKNOWN, words)
        self.images.remove(found)

    def container(self, held: Held) -> cri.Container:
        """The image as Docker names it, and its id."""
        return cri.Container(id=held.id, image=cri.ImageSpec(image=held.asked), image_ref=_id(held.image))

    def status(self, container_id: str) -> cri.ContainerStatus:
        """No mounts of images; an unknown container is an error without a code of its own."""
        if not any(held.id == container_id for held in self.containers):
            words = f"Error response from daemon: No such container: {container_id}"
            raise Refused(grpc.StatusCode.UNKNOWN, words)
        return cri.ContainerStatus()

    def _find(self, reference: str) -> Stored | None:
        for image in self.images:
            if reference == _id(image) or canonical(reference) in map(canonical, image.names):
                return image
        return None


def _id(image: Stored) -> str:
    return f"sha256:{image.number}"


@contextmanager
def serving(model: RuntimeModel, socket: Path) -> Iterator[Path]:
    """Serve a runtime at a socket for the length of the block."""

    def answered(answer: Callable[[Message], Message]) -> Callable[[Message, grpc.ServicerContext], Message]:
        def answering(request: Message, context: grpc.ServicerContext) -> Message:
            try:
                return answer(request)
            except Refused as refused:
                context.abort(refused.code, refused.words)
                raise

        return answering

    def image_status(request: Message) -> Message:
        assert isinstance(request, cri.ImageStatusRequest)
        return cri.ImageStatusResponse(image=model.image(request.image.image))

    def remove_image(request: Message) -> Message:
        assert isinstance(request, cri.RemoveImageRequest)
        model.remove(request.image.image)
        return cri.RemoveImageResponse()

    def list_containers(_request: Message) -> Message:
        return cri.ListContainersResponse(containers=[model.container(held) for held in model.containers])

    def container_status(request: Message) -> Message:
        assert isinstance(request, cri.ContainerStatusRequest)
        return cri.ContainerStatusResponse(status=model.status(request.container_id))

    methods: dict[str, dict[str, tuple[type[Message], Callable[[Message], Message]]]] = {
        "runtime.v1.ImageService": {
            "ImageStatus": (cri.ImageStatusRequest, image_status),
            "RemoveImage": (cri.RemoveImageRequest, remove_image),
        },
        "runtime.v1.RuntimeService": {
            "ListContainers": (cri.ListContainersRequest, list_containers),
            "ContainerStatus": (cri.ContainerStatusRequest, container_status),
        },
    }
    server = grpc.server(ThreadPoolExecutor(1))
    for service, calls in methods.items():
        handlers: dict[str, grpc.RpcMethodHandler[Message, Message]] = {
            name: grpc.unary_unary_rpc_method_handler(
                answered(answer),
                request_deserializer=kind.FromString,
                response_serializer=lambda m: m.SerializeToString(),
            )
            for name, (kind, answer) in calls.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        yield socket
    finally:
        server.stop(grace=None).wait()
