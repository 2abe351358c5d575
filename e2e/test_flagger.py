"""A Flagger Canary's phases, played by status: the primary is warmed once a check has passed, not after a failure."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=8, prefix="flagger", image_bytes=100_000_000)
REPLICAS = 6
GROUP = "flagger.app"


def definition() -> dict[str, Any]:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {
        "name": "v1beta1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
    }
    names = {"plural": "canaries", "kind": "Canary", "singular": "canary", "listKind": "CanaryList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"canaries.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [served]},
    }


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    manifest = yaml.safe_dump(definition())
    await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", manifest=manifest)
    established = ("wait", "--for=condition=Established", "--timeout=60s", f"crd/canaries.{GROUP}")
    await asyncio.to_thread(cluster.kubectl, *established)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def deployment(name: str, replicas: int, **metadata: object) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, **metadata},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template("v1", PLAN, name=name, startup_seconds=1),
        },
    }


async def set_status(lane: Lane, **fields: object) -> None:
    patch = json.dumps({"status": fields})
    await lane.kubectl("patch", "canary/shop", "--subresource=status", "--type=merge", "-p", patch)


async def started(lane: Lane) -> None:
    """What Flagger makes of a target: a primary that it controls, and the target at rest."""
    await lane.apply(
        {
            "apiVersion": f"{GROUP}/v1beta1",
            "kind": "Canary",
            "metadata": {"name": "shop", "annotations": {"prewarm.dev/enabled": "true"}},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
                "analysis": {"interval": "10s", "stepWeight": 10, "maxWeight": 50},
            },
        }
    )
    uid = (await lane.get("canary", "shop"))["metadata"]
    assert isinstance(uid, dict)
    owner = {"apiVersion": f"{GROUP}/v1beta1", "kind": "Canary", "name": "shop", "uid": uid["uid"], "controller": True}
    await lane.apply(deployment("shop", 0))
    await lane.apply(deployment("shop-primary", REPLICAS, ownerReferences=[owner]))
    await lane.rolled_out("deployment/shop-primary")
    await set_status(lane, phase="Initialized", canaryWeight=0, failedChecks=0, iterations=0)


async def on_trial(lane: Lane) -> None:
    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:v2")
    await lane.kubectl("scale", "deployment/shop", "--replicas=1")
    await set_status(lane, phase="Progressing")
    await lane.rolled_out("deployment/shop")


async def test_a_promotion_finds_the_images_that_passed(lane: Lane) -> None:
    controller = await lane.controller()
    await started(lane)
    before = await outcomes(controller, REPLICAS)
    await on_trial(lane)
    assert sum(lane.downloads("v2").values()) == 1
    await set_status(lane, canaryWeight=10)

    async def planned() -> bool:
        return sum(lane.downloads("v2").values()) >= REPLICAS - 1

    await eventually(planned)
    await set_status(lane, phase="Promoting", canaryWeight=50)
    await lane.kubectl("set", "image", "deployment/shop-primary", f"app={REPOSITORY}:v2")
    await lane.rolled_out("deployment/shop-primary")
    after = await outcomes(controller, 2 * REPLICAS)
    hits = after.get("hit_prewarmed", 0) - before.get("hit_prewarmed", 0) + after.get("hit_present", 0)
    assert hits >= REPLICAS - 1, after


async def test_a_failed_canary_is_withdrawn(lane: Lane) -> None:
    controller = await lane.controller()
    await started(lane)
    await outcomes(controller, REPLICAS)
    await on_trial(lane)
    await set_status(lane, canaryWeight=10)

    async def planned() -> bool:
        return bool(await lane.names("imagecaches.prewarm.dev"))

    async def withdrawn() -> bool:
        return not await planned()

    await eventually(planned)
    await set_status(lane, phase="Failed", canaryWeight=0)
    await eventually(withdrawn)
