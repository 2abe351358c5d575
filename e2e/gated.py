"""Workloads that ask for the gate, in a lane: rolled out, changed, held, opened."""

import asyncio
from collections.abc import Mapping
from typing import Any

from e2e import gate
from e2e.lane import REPOSITORY, Lane, eventually, pod_template

REPLICAS = 6
GATED = {"prewarm.dev/enabled": "true", "prewarm.dev/gate": "5m"}
HELD = gate.HELD
NAME = "shop"


def workload(
    lane: Lane,
    kind: str,
    tag: str,
    annotations: Mapping[str, str] = GATED,
    *,
    name: str = NAME,
    replicas: int = REPLICAS,
    **spec: object,
) -> dict[str, object]:
    """A Deployment or StatefulSet, asking for the gate unless the annotations say otherwise."""
    whole: dict[str, object] = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": pod_template(tag, lane.plan, name=name, startup_seconds=1),
    }
    if kind == "StatefulSet":
        whole |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    metadata = {"name": name, "annotations": dict(annotations)}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {**whole, **spec}}


async def gated(lane: Lane, kind: str, annotations: Mapping[str, str] = GATED, *, name: str = NAME) -> None:
    """A workload of v1, rolled out, whose next change would be held."""
    await lane.apply(workload(lane, kind, "v1", annotations, name=name))
    await lane.rolled_out(f"{kind.lower()}/{name}")
    probe = workload(lane, kind, "v0", annotations, name=name)
    await asyncio.to_thread(gate.await_enforced, lane.cluster, lane.namespace, probe)


async def change(lane: Lane, kind: str, tag: str, *, name: str = NAME) -> None:
    """Another image, as a person sets it."""
    await lane.kubectl("set", "image", f"{kind.lower()}/{name}", f"app={REPOSITORY}:{tag}")


async def annotations(lane: Lane, kind: str, *, name: str = NAME) -> Mapping[str, str]:
    """Of the workload, as they are now."""
    metadata = (await lane.get(kind.lower(), name))["metadata"]
    assert isinstance(metadata, Mapping)
    found = metadata.get("annotations", {})
    assert isinstance(found, Mapping)
    return found


async def spec_of(lane: Lane, kind: str, *, name: str = NAME) -> Mapping[str, Any]:
    """Of the workload, as it is now."""
    spec = (await lane.get(kind.lower(), name))["spec"]
    assert isinstance(spec, Mapping)
    return spec


async def reasons(lane: Lane, *, name: str = NAME) -> list[str]:
    """Why gates were opened, in the words of the Events, once there is one: they come after the gate is open."""
    path = r'{range .items[?(@.reason=="PrewarmGateOpened")]}{.message}{"\n"}{end}'
    about = ("--field-selector", f"involvedObject.name={name}")
    lines: list[str] = []

    async def told() -> bool:
        lines[:] = (await lane.kubectl("get", "events", *about, "-o", f"jsonpath={path}")).splitlines()
        return bool(lines)

    await eventually(told)
    return [line.partition(":")[0] for line in lines]


async def opened(lane: Lane, kind: str, *, name: str = NAME) -> None:
    """Return once it is not held any more."""

    async def is_open() -> bool:
        return HELD not in await annotations(lane, kind, name=name)

    await eventually(is_open, 90)
