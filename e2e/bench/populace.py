"""A populated cluster for benchmarks: nodes, and pods that are bound and Running from the start, created quickly."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from e2e.emulator.nodes import NodePlan, manifest
from e2e.emulator.writer import KubeletClient
from prewarm.cluster.errors import ApiError
from prewarm.model.intents import NODES, PODS, Manifest, Resource

IN_FLIGHT = 48
IMAGE = "registry.example/background:v1"
_CPU_MILLI = (50, 100, 200, 400, 800)
_MEMORY_MIB = (64, 128, 256, 512, 1024)

T = TypeVar("T")


async def populate(client: KubeletClient, namespace: str, plans: Iterable[NodePlan], pods: int) -> None:
    """Create nodes, and pods spread over them in turn; their sizes vary by a fixed rule."""
    profiles = [profile for plan in plans for profile in plan.profiles()]
    await at_once(partial(create, client, NODES, "", manifest(profile)) for profile in profiles)
    names = [profile.name for profile in profiles]
    await at_once(
        partial(_running_pod, client, namespace, number, names[number % len(names)]) for number in range(pods)
    )


async def _running_pod(client: KubeletClient, namespace: str, number: int, node: str) -> None:
    name = f"background-{number}"
    size = number // 7
    requests = {
        "cpu": f"{_CPU_MILLI[size % len(_CPU_MILLI)]}m",
        "memory": f"{_MEMORY_MIB[(size // 5) % len(_MEMORY_MIB)]}Mi",
    }
    container: Manifest = {"name": "app", "image": IMAGE, "resources": {"requests": requests}}
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "background"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    await create(client, PODS, namespace, pod)
    await client.strategic_patch(PODS, namespace, name, {"status": running_status(("app", IMAGE))}, "status")


async def create(client: KubeletClient, resource: Resource, namespace: str, manifest: Manifest) -> None:
    """Create an object in a control plane that nobody else writes to.

    A request is sent again where its answer was lost, which a busy API server may have granted.
    """
    try:
        await client.create(resource, namespace, manifest)
    except ApiError as error:
        if error.code != HTTPStatus.CONFLICT or error.reason != "AlreadyExists":
            raise


def running_status(*containers: tuple[str, str]) -> Manifest:
    """Status of a pod whose containers, given by name and image, all run."""
    now = timestamp()
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {
                "name": name,
                "image": image,
                "imageID": f"{image.rpartition(':')[0]}@sha256:{'0' * 64}",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for name, image in containers
        ],
    }


def timestamp() -> str:
    """Now, as the API writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def at_once(jobs: Iterable[Callable[[], Awaitable[T]]], limit: int = IN_FLIGHT) -> None:
    """Run all jobs, so many at a time."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as group:
        for number in range(limit):
            group.create_task(worker(), name=f"populate-{number}")
