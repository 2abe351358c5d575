"""Requests to a container runtime over its unix socket: containerd, CRI-O, or Docker through cri-dockerd."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message

from prewarm.model.sockets import usual_sockets
from prewarm.runtime import cri_pb2 as cri
from prewarm.runtime.interface import RuntimeContainer, RuntimeImage, RuntimeUnavailable

_MESSAGE_BYTES = 16 * 2**20
"""Longest answer, as the kubelet allows (maxMsgSize in k8s.io/cri-client); a list of images may pass gRPC's 4 MiB."""
_ASK_SECONDS = 30.0
_REMOVE_SECONDS = 120.0
"""containerd removes the layers before it answers."""

Answer = TypeVar("Answer", bound=Message)


class CriRuntime:
    """A connection to a runtime that speaks CRI v1. A context manager.

    Raises (all requests):
        RuntimeUnavailable: if there is no answer, or an error.
    """

    def __init__(self, socket: Path) -> None:
        """Connect when first asked; gRPC takes no socket's path as it is if it is not absolute."""
        self._socket = socket
        self._channel = grpc.insecure_channel(
            f"unix://{socket.absolute()}",
            options=(
                # Servers in Go refuse the escaped path that would be sent otherwise.
                ("grpc.default_authority", "localhost"),
                ("grpc.enable_http_proxy", 0),
                ("grpc.enable_retries", 0),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def version(self) -> str:
        """Name and version of the runtime."""
        answer = self._ask("RuntimeService/Version", cri.VersionRequest(), cri.VersionResponse.FromString)
        return f"{answer.runtime_name} {answer.runtime_version}"

    def images(self) -> tuple[RuntimeImage, ...]:
        """All images."""
        answer = self._ask("ImageService/ListImages", cri.ListImagesRequest(), cri.ListImagesResponse.FromString)
        return tuple(_image(image) for image in answer.images)

    def image(self, reference: str) -> RuntimeImage | None:
        """The image of that name; None if there is none."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference))
        answer = self._ask("ImageService/ImageStatus", request, cri.ImageStatusResponse.FromString)
        return _image(answer.image) if answer.HasField("image") else None

    def containers(self) -> tuple[RuntimeContainer, ...]:
        """All containers, exited ones included."""
        answer = self._ask(
            "RuntimeService/ListContainers", cri.ListContainersRequest(), cri.ListContainersResponse.FromString
        )
        return tuple(
            RuntimeContainer(
                container.id,
                tuple(
                    name
                    for name in (
                        container.image_id,
                        container.image_ref,
                        container.image.image,
                        container.image.user_specified_image,
                    )
                    if name
                ),
            )
            for container in answer.containers
        )

    def mounted_images(self, container_id: str) -> tuple[str, ...]:
        """Images that a container mounts as volumes; none if it is gone meanwhile."""
        request = cri.ContainerStatusRequest(container_id=container_id)
        try:
            answer = self._call(
                "RuntimeService/ContainerStatus", request, cri.ContainerStatusResponse.FromString, _ASK_SECONDS
            )
        except grpc.RpcError as error:
            # cri-dockerd has no code for it, only the daemon's words.
            if _code(error) is grpc.StatusCode.NOT_FOUND or not self._has_container(container_id):
                return ()
            raise self._unavailable(error) from error
        names = [(mount.image.image, mount.image.image_ref) for mount in answer.status.mounts]
        return tuple(name for pair in names for name in pair if name)

    def _has_container(self, container_id: str) -> bool:
        return any(container.id == container_id for container in self.containers())

    def remove(self, reference: str) -> None:
        """Remove an image by name or id; one that is gone already is no error. Names may be left of it."""
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=reference))
        self._ask("ImageService/RemoveImage", request, cri.RemoveImageResponse.FromString, _REMOVE_SECONDS)

    def _ask(
        self, method: str, request: Message, decode: Callable[[bytes], Answer], seconds: float = _ASK_SECONDS
    ) -> Answer:
        try:
            return self._call(method, request, decode, seconds)
        except grpc.RpcError as error:
            raise self._unavailable(error) from error

    def _call(self, method: str, request: Message, decode: Callable[[bytes], Answer], seconds: float) -> Answer:
        call = self._channel.unary_unary(
            f"/runtime.v1.{method}", request_serializer=type(request).SerializeToString, response_deserializer=decode
        )
        answer: Answer = call(request, timeout=seconds)
        return answer

    def _unavailable(self, error: grpc.RpcError) -> RuntimeUnavailable:
        details = getattr(error, "details", None)
        words = " ".join(str(details() if callable(details) else error).split())
        return RuntimeUnavailable(f"{self._socket}: {_code(error).name}: {words}")


def find_socket(given: Path | None) -> Path:
    """The runtime's socket: the given one, else the first of the usual ones that exists.

    Raises:
        RuntimeUnavailable: if there is none.
    """
    candidates = tuple(map(Path, usual_sockets(""))) if given is None else (given,)
    for path in candidates:
        if path.is_socket():
            return path
    raise RuntimeUnavailable(f"no container runtime listens at {', '.join(map(str, candidates))}: no such socket")


def _image(image: cri.Image) -> RuntimeImage:
    return RuntimeImage(image.id, tuple(image.repo_tags), tuple(image.repo_digests), image.size, image.pinned)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    # What is raised is an RpcError and a Call at once, which the types do not say.
    code = getattr(error, "code", None)
    found = code() if callable(code) else None
    return found if isinstance(found, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
