"""A mesh that injects sidecars, on the real control plane: its images are on the nodes of the next pods, too."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions

PLAN = LanePlan(nodes=4, prefix="sidecars", image_bytes=50_000_000)
ENABLED = {"prewarm.dev/enabled": "true", "prewarm.dev/headroom": "300%"}
API = "admissionregistration.k8s.io/v1"
INJECTION = f"""[
  JSONPatch{{op: "add", path: "/spec/containers/-", value: Object.spec.containers{{
    name: "mesh-proxy", image: "{REPOSITORY}:proxy"}}}},
  JSONPatch{{op: "add", path: "/spec/initContainers", value: dyn([])}},
  JSONPatch{{op: "add", path: "/spec/initContainers/-", value: Object.spec.initContainers{{
    name: "mesh-agent", image: "{REPOSITORY}:agent", restartPolicy: "Always"}}}},
  JSONPatch{{op: "add", path: "/spec/containers/-", value: Object.spec.containers{{
    name: "mesh-logs", image: "{REPOSITORY}:logs"}}}}]"""
"""A container, a sidecar, and a container that the workload excludes."""


@pytest.fixture
async def lane(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    await asyncio.to_thread(install_definitions, cluster)
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def deployment(replicas: int) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {**ENABLED, "prewarm.dev/exclude-containers": "mesh-logs"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": pod_template("v1", PLAN, name="web"),
        },
    }


@pytest.fixture
async def mesh(lane: Lane) -> AsyncIterator[None]:
    """Injects into the namespace's pods but for those that opt out, as pullers do."""
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lane.namespace}}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    policy = {
        "apiVersion": API,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": lane.namespace},
        "spec": {
            "matchConstraints": {**where, "resourceRules": rules},
            "matchConditions": [
                {
                    "name": "not-opted-out",
                    "expression": "object.metadata.?labels['sidecar.istio.io/inject'].orValue('') != 'false'",
                }
            ],
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": INJECTION}}],
        },
    }
    binding = {
        "apiVersion": API,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": lane.namespace},
        "spec": {"policyName": lane.namespace},
    }
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    await lane.kubectl("create", "-f", "-", manifest=both)
    probe = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe"},
            "spec": {"containers": [{"name": "app", "image": f"{REPOSITORY}:v1"}]},
        }
    )
    names = "jsonpath={.spec.containers[*].name}"

    async def injects() -> bool:
        return "mesh" in await lane.kubectl("create", "--dry-run=server", "-o", names, "-f", "-", manifest=probe)

    await eventually(injects, 30)
    yield
    both_kinds = "MutatingAdmissionPolicyBinding,MutatingAdmissionPolicy"
    await lane.kubectl("delete", both_kinds, lane.namespace, "--ignore-not-found")


async def test_an_injected_sidecar_is_there_before_the_next_pods(lane: Lane, mesh: None) -> None:
    controller = await lane.controller()
    await lane.apply(deployment(1))
    await lane.rolled_out("deployment/web")
    before = await outcomes(controller, 3)

    async def warm() -> bool:
        return all(len(lane.downloads(tag)) == PLAN.nodes for tag in ("v1", "proxy", "agent"))

    await eventually(warm)
    await lane.kubectl("scale", "deployment/web", "--replicas=4")
    await lane.rolled_out("deployment/web")
    after = await outcomes(controller, 12)

    assert sum(lane.cold_starts(tag) for tag in ("v1", "proxy", "agent")) == 3
    hits = sum(after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "hit_present"))
    assert hits == 9, after
    assert sum(lane.downloads("logs").values()) == lane.cold_starts("logs"), "an excluded container's image was pulled"
