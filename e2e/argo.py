"""The real controller of Argo Rollouts on a cluster, for the length of a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from e2e.cluster.binaries import ArgoRollouts
from e2e.cluster.processes import GuardedProcess, free_port
from e2e.cluster.selection import Cluster
from e2e.manifests import FIELD_MANAGER

_STOP_SECONDS = 5.0


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
