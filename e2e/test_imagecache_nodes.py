"""Which nodes an ImageCache means, and what is known of their images: a real control plane, emulated kubelets."""

import base64
import json
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.caching import APP, LOGIN, NEXT, PRIVATE, SIDECAR, SLOW, Lane, Shop, running_lane
from e2e.cluster.components import Component
from e2e.cluster.selection import Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

JOINED_SECONDS = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    folder: Path = tmp_path_factory.mktemp("nodes")
    async with running_lane(cluster, folder) as running:
        yield running


async def label(shop: Shop, node: str, *labels: str) -> None:
    await shop.kubectl("label", "node", node, "--overwrite", *labels)


async def run_pod(shop: Shop, name: str, node: str, app: str, namespace: str = "") -> None:
    """A bound pod whose image is on the node already or comes in a second; the emulated kubelet runs it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace or shop.namespace, "labels": {"app": app}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": SIDECAR}]},
    }
    await shop.lane.kubectl("apply", "-f", "-", manifest=json.dumps(pod))


async def test_expressions_are_alternatives_and_labels_and_names_must_hold_too(lane: Lane) -> None:
    async with lane.shop(nodes=4) as shop:
        a, b, c, _ = shop.nodes
        for node, pool in ((a, "a"), (b, "b"), (c, "c")):
            await label(shop, node, f"pool={pool}")
        terms = [
            {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a", "b"]}]},
            {"matchExpressions": [{"key": "pool", "operator": "DoesNotExist"}]},
        ]
        await shop.cache("terms", shop.entry(APP, nodeSelectorTerms=terms))
        await shop.cache("both", shop.entry(SIDECAR, nodeSelectorTerms=terms, nodeNames=[b, c]))
        await shop.wait("terms", "Ready")
        await shop.wait("both", "Ready")
        assert shop.pulls(APP) == shop.once(a, b, shop.nodes[3])
        assert shop.pulls(SIDECAR) == shop.once(b)
        # A label that comes is followed, one that goes too.
        await label(shop, c, "pool=a")
        await label(shop, a, "pool=c")
        await shop.wait("both", ".status.desired=2")
        await shop.wait("both", "Ready")
        assert shop.pulls(SIDECAR) == shop.once(b, c)
        await shop.wait("terms", "Ready")
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        assert (await shop.status("terms"))["desired"] == 3


async def test_images_follow_pods_of_their_own_namespace(lane: Lane) -> None:
    async with lane.shop(nodes=3) as shop:
        first, second, third = shop.nodes
        other = f"{shop.namespace}-other"
        await shop.add_namespace(other)
        await run_pod(shop, "one", first, "web")
        await run_pod(shop, "stranger", second, "web", namespace=other)
        await run_pod(shop, "store", second, "db")
        await shop.cache("follow", {"images": [APP], "podSelector": {"matchLabels": {"app": "web"}}})
        await shop.wait("follow", "Ready")
        assert shop.pulls(APP) == shop.once(first)
        await run_pod(shop, "two", third, "web")
        await shop.wait("follow", ".status.succeeded=2")
        await shop.kubectl("delete", "pod", "one", "--grace-period=0", "--force")
        await shop.wait("follow", ".status.desired=1")
        await shop.wait("follow", "Ready")
        assert shop.pulls(APP) == shop.once(first, third)
        # What was pulled stays, and is known.
        record = json.loads(await shop.kubectl("get", f"nodeimages.prewarm.dev/{first}", "-o", "json"))
        assert APP in {image["image"] for image in record["status"]["images"]}


async def test_kube_fledged_trap_node_that_joins_is_pulled_to_within_five_seconds(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        (joined,) = await shop.add_nodes(1, "joined")
        await lane.pods.until(lambda: lane.pods.ordered(shop.namespace, APP, joined))
        (pod,) = lane.pods.ordered(shop.namespace, APP, joined)
        node = json.loads(await shop.kubectl("get", "node", joined, "-o", "json"))
        ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
        took = pod.metadata.creation_timestamp - datetime.fromisoformat(ready["lastTransitionTime"])
        assert took.total_seconds() <= JOINED_SECONDS
        await shop.wait("warm", ".status.succeeded=2")
        # One that leaves stops counting, and is no failure.
        await shop.remove_node(joined)
        await shop.wait("warm", ".status.desired=1")
        await shop.wait("warm", "Ready")
        assert (await shop.status("warm"))["failed"] == 0


async def test_nodes_in_trouble_are_skipped_with_their_reason_and_taken_up_again(lane: Lane) -> None:
    async with lane.shop(nodes=6) as shop:
        cordoned, pressed, leaving, karpenter, master, fenced = shop.nodes
        pressure = {"type": "DiskPressure", "status": "True", "reason": "KubeletHasDiskPressure"}
        taints = {
            leaving: "ToBeDeletedByClusterAutoscaler=1:NoSchedule",
            karpenter: "karpenter.sh/disrupted:NoSchedule",
            master: "node-role.kubernetes.io/control-plane:NoSchedule",
            fenced: "team=a:NoExecute",
        }
        await shop.kubectl("cordon", cordoned)
        await shop.kubectl(
            "patch", "node", pressed, "--subresource=status", "-p", json.dumps({"status": {"conditions": [pressure]}})
        )
        for node, taint in taints.items():
            await shop.kubectl("taint", "node", node, taint)
        # Nothing ever runs there: these two stay.
        nodeinfo = {"operatingSystem": "windows", "bootID": "b", "kubeletVersion": "v1.36.3"}
        await shop.add_silent_node("windows", nodeInfo=nodeinfo)
        virtual = await shop.add_silent_node("virtual")
        await label(shop, virtual, "type=virtual-kubelet")
        (worker,) = await shop.add_nodes(1, "worker")
        await shop.kubectl("taint", "node", worker, "gpu=true:NoSchedule")
        # One pull at once: whoever held a slot without pulling would stop the others.
        await shop.cache("warm", shop.entry(APP), parallelism=1)
        await shop.wait("warm", "Ready")
        assert shop.pulls(APP) == shop.once(worker)
        assert await shop.reasons("warm") == {
            "Cordoned": 1,
            "DiskPressure": 1,
            "Leaving": 2,
            "OperatingSystem": 1,
            "Tainted": 2,
            "Virtual": 1,
        }
        assert {pod.spec.node_name for pod in lane.pods.ordered(shop.namespace)} == {worker}
        await shop.kubectl("uncordon", cordoned)
        relieved = {**pressure, "status": "False"}
        await shop.kubectl(
            "patch", "node", pressed, "--subresource=status", "-p", json.dumps({"status": {"conditions": [relieved]}})
        )
        for node, taint in taints.items():
            await shop.kubectl("taint", "node", node, f"{taint}-")
        await shop.wait("warm", ".status.succeeded=7")
        assert await shop.reasons("warm") == {"OperatingSystem": 1, "Virtual": 1}
        assert shop.pulls(APP) == shop.once(*shop.nodes[:6], worker)


@pytest.mark.parametrize(
    ("taint", "toleration"),
    [
        (
            "node-role.kubernetes.io/control-plane:NoSchedule",
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
        ),
        ("team=a:NoExecute", {"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"}),
    ],
    ids=["control plane", "NoExecute"],
)
async def test_toleration_lets_pulls_onto_the_node(lane: Lane, taint: str, toleration: dict[str, str]) -> None:
    async with lane.shop(nodes=1) as shop:
        (node,) = shop.nodes
        await shop.kubectl("taint", "node", node, taint)
        await shop.cache("warm", shop.entry(APP))
        await shop.wait_reason("warm", "AllSkipped")
        await shop.cache("warm", shop.entry(APP), tolerations=[toleration])
        await shop.wait("warm", "Ready")
        assert shop.pulls(APP) == shop.once(node)


@pytest.mark.parametrize("trouble", ["cordoned", "deleted"])
async def test_openkruise_trap_pod_that_waits_on_such_a_node_keeps_no_slot(lane: Lane, trouble: str) -> None:
    """The state comes after the order: the kubelet there never looked at the pod."""
    async with lane.shop(nodes=2) as shop:
        alive = list(shop.nodes)
        silent = await shop.add_silent_node()
        await shop.cache("warm", {"images": [APP], "nodeNames": [silent, *alive]}, parallelism=1)
        await lane.pods.until(lambda: lane.pods.left(shop.namespace, node=silent))
        assert not shop.pulls(APP)
        if trouble == "cordoned":
            await shop.kubectl("cordon", silent)
        else:
            await shop.remove_node(silent)
        await shop.wait("warm", "Ready")
        assert shop.pulls(APP) == shop.once(*alive)
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))


async def test_node_that_is_not_ready_is_skipped_and_pulled_to_when_it_returns(lane: Lane) -> None:
    plane = lane.cluster.control_plane
    if plane is None:
        pytest.skip("stops KWOK, which only the local control plane lets us do")
    async with lane.shop(nodes=2) as shop:
        lost, alive = shop.nodes
        await shop.kubectl("wait", f"node/{lost}", f"node/{alive}", "--for=condition=Ready", "--timeout=30s")
        plane.signal_component(Component.KWOK, signal.SIGSTOP)
        try:
            patch = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}]}}
            await shop.kubectl("patch", "node", lost, "--subresource=status", "-p", json.dumps(patch))
            await shop.cache("warm", shop.entry(APP), parallelism=1)
            await shop.wait("warm", "Ready")
            assert await shop.reasons("warm") == {"NotReady": 1}
            assert shop.pulls(APP) == shop.once(alive)
        finally:
            plane.signal_component(Component.KWOK, signal.SIGCONT)
        await shop.wait("warm", ".status.succeeded=2")
        assert shop.pulls(APP) == shop.once(lost, alive)


async def test_openkruise_trap_selector_that_matches_nothing_says_so_and_waits(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        typo = shop.entry(SIDECAR, nodeSelector={"pool": "gpu"})
        await shop.cache("warm", typo)
        await shop.cache("half", shop.entry(APP), typo)
        await shop.wait_reason("warm", "NoNodes")
        assert await shop.told("warm", "NoNodes") == [("Warning", "NoNodes")]
        await shop.wait("half", ".status.succeeded=1")
        await shop.wait_reason("half", "NoNodes")
        ready = (await shop.conditions("half"))["Ready"]
        assert "no node matches cacheSpec[1]; those that come are taken up" in ready.message
        await label(shop, shop.nodes[0], "pool=gpu")
        await shop.wait("warm", "Ready")
        await shop.wait("half", "Ready")
        assert shop.pulls(SIDECAR) == shop.once(*shop.nodes)


async def test_kube_fledged_trap_presence_is_exact_and_no_substring(lane: Lane) -> None:
    digest, other = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    listed = [
        ["docker.io/library/app:1.21"],
        ["registry.test/nginx:1.25"],
        ["host.test:5000/tool:v1"],
        ["docker.io/library/base:latest-foo"],
        ["docker.io/library/redis:7"],
        ["docker.io/library/busy:latest"],
        [f"registry.test/pinned@{digest}"],
        [f"registry.test/moved@{other}", "registry.test/moved:v1"],
    ]
    there = ["docker.io/redis:7", "index.docker.io/library/redis:7", "busy", f"registry.test/pinned:v1@{digest}"]
    absent = [
        "app:1.2",
        "nginx:1.25",
        "host.test:5000/tool",
        "base:latest",
        f"registry.test/moved:v1@{digest}",
    ]
    async with lane.shop() as shop:
        images = [{"names": names, "sizeBytes": 1000} for names in listed]
        await shop.add_silent_node(images=images)
        await shop.cache("traps", shop.entry(*there, *absent))
        await shop.wait("traps", f".status.desired={len(there) + len(absent)}")
        await lane.pods.until(lambda: lane.pods.ordered(shop.namespace))
        status = await shop.status("traps")
        assert (status["succeeded"], status["active"], status["failed"]) == (len(there), 1, 0)
        assert lane.pods.ordered(shop.namespace)[0].images == ("app:1.2",)


async def test_kube_fledged_trap_more_images_on_the_node_than_it_reports(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        (node,) = shop.nodes
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        large = [{"names": [f"registry.test/large-{n}:v1"], "sizeBytes": 2_000_000_000 + n} for n in range(50)]
        patch = json.dumps({"status": {"images": large}})
        await shop.kubectl("patch", "node", node, "--subresource=status", "-p", patch)
        # A second image shows that the list has been seen: the first is neither missed nor pulled again.
        await shop.cache("warm", shop.entry(APP, "registry.test/large-7:v1"))
        await shop.wait("warm", ".status.succeeded=2")
        assert len(lane.pods.ordered(shop.namespace)) == 1


async def test_present_image_is_not_warm_for_other_credentials(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        host = PRIVATE.partition("/")[0]
        login = json.dumps({"auths": {host: {"auth": base64.b64encode(LOGIN.encode()).decode()}}})
        await shop.kubectl(
            "create",
            "secret",
            "generic",
            "regcred",
            "--type=kubernetes.io/dockerconfigjson",
            f"--from-literal=.dockerconfigjson={login}",
        )
        await shop.cache("mine", shop.entry(PRIVATE), imagePullSecrets=[{"name": "regcred"}])
        await shop.wait("mine", "Ready")
        await shop.cache("anyones", shop.entry(PRIVATE))
        await shop.wait("anyones", "Degraded")
        status = await shop.status("anyones")
        assert (status["succeeded"], await shop.reasons("anyones")) == (0, {"Unauthorized": 1})
        await shop.wait("mine", "Ready")


async def test_nothing_is_inherited_by_a_node_made_anew_or_rebooted(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        anew, rebooted = shop.nodes
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        patch = {"status": {"nodeInfo": {"bootID": "after the reboot"}, "images": []}}
        await shop.kubectl("patch", "node", rebooted, "--subresource=status", "-p", json.dumps(patch))
        await lane.pods.until(lambda: len(lane.pods.ordered(shop.namespace, node=rebooted)) == 2)
        await shop.remove_node(anew)
        await shop.wait("warm", ".status.desired=1")
        # Its record went with it, and its successor's disk is empty.
        await shop.add_nodes(2)
        await shop.wait("warm", ".status.succeeded=2")
        assert shop.pulls(APP)[anew] == 2


async def test_slow_pull_on_one_node_delays_no_other_cache(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        slow, fast = shop.nodes
        await shop.cache("slow", {"images": [SLOW], "nodeNames": [slow]})
        await lane.pods.until(lambda: lane.pods.left(shop.namespace, SLOW))
        await shop.cache("fast", {"images": [NEXT], "nodeNames": [fast]}, priority=-5)
        await shop.wait("fast", "Ready")
        assert not shop.pulls(SLOW)
