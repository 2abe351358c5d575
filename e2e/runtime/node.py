"""containerd in a folder of its own, with a registry beside it; neither systemd, CNI nor runc is needed."""

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

from e2e.cluster.binaries import ContainerdBinaries
from e2e.cluster.processes import GuardedProcess, free_port, wait_until
from prewarm.runtime import cri_pb2 as cri
from prewarm.runtime.client import CriRuntime
from prewarm.runtime.interface import RuntimeUnavailable

_CONFIG = """\
version = 3
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  use_local_image_pull = true
"""
_START_SECONDS = 60
_METADATA = "io.cri-containerd.container.metadata"
_METADATA_TYPE = "github.com/containerd/cri/pkg/store/container/Metadata"
"""How containerd's CRI plugin keeps a container (internal/cri/store/container/metadata.go); read when it starts."""


class RuntimeNode:
    """A running containerd with images from a registry."""

    def __init__(self, binaries: ContainerdBinaries, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self.socket = folder / "containerd.sock"
        self.registry = f"localhost:{free_port()}"
        self._containerd: GuardedProcess | None = None

    async def start(self) -> None:
        """Start containerd and wait until its CRI answers."""
        config = self._folder / "config.toml"
        config.write_text(_CONFIG.format(folder=self._folder))
        program = self._binaries.containerd
        process = GuardedProcess.start("containerd", [program, "--config", config], self._folder / "containerd.log")
        self._containerd = process

        def answers() -> bool:
            process.check()
            with suppress(RuntimeUnavailable), CriRuntime(self.socket) as runtime:
                return bool(runtime.version())
            return False

        await wait_until(answers, timeout_seconds=_START_SECONDS)

    async def stop(self) -> None:
        """Stop containerd."""
        if self._containerd is not None:
            await self._containerd.stop(grace_seconds=10)

    async def run(self, *command: str | Path) -> None:
        """Run a program to its end.

        Raises:
            TimeoutError: it took more than a minute.
        """
        process = GuardedProcess.start(Path(command[0]).name, command, self._folder / "commands.log")
        try:
            await wait_until(lambda: not process.running, timeout_seconds=60)
        finally:
            process.kill()
        if process.popen.returncode:
            process.check()

    async def push(self, name: str, content: str, *tags: str) -> str:
        """Push a tiny image under a tag and further ones; its name with the first tag."""
        layer = self._folder / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            entry = tarfile.TarInfo("content")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
        reference = f"{self.registry}/{name}"
        await self.run(self._binaries.crane, "append", "--insecure", "-f", layer, "-t", reference)
        for tag in tags:
            await self.run(self._binaries.crane, "tag", "--insecure", reference, tag)
        return reference

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"unix://{self.socket}", options=[("grpc.default_authority", "localhost")])

    def pull(self, reference: str) -> None:
        """Pull as the kubelet does."""
        with grpc.insecure_channel(
            f"unix://{self.socket}", options=[("grpc.default_authority", "localhost")]
        ) as channel:
            # PullImageRequest begins with the same field as ImageStatusRequest.
            call = channel.unary_unary(
                "/runtime.v1.ImageService/PullImage",
                request_serializer=cri.ImageStatusRequest.SerializeToString,
                response_deserializer=bytes,
            )
            call(cri.ImageStatusRequest(image=cri.ImageSpec(image=reference)), timeout=60)

    async def pin(self, reference: str) -> None:
        """Pin an image, as containerd pins its sandbox image."""
        label = "io.cri-containerd.pinned=pinned"
        await self.run(self._binaries.ctr, "-a", self.socket, "-n", "k8s.io", "images", "label", reference, label)

    async def use(self, reference: str) -> None:
        """Keep a container of the image, not running; the CRI plugin reads it when containerd starts again."""
        with CriRuntime(self.socket) as runtime:
            image = runtime.image(reference)
        assert image is not None
        metadata = (
            f'{{"Version":"v1","Metadata":{{"ID":"used","Name":"used_1","SandboxID":"none","ImageRef":"{image.id}",'
            f'"Config":{{"metadata":{{"name":"used"}},"image":{{"image":"{reference}"}}}}}}}}'
        )
        request = _create_container_request(image=reference, metadata=metadata)
        with grpc.insecure_channel(
            f"unix://{self.socket}", options=[("grpc.default_authority", "localhost")]
        ) as channel:
            call = channel.unary_unary(
                "/containerd.services.containers.v1.Containers/Create",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            call(request, timeout=30, metadata=(("containerd-namespace", "k8s.io"),))
        await self.stop()
        # Where the plugin keeps the container's state.
        (self._folder / "root/io.containerd.grpc.v1.cri/containers/used").mkdir(parents=True)
        await self.start()


def _create_container_request(*, image: str, metadata: str) -> bytes:
    """CreateContainerRequest of containerd (api/services/containers/v1/containers.proto), as far as it serves."""
    file = descriptor_pb2.FileDescriptorProto(name="container.proto", package="e2e", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    container = file.message_type.add(name="Container")
    field = descriptor_pb2.FieldDescriptorProto
    for name, number, kind in (("labels", 2, field.TYPE_STRING), ("extensions", 10, field.TYPE_MESSAGE)):
        entry = f"{name.capitalize()}Entry"
        pair = container.nested_type.add(name=entry)
        pair.options.map_entry = True
        pair.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
        value = pair.field.add(name="value", number=2, type=kind, label=field.LABEL_OPTIONAL)
        if kind == field.TYPE_MESSAGE:
            value.type_name = ".google.protobuf.Any"
        container.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=f".e2e.Container.{entry}",
            label=field.LABEL_REPEATED,
        )
    for name, number in (("id", 1), ("image", 3)):
        container.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    runtime = container.nested_type.add(name="Runtime")
    runtime.field.add(name="name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    container.field.add(
        name="runtime",
        number=4,
        type=field.TYPE_MESSAGE,
        type_name=".e2e.Container.Runtime",
        label=field.LABEL_OPTIONAL,
    )
    container.field.add(
        name="spec", number=5, type=field.TYPE_MESSAGE, type_name=".google.protobuf.Any", label=field.LABEL_OPTIONAL
    )
    request = file.message_type.add(name="Request")
    request.field.add(
        name="container", number=1, type=field.TYPE_MESSAGE, type_name=".e2e.Container", label=field.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    known = descriptor_pb2.FileDescriptorProto()
    any_pb2.DESCRIPTOR.CopyToProto(known)
    pool.Add(known)
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("e2e.Request"))()
    made.container.id, made.container.image = "used", image  # type: ignore[attr-defined]
    made.container.runtime.name = "io.containerd.runc.v2"  # type: ignore[attr-defined]
    made.container.spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec"  # type: ignore[attr-defined]
    made.container.spec.value = b"{}"  # type: ignore[attr-defined]
    made.container.labels["io.cri-containerd.kind"] = "container"  # type: ignore[attr-defined]
    kept = made.container.extensions[_METADATA]  # type: ignore[attr-defined]
    kept.type_url, kept.value = _METADATA_TYPE, metadata.encode()
    return made.SerializeToString()


@asynccontextmanager
async def runtime_node(binaries: ContainerdBinaries, folder: Path) -> AsyncIterator[RuntimeNode]:
    """A running containerd and registry; both end with the context."""
    node = RuntimeNode(binaries, folder)
    port = node.registry.rpartition(":")[2]
    registry = GuardedProcess.start("registry", [binaries.registry, "--port", port], folder / "registry.log")
    try:
        await node.start()
        yield node
    finally:
        await node.stop()
        registry.kill()
