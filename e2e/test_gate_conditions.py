"""What the gate's admission policies hold, and what they never hold, on a real API server: a row for each.

The changes are tried, not made: each starts from the same workloads, whose pods run on emulated nodes.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from e2e import gate
from e2e.cluster.selection import Cluster
from e2e.gate import ASKED, HELD
from e2e.lane import REPOSITORY, Lane, LanePlan, eventually, pod_template, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
PLAN = LanePlan(nodes=3, prefix="gate-conditions", image_bytes=1_000_000, varied=False)
NAME = f"prewarm-gate-conditions-{os.getpid()}"
REPLICAS = 3
NEVER = 1e6
"""Seconds that a broken release takes to become ready."""
BY_POLICY = {"deployment/{namespace}/listed": 240, "statefulset/{namespace}/listed": 3600}
"""Workloads that a PrewarmPolicy gates."""

Spec = Mapping[str, object]
Patch = Mapping[str, Any]


def one_a_node(port: int) -> Spec:
    """A template of which a node takes one pod."""
    template: Any = pod_template("v1", PLAN, name="placeholder")
    template["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": port}]
    return {"template": template}


class Given(NamedTuple):
    """A workload, before it is changed."""

    kind: str
    spec: Spec = {}
    then: Patch = {}
    """What is changed once its pods are ready."""
    failed: int = 0
    """Pods that are lost with their nodes after that."""


ALL_AT_ONCE: Spec = {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}}}
RECREATE: Spec = {"strategy": {"type": "Recreate"}}
NO_SURGE: Spec = {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}
BROKEN = {
    "template": {
        "metadata": {"annotations": {"emulator.prewarm.dev/startup-seconds": str(NEVER)}},
        "spec": {"containers": [{"name": "app", "image": f"{REPOSITORY}:broken"}]},
    }
}
WITHOUT_DEADLINE: Spec = {"progressDeadlineSeconds": 2147483647}
GIVEN: Mapping[str, Given] = {
    "plain": Given("deployment"),
    "listed": Given("deployment"),
    "surge": Given("deployment", {"strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}}),
    "recreate": Given("deployment", RECREATE),
    "slow": Given("deployment", {"minReadySeconds": 1, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 90}),
    "without-deadline": Given("deployment", WITHOUT_DEADLINE),
    "none": Given("deployment", {"replicas": 0}),
    "paused": Given("deployment", then={"paused": True}),
    "resumed": Given("deployment", {"paused": False}),
    "degraded": Given("deployment", {**one_a_node(8081), **NO_SURGE}, failed=1),
    "degraded-without-deadline": Given("deployment", {**one_a_node(8082), **NO_SURGE, **WITHOUT_DEADLINE}, failed=1),
    "lost": Given("deployment", {**one_a_node(8083), **NO_SURGE}, failed=REPLICAS),
    "unfinished": Given("deployment", then=BROKEN),
    "broken-recreate": Given("deployment", RECREATE, then=BROKEN),
    "broken-at-once": Given("deployment", ALL_AT_ONCE, then=BROKEN),
    "broken-without-deadline": Given("deployment", {**ALL_AT_ONCE, **WITHOUT_DEADLINE}, then=BROKEN),
    "sts-plain": Given("statefulset"),
    "sts-parallel": Given("statefulset", {"podManagementPolicy": "Parallel"}),
    "sts-partition-0": Given("statefulset", {"updateStrategy": {"rollingUpdate": {"partition": 0}}}),
    "sts-partition-1": Given("statefulset", {"updateStrategy": {"rollingUpdate": {"partition": 1}}}),
    "sts-on-delete": Given("statefulset", {"updateStrategy": {"type": "OnDelete"}}),
    "sts-none": Given("statefulset", {"replicas": 0}),
    "sts-degraded": Given("statefulset", {**one_a_node(8084), "podManagementPolicy": "Parallel"}, failed=1),
    "sts-lost": Given("statefulset", {**one_a_node(8085), "podManagementPolicy": "Parallel"}, failed=REPLICAS),
    "sts-broken": Given("statefulset", {"podManagementPolicy": "Parallel"}, then=BROKEN),
}


def image(tag: str = "v2", **spec: object) -> Patch:
    containers = [{"name": "app", "image": f"{REPOSITORY}:{tag}"}]
    return {"spec": {"template": {"spec": {"containers": containers}}, **spec}}


def annotated(**annotations: str | None) -> Patch:
    return {**image(), "metadata": {"annotations": {f"prewarm.dev/{key}": text for key, text in annotations.items()}}}


def template(**parts: object) -> Patch:
    return {"spec": {"template": parts}}


HELD_ROWS: list[tuple[str, str, Patch]] = [
    ("a new image", "plain", image()),
    ("a surge without unavailable pods", "surge", image()),
    ("Recreate", "recreate", image()),
    ("minReadySeconds and a deadline", "slow", image()),
    ("no progress deadline", "without-deadline", image()),
    ("paused: false in the manifest", "resumed", image()),
    ("image and replicas", "plain", image(replicas=9)),
    ("image and strategy", "plain", image(strategy={"type": "Recreate", "rollingUpdate": None})),
    ("a new init container", "plain", template(spec={"initContainers": [{"name": "i", "image": "registry.test/i:1"}]})),
    ("a new container", "plain", template(spec={"containers": [{"name": "side", "image": "registry.test/s:1"}]})),
    ("a pod lost with its node", "degraded", image()),
    ("gate: true", "plain", annotated(gate="true")),
    ("StatefulSet", "sts-plain", image()),
    ("StatefulSet with Parallel", "sts-parallel", image()),
    ("StatefulSet with partition 0", "sts-partition-0", image()),
    ("StatefulSet, image and replicas", "sts-plain", image(replicas=5)),
    ("StatefulSet, a pod lost with its node", "sts-degraded", image()),
]
NOT_HELD_ROWS: list[tuple[str, str, Patch]] = [
    ("not asked for", "plain", annotated(gate=None)),
    ("gate: false", "plain", annotated(gate="false")),
    ("gate without a value", "plain", annotated(gate="")),
    ("opted out", "plain", annotated(enabled="false")),
    ("listed, but the annotation says no", "listed", annotated(gate="false")),
    ("another's name begins like a listed one", "plain", annotated(gate=None)),
    ("paused before", "paused", image()),
    ("paused before, resumed with the image", "paused", image(paused=False)),
    ("paused with the image", "plain", image(paused=True)),
    ("no pods wanted", "plain", image(replicas=0)),
    ("no pods before and after", "none", image()),
    ("from no pods to some", "none", image(replicas=2)),
    ("StatefulSet, no pods wanted", "sts-plain", image(replicas=0)),
    ("StatefulSet, no pods before and after", "sts-none", image()),
    ("StatefulSet, from no pods to some", "sts-none", image(replicas=2)),
    ("the same image", "plain", image("v1")),
    ("replicas", "plain", {"spec": {"replicas": 5}}),
    ("a restart", "plain", template(metadata={"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}})),
    ("a variable", "plain", template(spec={"containers": [{"name": "app", "env": [{"name": "A", "value": "b"}]}]})),
    ("an annotation of the workload", "plain", {"metadata": {"annotations": {"a": "b"}}}),
    ("a volume that is no image", "plain", template(spec={"volumes": [{"name": "v", "emptyDir": {}}]})),
    ("a rollout that is not finished", "unfinished", image()),
    ("a broken release of Recreate", "broken-recreate", image()),
    ("a broken release of all pods at once", "broken-at-once", image()),
    ("a broken release without a deadline", "broken-without-deadline", image()),
    ("a pod lost, and no record that all were there", "degraded-without-deadline", image()),
    ("all pods lost", "lost", image()),
    ("StatefulSet with a partition", "sts-partition-1", image()),
    (
        "StatefulSet that gets a partition",
        "sts-plain",
        image(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}),
    ),
    (
        "StatefulSet that loses its partition",
        "sts-partition-1",
        image(updateStrategy={"rollingUpdate": {"partition": 0}}),
    ),
    ("StatefulSet with OnDelete", "sts-on-delete", image()),
    (
        "StatefulSet that had OnDelete",
        "sts-on-delete",
        image(updateStrategy={"type": "RollingUpdate"}),
    ),
    (
        "StatefulSet, a restart",
        "sts-plain",
        template(metadata={"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}),
    ),
    ("StatefulSet, a broken release", "sts-broken", image()),
    ("StatefulSet, all pods lost", "sts-lost", image()),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    """A namespace with all workloads in the state in which they are changed."""
    folder: Path = tmp_path_factory.mktemp("conditions")
    await asyncio.to_thread(gate.install, cluster, NAME)
    listed = ",".join(f"{key.format(namespace=NAME)}={seconds}" for key, seconds in BY_POLICY.items())
    await asyncio.to_thread(gate.write_lease, cluster, NAME, listed)
    async with running(cluster, NAME, folder, PLAN) as found:
        await prepare(found)
        yield found
    await asyncio.to_thread(gate.remove, cluster, NAME)


async def prepare(lane: Lane) -> None:
    items = [workload(name, given) for name, given in GIVEN.items()]
    await lane.kubectl("apply", "-f", "-", manifest=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    await asyncio.gather(
        *(
            lane.rolled_out(f"{given.kind}/{name}")
            for name, given in GIVEN.items()
            if given.spec.get("updateStrategy") != {"type": "OnDelete"}
        )
    )
    for name, given in GIVEN.items():
        if given.then:
            await patch(lane, name, {"spec": given.then})
    await asyncio.gather(*(until_broken(lane, name) for name, given in GIVEN.items() if given.then == BROKEN))
    await lose(lane)
    plain = workload("plain", GIVEN["plain"], "v0", ASKED)
    await asyncio.to_thread(gate.await_enforced, lane.cluster, lane.namespace, plain)


async def lose(lane: Lane) -> None:
    """Take pods away whose places nobody else may have, one or all."""
    nodes = sorted(lane.emulator.fleet.nodes)
    await lane.kubectl("cordon", *nodes)
    for name, given in GIVEN.items():
        for node in nodes[: given.failed]:
            selection = ("-l", f"app={name}", "--field-selector", f"spec.nodeName={node}")
            await lane.kubectl("delete", "pod", *selection, "--force", "--grace-period=0", "--wait=false")
    for name, given in GIVEN.items():
        if given.failed:
            await until(lane, name, replicas=REPLICAS, availableReplicas=REPLICAS - given.failed)


async def until_broken(lane: Lane, name: str) -> None:
    """Return once all pods of a release are there that never become ready, as far as its strategy goes."""
    if name == "unfinished":
        await until(lane, name, updatedReplicas=1, availableReplicas=REPLICAS)
    elif name == "sts-broken":
        await until(lane, name, replicas=REPLICAS, updatedReplicas=1, availableReplicas=REPLICAS - 1)
    else:
        await until(lane, name, replicas=REPLICAS, updatedReplicas=REPLICAS, availableReplicas=0)


async def until(lane: Lane, name: str, **counts: int) -> None:
    """Return once the status of a workload says so."""

    async def so() -> bool:
        found: Mapping[str, Any] = await lane.get(GIVEN[name].kind, name)
        status = found["status"]
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return seen and all(status.get(key, 0) == count for key, count in counts.items())

    await eventually(so)


def workload(name: str, given: Given, tag: str = "v1", annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    shape: dict[str, Any] = {"template": pod_template(tag, PLAN, name=name), **given.spec}
    shape["template"]["metadata"] = {**shape["template"]["metadata"], "labels": {"app": name}}
    shape["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    spec = {"replicas": REPLICAS, "selector": {"matchLabels": {"app": name}}, **shape}
    if given.kind == "statefulset":
        spec["serviceName"] = name
    metadata = {"name": name, "annotations": dict(annotations or {})}
    kind = {"deployment": "Deployment", "statefulset": "StatefulSet"}[given.kind]
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


async def patch(lane: Lane, name: str, change: Patch, *options: str) -> dict[str, Any]:
    kind = GIVEN[name].kind
    found = json.loads(await lane.kubectl("patch", kind, name, "-p", json.dumps(change), "-o", "json", *options))
    assert isinstance(found, dict)
    return found


async def tried(lane: Lane, name: str, change: Patch, asked: Mapping[str, str | None] = ASKED) -> dict[str, Any]:
    """What the server makes of a change, with the gate asked for unless the change says otherwise."""
    metadata = change.get("metadata", {})
    annotations = {**asked, **metadata.get("annotations", {})}
    return await patch(lane, name, {**change, "metadata": {"annotations": annotations}}, "--dry-run=server")


def rows(table: list[tuple[str, str, Patch]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "change"), [pytest.param(*row[1:], id=row[0]) for row in table])


@rows(HELD_ROWS)
async def test_held(lane: Lane, name: str, change: Patch) -> None:
    before: Mapping[str, Any] = await lane.get(GIVEN[name].kind, name)
    found = await tried(lane, name, change)
    marker = found["metadata"]["annotations"][HELD].split()
    assert marker[1] == f"generation={before['metadata']['generation'] + 1}"
    if GIVEN[name].kind == "deployment":
        assert found["spec"]["paused"] is True
        assert marker[2:] == []
    else:
        assert found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == gate.HOLDING_PARTITION
        assert marker[2:] == ["partition=0", f"set={gate.HOLDING_PARTITION}"]
    without = {**change.get("metadata", {}).get("annotations", {}), "prewarm.dev/gate": "false"}
    free = await tried(lane, name, {**change, "metadata": {"annotations": without}})
    assert HELD not in free["metadata"]["annotations"]
    assert gate.without_hold(found) == gate.without_hold(free), "only the hold differs"


@rows(NOT_HELD_ROWS)
async def test_not_held(lane: Lane, name: str, change: Patch) -> None:
    before: Mapping[str, Any] = await lane.get(GIVEN[name].kind, name)
    found = await tried(lane, name, change)
    assert HELD not in found["metadata"]["annotations"]
    asked = change.get("spec", {})
    assert found["spec"].get("paused", False) == asked.get("paused", before["spec"].get("paused", False))
    strategy = before["spec"].get("updateStrategy", {}).get("rollingUpdate", {})
    partition = asked.get("updateStrategy", {}).get("rollingUpdate", strategy).get("partition", 0)
    rolling = found["spec"].get("updateStrategy", {}).get("rollingUpdate", {})
    assert rolling.get("partition", 0) == partition


async def test_what_a_policy_lists_is_held_for_as_long_as_it_says(lane: Lane) -> None:
    found = await tried(lane, "listed", image(), {})
    assert found["metadata"]["annotations"][HELD].split()[-1] == "for=240"


@pytest.mark.parametrize("name", ["none", "sts-none"])
async def test_who_had_no_pods_starts_with_those_of_the_change(lane: Lane, name: str) -> None:
    """Held, the controllers would start all of them with the image before."""
    await lane.kubectl("uncordon", *sorted(lane.emulator.fleet.nodes))
    await patch(lane, name, {**image(replicas=2), "metadata": {"annotations": ASKED}})
    await lane.rolled_out(f"{GIVEN[name].kind}/{name}")
    pods: Mapping[str, Any] = await lane.get("pods", "-l", f"app={name}")
    assert [pod["spec"]["containers"][0]["image"] for pod in pods["items"]] == [f"{REPOSITORY}:v2"] * 2


@pytest.mark.parametrize("name", ["broken-recreate", "broken-at-once", "sts-broken"])
async def test_the_repair_of_a_broken_release_comes_up_without_being_held(lane: Lane, name: str) -> None:
    nodes = sorted(lane.emulator.fleet.nodes)
    await lane.kubectl("uncordon", *nodes)
    repair: dict[str, Any] = json.loads(json.dumps(image("repaired")))
    repair["metadata"] = {"annotations": ASKED}
    repair["spec"]["template"]["metadata"] = {"annotations": {"emulator.prewarm.dev/startup-seconds": "0"}}
    found = await patch(lane, name, repair)
    assert HELD not in found["metadata"]["annotations"]
    await lane.rolled_out(f"{GIVEN[name].kind}/{name}")
