"""An ImagePolicy of Flux on the real control plane: its latest image is there before Flux has applied anything.

The definition is a minimal one of the fields that are read; image-reflector-controller's status is played.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import definitions
from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="flux", image_bytes=50_000_000)
REPLICAS = 4
GROUP = "image.toolkit.fluxcd.io"
ANNOTATIONS = {"prewarm.dev/enabled": "true", "prewarm.dev/image-policies": "app=web"}


def definition() -> dict[str, Any]:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
    }
    names = {"plural": "imagepolicies", "kind": "ImagePolicy", "singular": "imagepolicy", "listKind": "ImagePolicyList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"imagepolicies.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [served]},
    }


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def deployment() -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": ANNOTATIONS},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "web"}},
            "template": pod_template("v1", PLAN, name="web", startup_seconds=1),
        },
    }


async def found_latest(lane: Lane, tag: str) -> None:
    patch = json.dumps({"status": {"latestRef": {"name": REPOSITORY, "tag": tag}}})
    await lane.kubectl("patch", "imagepolicy/web", "--subresource=status", "--type=merge", "-p", patch)


async def test_what_flux_has_found_is_warm_before_it_is_applied(lane: Lane) -> None:
    """The kind appears while the controller runs, and vanishes again."""
    controller = await lane.controller()
    await lane.apply(deployment())
    await lane.rolled_out("deployment/web")
    await outcomes(controller, REPLICAS)

    await lane.kubectl("apply", "-f", "-", manifest=yaml.safe_dump(definition()))
    await lane.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/imagepolicies.{GROUP}")
    try:
        policy = {"apiVersion": f"{GROUP}/v1", "kind": "ImagePolicy", "metadata": {"name": "web"}, "spec": {}}
        await lane.apply(policy)
        await found_latest(lane, "v2")

        async def warm() -> bool:
            return len(lane.downloads("v2")) == PLAN.nodes

        await eventually(warm, 90)
        await lane.kubectl("set", "image", "deployment/web", f"app={REPOSITORY}:v2")
        await lane.rolled_out("deployment/web")
        after = await outcomes(controller, 2 * REPLICAS)
        assert after.get("hit_prewarmed", 0) + after.get("hit_present", 0) >= REPLICAS, after
        assert lane.cold_starts("v2") == 0

        async def withdrawn() -> bool:
            return not await lane.names("imagecaches.prewarm.dev")

        async def planned() -> bool:
            return not await withdrawn()

        await eventually(withdrawn)
        await found_latest(lane, "v3")
        await eventually(planned)
    finally:
        await asyncio.to_thread(definitions.delete, lane.cluster, [f"imagepolicies.{GROUP}"])
    await eventually(withdrawn, 90)
