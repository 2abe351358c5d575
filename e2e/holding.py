"""What a policy holds for rollbacks, as the NodeImages and the cluster show it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from e2e.lane import REPOSITORY, Lane, eventually

CACHES = "imagecaches.prewarm.dev"


@asynccontextmanager
async def holding_policy(lane: Lane, seconds: str = "10m") -> AsyncIterator[dict[str, str]]:
    """A policy of the lane's own that holds images; gives the annotations of a workload under it."""
    manifest = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": lane.namespace},
        "spec": {"hold": seconds},
    }
    await lane.apply(manifest)
    try:
        yield {"prewarm.dev/enabled": "true", "prewarm.dev/policy": lane.namespace}
    finally:
        await lane.kubectl("delete", "prewarmpolicies.prewarm.dev", lane.namespace)


async def held(lane: Lane, tag: str) -> set[str]:
    """Nodes of the lane whose record says that an image of REPOSITORY is held."""
    records: Any = json.loads(await lane.kubectl("get", "nodeimages.prewarm.dev", "-o", "json"))
    return {
        record["metadata"]["name"]
        for record in records["items"]
        for image in record.get("status", {}).get("images", [])
        if image["image"] == f"{REPOSITORY}:{tag}" and "heldUntil" in image
    } & set(lane.emulator.fleet.nodes)


async def until_held(lane: Lane, tag: str, nodes: set[str]) -> None:
    """Return once an image is held on these nodes and on no other."""

    async def so() -> bool:
        return await held(lane, tag) == nodes

    await eventually(so)


async def until_nothing_is_left(lane: Lane) -> None:
    """Return once no ImageCache and no puller pod is there: what was held for a rollback is let go."""

    async def so() -> bool:
        return not await lane.names("pods", "-l", "prewarm.dev/puller=true") and not await lane.names(CACHES)

    await eventually(so)


async def nodes_of_pods(lane: Lane, app: str) -> set[str]:
    """Where the pods of an application are."""
    found: Mapping[str, Any] = await lane.get("pods", "-l", f"app={app}")
    return {pod["spec"]["nodeName"] for pod in found["items"]}
