"""Whether the node emulator is the bottleneck: 1,000 nodes and 5,000 pods played by one process.

Printed beside the control plane's own CPU time in the same run: what a pod costs the emulator, as a share of what it
costs kube-apiserver, kube-controller-manager and kube-scheduler.
"""

import asyncio
import sys
import time
from pathlib import Path

import typer

from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.gomodules import ToolError
from e2e.cluster.processes import ProcessError
from e2e.emulator.child import EmulatorProcess
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.intents import DEPLOYMENTS, NAMESPACES, Json, Manifest

_NAMESPACE = "bench"
_DEADLINE_SECONDS = 600.0
_POLL_SECONDS = 0.5
_CLOCK_TICKS = 100
"""Of /proc/PID/stat on Linux (USER_HZ)."""
_OPTIONS = ControlPlaneOptions(
    node_lease_seconds=400,
    extra_flags={Component.KUBE_CONTROLLER_MANAGER: ["--node-monitor-grace-period=600s"]},
)
"""So that nodes stay Ready on a busy machine: what is measured is pods."""


def main(nodes: int = 1000, pods: int = 5000) -> None:
    """Start the pods of one Deployment on emulated nodes and print who spent how much."""
    try:
        asyncio.run(_measure(nodes, pods))
    except (ToolError, ProcessError, TimeoutError) as error:
        print(f"emulator: {str(error) or 'the pods were not ready in time'}", file=sys.stderr)
        raise typer.Exit(1) from None


async def _measure(nodes: int, pods: int) -> None:
    async with ControlPlane.start(_OPTIONS) as plane, Client(Connection.load(plane.kubeconfig)) as client:
        emulator = EmulatorProcess(plane)
        try:
            await emulator.start({"nodes": nodes}, _DEADLINE_SECONDS)
            others = (Component.KUBE_APISERVER, Component.KUBE_CONTROLLER_MANAGER, Component.KUBE_SCHEDULER)
            watched = (emulator.pid, *map(plane.pid, others))
            before = [cpu_seconds(pid) for pid in watched]
            await client.create(NAMESPACES, "", {"metadata": {"name": _NAMESPACE}})
            await client.create(DEPLOYMENTS, _NAMESPACE, _deployment(pods))
            began = time.monotonic()
            await _until_all_ready(client, emulator, pods)
            took = time.monotonic() - began
            used = [
                cpu_seconds(pid) - b for pid, b in zip((emulator.pid, *map(plane.pid, others)), before, strict=True)
            ]
        finally:
            await emulator.stop()
    control_plane = sum(used[1:])
    print(f"{nodes} nodes, {pods} pods: all Ready after {took:.0f} s")
    print(f"  emulator       {used[0]:6.1f} CPU s, {used[0] / took:.2f} cores")
    print(f"  control plane  {control_plane:6.1f} CPU s, {control_plane / took:.2f} cores")
    print(f"  emulator / control plane: {used[0] / control_plane:.2f}")


async def _until_all_ready(client: Client, emulator: EmulatorProcess, pods: int) -> None:
    deployments = Kinds().deployments
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while True:
            emulator.check()
            found = deployments.one(await client.get(DEPLOYMENTS, _NAMESPACE, "web")).value
            if found is not None and found.ready_replicas >= pods:
                return
            await asyncio.sleep(_POLL_SECONDS)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _deployment(pods: int) -> Manifest:
    labels: Json = {"app": "web"}
    container: Json = {"name": "web", "image": "registry.example/web:v1", "resources": {"requests": {"cpu": "10m"}}}
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


if __name__ == "__main__":
    typer.run(main)
