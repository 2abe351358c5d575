"""Steering on a real control plane: on equal, empty nodes, where nothing can be predicted, pods still start warm."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e import steer
from e2e.cluster.selection import Cluster
from e2e.controller import ControllerProcess
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, outcomes, pod_template, running
from e2e.manifests import install_definitions
from prewarm.api.steer_label import PREFIX

PLAN = LanePlan(nodes=60, prefix="steer", image_bytes=100_000_000, varied=False)
REPLICAS = 20
BURST = 10
"""Of 20 replicas at the default strategy: 5 above them, then 5 for those that may be missing."""
STARTUP_SECONDS = 6
"""From a container's start to its readiness: several times as long as a pull, so that labels are there in time also
where the machine is busy."""
POLICY = f"steer-{os.getpid()}"
HELD = "prewarm.dev/gate-held"


@pytest.fixture(scope="module")
def policy(cluster: Cluster) -> Iterator[None]:
    install_definitions(cluster)
    manifest = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": POLICY},
        "spec": {"placement": {"steer": "Prefer"}},
    }
    cluster.kubectl("apply", "-f", "-", manifest=json.dumps(manifest))
    yield
    cluster.kubectl("delete", "prewarmpolicies.prewarm.dev", POLICY)


@pytest.fixture
async def lane(cluster: Cluster, policy: None, namespace: str, tmp_path: Path) -> AsyncIterator[Lane]:
    async with running(cluster, namespace, tmp_path, PLAN) as found:
        yield found


def deployment(tag: str, **annotations: str) -> dict[str, object]:
    own = {"prewarm.dev/enabled": "true", "prewarm.dev/policy": POLICY, **annotations}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "annotations": own},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": pod_template(tag, PLAN, name="shop", startup_seconds=STARTUP_SECONDS),
        },
    }


async def change(lane: Lane, tag: str) -> None:
    await lane.kubectl("set", "image", "deployment/shop", f"app={REPOSITORY}:{tag}")


async def pods(lane: Lane, tag: str) -> list[dict[str, Any]]:
    """Pods of a tag in the order of their creation."""
    found = json.loads(await lane.kubectl("get", "pods", "-l", "app=shop", "-o", "json"))["items"]
    of_tag = [pod for pod in found if pod["spec"]["containers"][0]["image"].endswith(f":{tag}")]
    return sorted(of_tag, key=lambda pod: pod["metadata"]["creationTimestamp"])


async def labelled(lane: Lane) -> Mapping[str, list[str]]:
    """Steering labels by node."""
    found = json.loads(await lane.kubectl("get", "nodes", "-o", "json"))["items"]
    ours = {
        node["metadata"]["name"]: [key for key in node["metadata"]["labels"] if key.startswith(PREFIX)]
        for node in found
    }
    return {name: keys for name, keys in ours.items() if keys}


async def unlabelled(lane: Lane) -> None:
    async def none() -> bool:
        return not await labelled(lane)

    await eventually(none)


def pulling(lane: Lane, tag: str) -> set[str]:
    """Pods that downloaded an image themselves, by the kubelets' own account."""
    image = f"{REPOSITORY}:{tag}"
    return {pull.pod for pull in lane.emulator.pulls if pull.image == image and pull.downloaded_bytes}


def needless(lane: Lane, tag: str, found: list[dict[str, Any]]) -> float:
    """Share of the nodes that we pulled on which no pod used, though none shares another's node.

    A pod that comes before its node's label shares one that has it, and leaves its own: no pull too many.
    """
    used = {pod["spec"]["nodeName"] for pod in found}
    ours = {
        pull.node
        for pull in lane.emulator.pulls
        if pull.image == f"{REPOSITORY}:{tag}" and "-pull-" in pull.pod and not pull.error and pull.downloaded_bytes
    }
    sharing = len(found) - len(used)
    return max(0, len(ours - used) - sharing) / max(1, len(ours))


def most(found: list[dict[str, Any]]) -> int:
    """Pods on the node that has most."""
    return max(Counter(pod["spec"]["nodeName"] for pod in found).values())


async def steered(lane: Lane, steering: str) -> ControllerProcess:
    """A controller that steers, and the workload at v1."""
    controller = await lane.controller(
        PREWARM_NAMESPACE=steering, PREWARM_STEER="true", PREWARM_LEASE_DURATION_SECONDS="15"
    )
    await lane.apply(deployment("v1"))
    await lane.rolled_out("deployment/shop")
    return controller


def hits(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Pods that found their image."""
    return sum(after.get(name, 0) - before.get(name, 0) for name in ("hit_prewarmed", "hit_present"))


async def test_on_equal_nodes_the_pods_after_the_first_burst_start_warm(lane: Lane, steering: str) -> None:
    """Each later pod has a node of its own that is pulled on for it; nothing is drawn that could make a pull vain.

    A pod of the first burst may land on a chosen node: it uses the image, and another node is chosen. A set that
    changes while pods land leaves two to four nodes that nobody uses.
    """
    controller = await steered(lane, steering)
    before = await outcomes(controller, REPLICAS)
    await change(lane, "v2")
    await lane.rolled_out("deployment/shop")
    after = await outcomes(controller, 2 * REPLICAS)
    warm, late = hits(before, after), after.get("late", 0) - before.get("late", 0)
    found = await pods(lane, "v2")

    assert warm >= REPLICAS - BURST
    # Who comes while we pull waits for our pull, and downloads nothing.
    assert REPLICAS - warm - late <= lane.cold_starts("v2") <= REPLICAS - warm
    assert not pulling(lane, "v2") & {pod["metadata"]["name"] for pod in found[BURST:]}
    assert needless(lane, "v2", found) <= 0.15
    assert [len(steer.preferences(pod)) for pod in found[-(REPLICAS - BURST) :]] == [1] * (REPLICAS - BURST)
    assert most(found) <= 2
    await unlabelled(lane)


async def test_what_is_held_is_let_go_once_its_nodes_are_labelled_and_all_starts_warm(
    lane: Lane, steering: str
) -> None:
    """The change is written as the gate's admission policy would: paused, with its marker."""
    controller = await steered(lane, steering)
    before = await outcomes(controller, REPLICAS)
    marker = {"prewarm.dev/gate": "5m", HELD: datetime.now(UTC).isoformat(timespec="seconds")}
    image = {"name": "app", "image": f"{REPOSITORY}:v2"}
    spec = {"paused": True, "template": {"spec": {"containers": [image]}}}
    patch = json.dumps({"metadata": {"annotations": marker}, "spec": spec})
    await lane.kubectl("patch", "deployment", "shop", "-p", patch)

    async def is_open() -> bool:
        return HELD not in (await lane.kubectl("get", "deployment", "shop", "-o", "jsonpath={.metadata.annotations}"))

    await eventually(is_open, 90)
    await lane.rolled_out("deployment/shop")
    warm = hits(before, await outcomes(controller, 2 * REPLICAS))
    found = await pods(lane, "v2")

    assert warm == REPLICAS
    assert lane.cold_starts("v2") == 0
    assert needless(lane, "v2", found) <= 0.15
    assert most(found) <= 2
    await unlabelled(lane)


async def test_labels_that_a_dead_controller_leaves_go_once_their_entries_have_ended(lane: Lane, steering: str) -> None:
    controller = await steered(lane, steering)
    await change(lane, "v2")

    async def begun() -> bool:
        return entry in await entries(lane, steering) and bool(await labelled(lane))

    entry = f"deployment.{lane.namespace}.shop"
    await eventually(begun)
    controller.kill()
    left = await labelled(lane)
    assert await expire(lane, steering) == "labels taken off 0 nodes\n"
    assert await labelled(lane) == left

    text = (await entries(lane, steering))[entry]
    ended = {**steer.PROBE, entry: f"{text.rpartition(' ')[0]} 2020-01-01T00:00:00Z"}
    await asyncio.to_thread(steer.write_entries, lane.cluster, steering, ended)
    taken = await expire(lane, steering)
    assert taken == (f"labels taken off {len(left)} nodes\n" if len(left) > 1 else "labels taken off 1 node\n")
    assert await labelled(lane) == {}
    await lane.rolled_out("deployment/shop")
    await asyncio.to_thread(steer.write_entries, lane.cluster, steering, steer.PROBE)


async def entries(lane: Lane, steering: str) -> Mapping[str, str]:
    """What the controller has written for the admission policy."""
    found = (await lane.get("configmap", steer.ENTRIES, "--namespace", steering)).get("data", {})
    assert isinstance(found, Mapping)
    return found


async def expire(lane: Lane, steering: str) -> str:
    """Run the command that the CronJob runs, and return what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "prewarm", "remove-labels", "--expired", "--system-namespace", steering),
        *("--kubeconfig", str(lane.cluster.kubeconfig)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
