"""Jobs of the chart, run in the kubelet's place: their very command line, with the rights of their own account."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.selection import Cluster
from e2e.lane import eventually
from e2e.release import RELEASE_NAMESPACE


@dataclass
class Command:
    """A command of prewarm that runs."""

    process: Process

    async def printed(self) -> str:
        """What it printed, once it has ended well."""
        output, errors = await self.process.communicate()
        assert self.process.returncode == 0, errors.decode()
        return output.decode()


@asynccontextmanager
async def running(kubeconfig: Path, *arguments: str) -> AsyncIterator[Command]:
    """A command of prewarm for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prewarm", *arguments, "--kubeconfig", str(kubeconfig), stdout=PIPE, stderr=PIPE
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def account(cluster: Cluster, name: str) -> Path:
    """A kubeconfig with the rights of an account in the release's namespace."""
    assert cluster.control_plane is not None
    return await cluster.control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, name)


@asynccontextmanager
async def played(cluster: Cluster, job: str) -> AsyncIterator[Command]:
    """The command of a Job's pod, once there is one; after the block the pod has succeeded if the command has."""
    name = ""

    async def there() -> bool:
        nonlocal name
        name = await _kubectl(cluster, "get", "pods", "-l", f"batch.kubernetes.io/job-name={job}", "-o", "name")
        return bool(name)

    await eventually(there)
    spec = json.loads(await _kubectl(cluster, "get", name.strip(), "-o", "json"))["spec"]
    (container,) = spec["containers"]
    kubeconfig = await account(cluster, spec["serviceAccountName"])
    async with running(kubeconfig, *container["args"]) as command:
        yield command
        code = await command.process.wait()
    phase = json.dumps({"status": {"phase": "Succeeded" if code == 0 else "Failed"}})
    await _kubectl(cluster, "patch", name.strip(), "--subresource=status", "--type=merge", "-p", phase)


async def _kubectl(cluster: Cluster, *arguments: str) -> str:
    return await asyncio.to_thread(cluster.kubectl, "-n", RELEASE_NAMESPACE, *arguments)
