"""The real controller of Argo Rollouts on a cluster, for the length of a block, and what people do to a Rollout."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from e2e.cluster.binaries import ArgoRollouts
from e2e.cluster.processes import GuardedProcess, free_port
from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, eventually
from e2e.manifests import FIELD_MANAGER

NAME = "shop"
"""Of every Rollout."""
_STOP_SECONDS = 5.0
_ROLLOUT = f"rollouts.argoproj.io/{NAME}"


@asynccontextmanager
async def argo_controller(cluster: Cluster, programs: ArgoRollouts, namespace: str, log: Path) -> AsyncIterator[None]:
    """Install the CRDs and run the controller for one namespace.

    Raises:
        ProcessError: it ended meanwhile; the message holds the end of its log.
    """
    files = [argument for path in programs.definitions for argument in ("-f", str(path))]
    await asyncio.to_thread(cluster.kubectl, "apply", "--server-side", FIELD_MANAGER, *files)
    await asyncio.to_thread(cluster.kubectl, "wait", "--for=condition=Established", "--timeout=60s", *files)
    command: list[str | Path] = [
        programs.controller,
        f"--kubeconfig={cluster.kubeconfig}",
        f"--namespace={namespace}",
        "--namespaced",
        "--leader-elect=false",
        f"--metricsPort={free_port()}",
        f"--healthzPort={free_port()}",
        "--loglevel=warn",
    ]
    process = GuardedProcess.start("rollouts-controller", command, log)
    try:
        yield
        process.check()
    finally:
        await process.stop(grace_seconds=_STOP_SECONDS)


async def reach(lane: Lane, phase: str, *, updated: int | None = None) -> None:
    """Return once the Rollout is in a phase, and so many pods are of the new revision and ready, and no others."""

    async def there() -> bool:
        status = (await lane.get(_ROLLOUT)).get("status", {})
        assert isinstance(status, dict)
        found = status.get("phase") == phase
        return found and (updated is None or status.get("updatedReplicas") == status.get("readyReplicas") == updated)

    await eventually(there, 90)


async def change(lane: Lane, tag: str) -> None:
    """Another image."""
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{REPOSITORY}:{tag}"}]
    await lane.kubectl("patch", _ROLLOUT, "--type=json", "-p", json.dumps(patch))


async def set_status(lane: Lane, **fields: object) -> None:
    """As `kubectl argo rollouts` does."""
    body = json.dumps({"status": fields})
    await lane.kubectl("patch", _ROLLOUT, "--subresource=status", "--type=merge", "-p", body)
