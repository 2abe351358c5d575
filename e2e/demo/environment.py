"""The demo's cluster: control plane, emulated nodes, prewarm with its own rights, its controller as a child."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.processes import GuardedProcess, ProcessError, free_port, log_tail
from e2e.demo.scenario import REPOSITORY, Scenario
from e2e.emulator.child import EmulatorProcess, PullRecord
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ApiError
from prewarm.model.intents import DEPLOYMENTS, Manifest, Resource

_PROJECT = Path(__file__).parents[2]
SYSTEM_NAMESPACE = "prewarm-system"
REGISTRY = REPOSITORY.partition("/")[0]
_SERVICE_ACCOUNT = f"system:serviceaccount:{SYSTEM_NAMESPACE}:prewarm"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.1


class Environment:
    """What the rollouts run in.

    Attributes:
        plane: the control plane.
        client: an administrator's.
        emulator: the nodes.
        metrics_port: where the controller serves /metrics.
    """

    def __init__(self, plane: ControlPlane, client: Client) -> None:
        self.plane = plane
        self.client = client
        self.emulator = EmulatorProcess(plane)
        self.metrics_port = free_port()
        self._controller: GuardedProcess | None = None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{SYSTEM_NAMESPACE}")
        self._controller_kubeconfig = plane.user_kubeconfig(_SERVICE_ACCOUNT, groups)

    @property
    def controller_log(self) -> Path:
        """The controller's log, one JSON object a line."""
        return self.plane.logs / "prewarm.log"

    def pulls(self) -> list[PullRecord]:
        """All pulls so far, by the emulated kubelets' own account."""
        return self.emulator.pulls()

    async def install(self) -> None:
        """Apply the plain-YAML install but for its Deployment: the controller runs beside the cluster here."""
        documents = yaml.safe_load_all((_PROJECT / "deploy" / "prewarm.yaml").read_text(encoding="utf-8"))
        path = self.plane.directory / "install.yaml"
        others = [document for document in documents if document and document["kind"] != DEPLOYMENTS.kind]
        path.write_text(yaml.safe_dump_all(others), encoding="utf-8")
        kinds = str(_PROJECT / "crds")
        await self.kubectl("apply", "--server-side", "--filename", kinds, "--filename", str(path))
        await self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", kinds)

    async def start_controller(self) -> None:
        """Start `prewarm run` with the rights that the install gives it, and wait until it is ready.

        Raises:
            ProcessError: it ended, or was not ready in time.
        """
        environment = {
            **os.environ,
            "PREWARM_KUBECONFIG": str(self._controller_kubeconfig),
            "PREWARM_NAMESPACE": SYSTEM_NAMESPACE,
            "PREWARM_HTTP_HOST": "127.0.0.1",
            "PREWARM_HTTP_PORT": str(self.metrics_port),
            "PREWARM_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-m", "prewarm", "run"]
        self._controller = GuardedProcess.start("prewarm", command, self.controller_log, environment)
        try:
            async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
                while not await self._ready(session):
                    self._controller.check()
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            tail = log_tail(self.controller_log)
            raise ProcessError(
                f"prewarm was not ready after {_START_SECONDS:.0f} s; the end of its log:\n{tail}"
            ) from None

    def kill_controller(self) -> None:
        """End it as kill -9 does, without any chance to tidy up."""
        if self._controller is not None:
            self._controller.kill()
            self._controller = None

    async def stop_controller(self) -> None:
        """Stop it in order, if it runs."""
        if self._controller is not None:
            await self._controller.stop(grace_seconds=15)
            self._controller = None

    def check(self) -> None:
        """Do nothing while everything runs.

        Raises:
            ProcessError: the controller or a component ended by itself.
        """
        self.plane.check()
        self.emulator.check()
        if self._controller is not None:
            self._controller.check()

    async def prewarm(self, *arguments: str) -> str:
        """Run a command of the command line as an administrator, and give what it prints.

        Raises:
            ProcessError: it failed; the message holds what it said.
        """
        return await _run([sys.executable, "-m", "prewarm", *arguments], {"KUBECONFIG": str(self.plane.kubeconfig)})

    async def kubectl(self, *arguments: str) -> str:
        """Run kubectl as an administrator, and give what it prints.

        Raises:
            ProcessError: it failed; the message holds what it said.
        """
        return await _run([str(self.plane.binaries.kubectl), "--kubeconfig", str(self.plane.kubeconfig), *arguments])

    async def node_names(self) -> list[str]:
        """All nodes, by name."""
        output = await self.kubectl("get", "nodes", "--output", "name")
        return sorted(line.removeprefix("node/") for line in output.split())

    async def apply(self, resource: Resource, manifest: Manifest) -> None:
        """Write an object the way `kubectl apply --server-side` does."""
        metadata = manifest["metadata"]
        if not isinstance(metadata, dict):
            raise TypeError("a manifest's metadata is a mapping")
        await self.client.apply(resource, str(metadata.get("namespace", "")), str(metadata["name"]), manifest)

    async def exists(self, resource: Resource, namespace: str, name: str) -> bool:
        """Whether an object is there."""
        try:
            await self.client.get(resource, namespace, name)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.metrics_port}/readyz") as answer:
                return answer.ok
        except aiohttp.ClientConnectionError:
            return False


@asynccontextmanager
async def running(scenario: Scenario) -> AsyncIterator[Environment]:
    """Control plane and emulated nodes for the length of the block; nothing is left running afterwards."""
    async with ControlPlane.start() as plane:
        connection = Connection.load(plane.kubeconfig)
        async with Client(connection, field_manager="demo") as client:
            environment = Environment(plane, client)
            try:
                await environment.emulator.start(_emulated(scenario), _START_SECONDS)
                yield environment
            finally:
                await environment.stop_controller()
                await environment.emulator.stop()


def _emulated(scenario: Scenario) -> dict[str, object]:
    """Options of the emulator."""
    return {
        "nodes": scenario.nodes,
        "zones": scenario.zones,
        "seed": scenario.seed,
        "bandwidth": scenario.node_bytes_per_second,
        "unpack-rate": scenario.unpack_bytes_per_second,
        "image": f"{REPOSITORY}={scenario.image_bytes}",
        "egress": f"{REGISTRY}={scenario.registry_bytes_per_second}",
    }


async def _run(command: list[str], variables: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | (variables or {}),
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    if process.returncode:
        words = errors.decode(errors="replace").strip() or output.decode(errors="replace").strip()
        raise ProcessError(f"{' '.join(command[-6:])} ended with exit code {process.returncode}: {words}")
    return output.decode()
