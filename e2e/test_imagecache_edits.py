"""ImageCaches created, edited at any time and deleted, and what their status says: a real control plane."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e.caching import APP, KIND, NEXT, SIDECAR, SLOW, WRONG, Lane, running_lane
from e2e.cluster.selection import Cluster
from prewarm.api.image_cache_status import MAX_STATUS_BYTES

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    folder: Path = tmp_path_factory.mktemp("edits")
    async with running_lane(cluster, folder) as running:
        yield running


async def test_kube_fledged_trap_everything_may_change_placement_included(lane: Lane) -> None:
    """There: "Mismatch in no. of image lists", "Mismatch in node selector", and all images judged anew."""
    async with lane.shop(nodes=3) as shop:
        first, second, third = shop.nodes
        await shop.cache("warm", shop.entry(APP, nodeNames=[first, second]))
        await shop.wait("warm", "Ready")
        # An image more, elsewhere too; kubectl wait returns for the new generation alone.
        await shop.cache(
            "warm", shop.entry(APP, nodeNames=[first, second]), shop.entry(APP, SIDECAR, nodeNames=[third])
        )
        await shop.wait("warm", "Ready")
        assert shop.pulls(APP) == shop.once(first, second, third)
        assert shop.pulls(SIDECAR) == shop.once(third)
        # Lists change places, one loses a node, another field changes: nothing is pulled again.
        await shop.cache(
            "warm", shop.entry(SIDECAR, APP, nodeNames=[third]), shop.entry(APP, nodeNames=[first]), priority=3
        )
        await shop.wait("warm", "Ready")
        status = await shop.status("warm")
        assert (status["observedGeneration"], status["desired"], status["succeeded"]) == (3, 3, 3)
        assert sum(shop.pulls(APP).values()) == 3
        assert len(lane.pods.ordered(shop.namespace)) == 4
        await shop.kubectl("delete", f"{KIND}/warm", "--timeout=10s")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))


@pytest.mark.timeout(240)
async def test_how_a_living_cache_pulls_may_change_and_what_is_there_stays(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        (node,) = shop.nodes

        async def change(**fields: object) -> None:
            await shop.kubectl("patch", f"{KIND}/warm", "--type=merge", "-p", json.dumps({"spec": fields}))

        async def pod_of(image: str) -> dict[str, Any]:
            """Spec of the one pod that pulled an image, which its hold keeps."""
            found = json.loads(await shop.kubectl("get", "pods", "-o", "json"))["items"]
            (spec,) = (pod["spec"] for pod in found if image in json.dumps(pod["spec"]))
            assert isinstance(spec, dict)
            return spec

        await shop.cache("warm", shop.entry(APP), hold="1h")
        await shop.wait("warm", "Ready")
        await change(pullerForm="Volume", attempts={"timeoutSeconds": 33}, cacheSpec=[shop.entry(APP, NEXT)])
        await shop.wait("warm", ".status.succeeded=2")
        await shop.wait("warm", "Ready")
        mounting = await pod_of(NEXT)
        assert [volume["image"]["reference"] for volume in mounting["volumes"]] == [NEXT]
        assert mounting["activeDeadlineSeconds"] == 33
        assert "initContainers" in await pod_of(APP)
        images = [shop.entry(APP, NEXT, SIDECAR)]
        await change(pullerForm="Container", imagePullPolicy="Always", attempts=None, cacheSpec=images)
        await shop.wait("warm", ".status.succeeded=3")
        await shop.wait("warm", "Ready")
        running = await pod_of(SIDECAR)
        assert [c["imagePullPolicy"] for c in running["containers"] if c["image"] == SIDECAR] == ["Always"]
        assert running["activeDeadlineSeconds"] == 600
        for image in (APP, NEXT, SIDECAR):
            assert shop.pulls(image) == shop.once(node), image
        # Times of its own: every minute, what may have moved is asked for again, which Always says of everything.
        await change(schedule={"cron": "* * * * *"})
        await lane.pods.until(lambda: len(lane.pods.ordered(shop.namespace, APP)) == 2, 90)
        await change(schedule=None, imagePullPolicy=None)
        await shop.wait("warm", "Ready")
        # To an end, and back: a node that joins in between is taken up then.
        await change(completion={"type": "Once"})
        await shop.wait("warm", "Ready")
        (late,) = await shop.add_nodes(1, "late")
        await shop.kubectl("wait", f"node/{late}", "--for=condition=Ready", "--timeout=30s")
        # Another cache shows that the node is known by now.
        await shop.cache("other", shop.entry(SIDECAR, nodeNames=[late]))
        await shop.wait("other", "Ready")
        assert (await shop.status("warm"))["desired"] == 3
        assert not lane.pods.ordered(shop.namespace, NEXT, late)
        await change(completion=None)
        await shop.wait("warm", ".status.succeeded=6")
        await shop.wait("warm", "Ready")
        assert shop.pulls(NEXT) == shop.once(node, late)


async def test_kube_fledged_trap_edit_during_a_pull_takes_effect_at_once(lane: Lane) -> None:
    """There it is dropped, or refused while the state is Processing."""
    async with lane.shop(nodes=1) as shop:
        (node,) = shop.nodes
        silent = await shop.add_silent_node()
        await shop.cache("warm", shop.entry(SLOW))
        await lane.pods.until(lambda: len(lane.pods.left(shop.namespace, SLOW)) == 2)
        await shop.cache("warm", shop.entry(APP))
        # The pod that nobody looked at goes; the pull that began cannot be stopped, and does not count.
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace, SLOW, silent), 5)
        await shop.wait("warm", ".status.observedGeneration=2", 5)
        status = await shop.status("warm")
        assert status["desired"] == 2
        await lane.pods.until(lambda: lane.pods.left(shop.namespace, APP, silent), 5)
        await shop.remove_node(silent)
        await shop.wait("warm", "Ready")
        assert shop.pulls(APP) == shop.once(node)


async def test_kube_fledged_trap_empty_list_of_images_is_valid_and_clears_it(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        await shop.cache("warm", shop.entry())
        await shop.wait_reason("warm", "NoImages")
        assert (await shop.status("warm"))["desired"] == 0
        with pytest.raises(RuntimeError, match="to ask for none, write images") as refusal:
            await shop.cache("warm", shop.entry(""))
        assert "spec.cacheSpec[0].images[0]" in str(refusal.value)


async def test_kube_fledged_trap_same_name_in_two_namespaces_does_not_mix(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        first, second = shop.nodes
        other = f"{shop.namespace}-other"
        await shop.add_namespace(other)
        await shop.cache("warm", shop.entry(APP, nodeNames=[first]))
        await shop.cache("warm", shop.entry(WRONG, SIDECAR, nodeNames=[second]), namespace=other)
        await shop.wait("warm", "Ready")
        await shop.wait("warm", "Degraded", namespace=other)
        await shop.wait("warm", ".status.succeeded=1", namespace=other)
        assert (await shop.status("warm"))["failed"] == 0
        failed = await shop.status("warm", namespace=other)
        failures = failed["failures"]
        assert isinstance(failures, list)
        assert [(failure["image"], failure["node"]) for failure in failures] == [(WRONG, second)]
        await lane.kubectl("delete", f"{KIND}/warm", "--namespace", other)
        await lane.pods.until(lambda: not lane.pods.left(other))
        assert (await shop.status("warm"))["succeeded"] == 1


async def test_overlapping_caches_and_names_of_one_image_pull_it_once(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        names = ["nginx:1.25", "docker.io/nginx:1.25", "docker.io/library/nginx:1.25"]
        await shop.cache("one", shop.entry(*names), shop.entry(names[1]))
        await shop.cache("two", shop.entry(names[2]))
        await shop.wait("one", "Ready")
        await shop.wait("two", "Ready")
        assert (await shop.status("one"))["succeeded"] == 6
        assert len(lane.pods.ordered(shop.namespace)) == 2
        # One lets go of it: the other keeps it.
        await shop.kubectl("delete", f"{KIND}/one")
        await shop.cache("two", shop.entry(names[0]))
        await shop.wait("two", "Ready")
        assert len(lane.pods.ordered(shop.namespace)) == 2


async def test_kube_fledged_trap_what_changed_while_the_controller_was_down_is_not_lost(lane: Lane) -> None:
    async with lane.shop(nodes=3) as shop:
        first, second, third = shop.nodes
        silent = await shop.add_silent_node()
        await shop.kubectl("cordon", third)
        await shop.cache("warm", shop.entry(APP, nodeNames=[first, second, third]))
        await shop.cache("gone", {"images": [SIDECAR], "nodeNames": [silent]})
        await shop.wait("warm", "Ready")
        await lane.pods.until(lambda: lane.pods.left(shop.namespace, SIDECAR))
        lane.controller.kill()
        try:
            await shop.cache("warm", shop.entry(NEXT))
            await shop.cache("new", shop.entry(SIDECAR, nodeNames=[first]))
            await shop.kubectl("delete", f"{KIND}/gone", "--cascade=orphan")
            await shop.kubectl("uncordon", third)
            await shop.remove_node(second)
            (joined,) = await shop.add_nodes(1, "joined")
        finally:
            await lane.controller.start()
        await shop.wait("new", "Ready")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace, SIDECAR, silent))
        await shop.remove_node(silent)
        await shop.wait("warm", ".status.succeeded=3")
        await shop.wait("warm", "Ready")
        assert shop.pulls(NEXT) == shop.once(first, third, joined)


async def test_status_tells_progress_verdict_and_failures(lane: Lane) -> None:
    async with lane.shop(nodes=3) as shop:
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        status = await shop.status("warm")
        conditions = await shop.conditions("warm")
        assert {kind: (c.status, c.reason, c.observed_generation) for kind, c in conditions.items()} == {
            "Ready": ("True", "Warm", 1),
            "Progressing": ("False", "Settled", 1),
            "Degraded": ("False", "NoFailures", 1),
        }
        assert conditions["Ready"].message == "3 of 3 image and node pairs are there (100 %)"
        started, completed = str(status["startedAt"]), str(status["completedAt"])
        assert datetime.fromisoformat(started) <= datetime.fromisoformat(completed)
        header, row = (await shop.kubectl("get", "pic")).splitlines()
        assert header.split() == ["NAME", "DESIRED", "ACTIVE", "SUCCEEDED", "FAILED", "AGE"]
        assert row.split()[:5] == ["warm", "3", "0", "3", "0"]
        # The verdict changes, and is told once; so it is when it changes back.
        await shop.cache("warm", shop.entry(APP, WRONG))
        await shop.wait("warm", "Degraded")
        await shop.wait("warm", ".status.failed=3")
        assert (await shop.kubectl("get", "pic", "warm", "--no-headers")).split()[1:5] == ["6", "0", "3", "3"]
        await shop.cache("warm", shop.entry(APP))
        await shop.wait("warm", "Ready")
        await shop.wait("warm", "Degraded=False")
        told = await shop.told("warm", "Warm")
        assert sorted(set(told)) == [("Normal", "Warm"), ("Warning", "PullsFailed")]
        assert told.count(("Warning", "PullsFailed")) == 1
        assert len(told) <= 3


async def test_progress_is_seen_while_it_lasts(lane: Lane) -> None:
    async with lane.shop(nodes=3) as shop:
        await shop.cache("warm", shop.entry(APP), parallelism=1)
        await asyncio.gather(*(shop.wait("warm", f".status.succeeded={count}") for count in (1, 2)))
        await shop.wait("warm", "Ready")
        assert shop.pulls(APP) == shop.once(*shop.nodes)


async def test_thousand_nodes_that_do_not_exist_leave_a_small_status(lane: Lane) -> None:
    """Failures of a thousand nodes, with long words, are counted in tests/unit/puller/test_status.py."""
    async with lane.shop(nodes=2) as shop:
        names = [f"{'n' * 200}-{index}" for index in range(1000)]
        await shop.cache("warm", {"images": [APP, SIDECAR], "nodeNames": [*shop.nodes, *names]})
        await shop.wait("warm", "Ready")
        status = await shop.status("warm")
        assert (status["desired"], status["succeeded"], status["skipped"]) == (2004, 4, 2000)
        assert await shop.reasons("warm") == {"NodeNotFound": 2000}
        assert len(json.dumps(status)) <= MAX_STATUS_BYTES
