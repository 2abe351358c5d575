"""Refresh, completion, attempts, order and the operator's defaults of ImageCaches: a real control plane."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from itertools import accumulate
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.caching import APP, KIND, NEXT, SIDECAR, SLOW, WRONG, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.lane import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

MOVING = "registry.test/tool:latest"
REFRESH = "prewarm.dev/refresh"
SETTINGS = {
    "PREWARM_ATTEMPT_TIMEOUT_SECONDS": "77",
    "PREWARM_PULLER_SERVICE_ACCOUNT": "puller",
    "PREWARM_PULLER_PRIORITY_CLASS": "lifecycle-pullers",
    "PREWARM_POD_RETENTION": "OnFailure",
    "PREWARM_POD_RETENTION_SECONDS": "8",
    "PREWARM_REFRESH_SECONDS": "0",
    "PREWARM_HELPER_IMAGE": "registry.test/helper:v1",
    "PREWARM_HOLD_LIMIT": "1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("lifecycle")) as running:
        yield running


async def refresh(shop: Shop, name: str, value: str) -> None:
    """kubectl annotate."""
    await shop.kubectl("annotate", f"{KIND}/{name}", f"{REFRESH}={value}", "--overwrite")


def most_at_once(shop: Shop, *images: str) -> int:
    """Nodes that pulled at the same time, by the kubelets' own account."""
    pulls = [pull for pull in shop.lane.emulator.pulls if pull.image in images and pull.node in shop.nodes]
    moments = [(pull.started_at, 1) for pull in pulls] + [(pull.at, -1) for pull in pulls]
    return max(accumulate(change for _, change in sorted(moments)))


async def restart(lane: Lane) -> None:
    """kill -9, and another instance."""
    lane.controller.kill()
    await lane.controller.start()


async def test_kube_fledged_trap_refresh_asked_for_while_the_controller_was_down(lane: Lane) -> None:
    """There an annotation added meanwhile is never acted on."""
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP, MOVING))
        await shop.wait("warm", "Ready")
        lane.controller.kill()
        await refresh(shop, "warm", "while-down")
        await lane.controller.start()
        await shop.wait("warm", ".status.refreshHandled=while-down", 30)
        await lane.pods.until(lambda: len(lane.pods.ordered(shop.namespace, MOVING)) == 4)
        # Once for each value, whoever starts anew; and nothing verifies what nobody doubts.
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        await restart(lane)
        await refresh(shop, "warm", "again")
        await shop.wait("warm", ".status.refreshHandled=again", 30)
        await lane.pods.until(lambda: len(lane.pods.ordered(shop.namespace, MOVING)) == 6)
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        assert len(lane.pods.ordered(shop.namespace, MOVING)) == 6
        assert len(lane.pods.ordered(shop.namespace, APP)) == 2
        assert (await shop.conditions("warm"))["Ready"].status == "True"


async def test_empty_refresh_is_removed_and_acts_each_time(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.cache("warm", shop.entry(MOVING))
        await shop.wait("warm", "Ready")

        def ordered(number: int) -> bool:
            return len(lane.pods.ordered(shop.namespace)) == number

        for pods in (2, 3):
            await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
            await asyncio.sleep(1.0)  # A pull of this very second is fresh enough.
            await refresh(shop, "warm", "")
            await lane.pods.until(partial(ordered, pods))

            async def removed() -> bool:
                found = await shop.kubectl("get", f"{KIND}/warm", "-o", "jsonpath={.metadata.annotations}")
                return REFRESH not in found

            await eventually(removed, 10)


async def test_interval_and_schedule_ask_for_what_may_have_moved(lane: Lane) -> None:
    async with lane.shop(nodes=1) as paced, lane.shop(nodes=1) as timed:
        schedule = {"cron": "* * * * *", "timeZone": "Europe/Berlin"}
        await timed.cache("warm", timed.entry(MOVING), schedule=schedule)
        entry = paced.entry(APP, MOVING, WRONG)
        await paced.cache("warm", entry, refreshInterval="10s", attempts={"limit": 1})
        await paced.wait("warm", ".status.succeeded=2")
        # No second attempt at the wrong image would come within an hour otherwise.
        await lane.pods.until(lambda: len(lane.pods.ordered(paced.namespace, MOVING)) >= 3, 45)
        await lane.pods.until(lambda: len(lane.pods.ordered(paced.namespace, WRONG)) >= 3, 45)
        assert len(lane.pods.ordered(paced.namespace, APP)) == 1
        status = await paced.status("warm")
        assert status["refreshedAt"]
        assert "requestedAt" not in status
        await lane.pods.until(lambda: len(lane.pods.ordered(timed.namespace)) == 2, 75)
        assert lane.pods.ordered(timed.namespace)[1].metadata.creation_timestamp.second <= 5


async def test_once_ends_and_takes_up_no_new_node(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP), completion={"type": "Once"})
        await shop.wait("warm", "Finished")
        told = await shop.status("warm")
        found = await shop.conditions("warm")
        assert (found["Finished"].reason, found["Ready"].reason) == ("Succeeded", "Warm")
        (new,) = await shop.add_nodes(1, "new")
        await restart(lane)
        # Another cache shows that the new node was seen.
        await shop.cache("other", shop.entry(SIDECAR))
        await shop.wait("other", ".status.succeeded=3")
        assert not shop.pulls(APP)[new]
        assert await shop.status("warm") == told
        await refresh(shop, "warm", "1")
        await shop.wait("warm", ".status.succeeded=3")
        await shop.wait("warm", "Finished")
        assert shop.pulls(APP) == shop.once(*shop.nodes)


async def test_openkruise_trap_job_that_matches_nothing_is_no_success(lane: Lane) -> None:
    """There it completes at once with desired 0; here it waits, and the deadline says that nothing was done."""
    async with lane.shop() as shop:
        completion = {"type": "Once", "activeDeadlineSeconds": 3, "ttlSecondsAfterFinished": 2}
        await shop.cache("typo", shop.entry(APP), completion=completion)
        await shop.wait("typo", "Finished=False", 10)
        assert (await shop.conditions("typo"))["Ready"].reason == "NoNodes"
        await shop.wait("typo", "Finished", 10)
        assert (await shop.conditions("typo"))["Finished"].reason == "DeadlineExceeded"
        await shop.kubectl("wait", f"{KIND}/typo", "--for=delete", "--timeout=10s")


async def test_deadline_fails_the_rest_in_time(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        completion = {"type": "Once", "activeDeadlineSeconds": 4}
        await shop.cache("late", shop.entry(SLOW), completion=completion, parallelism=1)
        await shop.wait("late", "Finished", 15)
        status = await shop.status("late")
        assert (status["failed"], await shop.reasons("late")) == (2, {"Deadline": 2})
        # The pull that began ends, the other node is never asked.
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        assert len(lane.pods.ordered(shop.namespace)) == 1
        assert (await shop.status("late"))["failed"] == 2


async def test_cordoned_nodes_hold_up_neither_a_run_nor_its_slots(lane: Lane) -> None:
    """First in order, and silent; of nodes that die with a pod on them tells test_dead_nodes.py."""
    async with lane.shop(nodes=3) as shop:
        cordoned = [await shop.add_silent_node(f"silent{n}", conditions=[]) for n in range(2)]
        for node in cordoned:
            await shop.lane.kubectl("cordon", node)
        names = [*cordoned, *(node for node in shop.nodes if node not in cordoned)]
        await shop.cache("warm", shop.entry(APP, nodeNames=names), completion={"type": "Once"}, parallelism=2)
        await shop.wait("warm", ".status.succeeded=3", 20)
        await shop.wait("warm", "Finished", 60)
        status = await shop.status("warm")
        assert (status["succeeded"], status["skipped"]) == (3, 2)
        assert await shop.reasons("warm") == {"Cordoned": 2}


async def test_suspend_resume_parallelism_and_order(lane: Lane) -> None:
    async with lane.shop(nodes=6) as shop:
        await shop.cache("warm", shop.entry(SLOW), suspend=True, parallelism=1)
        await shop.wait("warm", ".status.observedGeneration=1")
        assert (await shop.conditions("warm"))["Progressing"].reason == "Suspended"
        assert not lane.pods.ordered(shop.namespace)
        await shop.cache("warm", shop.entry(SLOW), suspend=False, parallelism="50%")
        await shop.wait("warm", "Ready")
        assert most_at_once(shop, SLOW) == 3
        assert shop.pulls(SLOW) == shop.once(*shop.nodes)


async def test_priority_and_need_decide_who_is_first(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.cache("blocker", shop.entry(SLOW))
        await lane.pods.until(lambda: lane.pods.left(shop.namespace, SLOW))
        await shop.cache("last", shop.entry("registry.test/last:v1"), priority=-5)
        await shop.cache("later", shop.entry("registry.test/later:v1"), neededBy="2031-01-01T00:00:00Z")
        await shop.cache("sooner", shop.entry("registry.test/sooner:v1"), neededBy="2030-01-01T00:00:00Z")
        await shop.cache("first", shop.entry("registry.test/first:v1"), priority=5)
        await shop.wait("last", "Ready")
        ordered = [pod.images[0] for pod in lane.pods.ordered(shop.namespace)][1:]
        assert [image.partition("/")[2] for image in ordered] == ["first:v1", "sooner:v1", "later:v1", "last:v1"]


async def test_attempts_end_for_once_and_time_out_by_themselves(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        attempts = {"limit": 2, "timeoutSeconds": 33}
        await shop.cache("warm", shop.entry(WRONG), completion={"type": "Once"}, attempts=attempts)
        await shop.wait("warm", "Finished")
        assert (await shop.conditions("warm"))["Finished"].reason == "PullsFailed"
        assert len(lane.pods.ordered(shop.namespace)) == 2


async def test_always_asks_the_registry_again_at_each_refresh(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.cache("warm", shop.entry(APP), imagePullPolicy="Always")
        await shop.wait("warm", "Ready")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        # Times of the API are whole seconds: a pull answers what is asked in the second in which it ends.
        await asyncio.sleep(1.0)
        await refresh(shop, "warm", "again")
        await lane.pods.until(lambda: len(lane.pods.ordered(shop.namespace, APP)) == 4)
        assert (await shop.conditions("warm"))["Ready"].status == "True"
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        assert len(lane.pods.ordered(shop.namespace, APP)) == 4


async def test_operators_defaults_and_what_an_imagecache_says_instead(
    cluster: Cluster, lane: Lane, tmp_path: Path
) -> None:
    lane.controller.kill()
    async with running_lane(cluster, tmp_path, SETTINGS) as own, own.shop(nodes=1) as shop:
        await shop.kubectl("create", "serviceaccount", "puller")
        await shop.kubectl("create", "priorityclass", "lifecycle-pullers", "--value=-100")
        await shop.cache("usual", shop.entry(WRONG))
        await shop.cache("own", shop.entry(APP), attempts={"timeoutSeconds": 44}, serviceAccountName="default")
        await shop.kubectl("annotate", f"{KIND}/own", "prewarm.dev/keep-pods=Always")
        await shop.wait("own", "Ready")
        await shop.wait("usual", "Degraded")
        kept = json.loads(await shop.kubectl("get", "pods", "-o", "json"))["items"]
        seen = {pod["metadata"]["ownerReferences"][0]["name"]: pod["spec"] for pod in kept}
        assert (seen["usual"]["serviceAccountName"], seen["usual"]["activeDeadlineSeconds"]) == ("puller", 77)
        assert (seen["own"]["serviceAccountName"], seen["own"]["activeDeadlineSeconds"]) == ("default", 44)
        assert {spec["priorityClassName"] for spec in seen.values()} == {"lifecycle-pullers"}
        assert {spec["initContainers"][0]["image"] for spec in seen.values()} == {"registry.test/helper:v1"}
        first = own.pods.left(shop.namespace, APP)
        await own.pods.until(lambda: not own.pods.left(shop.namespace, APP), 20)
        held = datetime.now(first[0].metadata.creation_timestamp.tzinfo) - first[0].metadata.creation_timestamp
        assert held.total_seconds() >= 8
        # Of what is to be held, as much as the limit of the whole cluster lets.
        await shop.cache("held", shop.entry(NEXT), hold="1h")
        await shop.cache("held-too", shop.entry(SIDECAR), hold="1h")
        await shop.wait("held", "Ready")
        await shop.wait("held-too", "Ready")
        await own.pods.until(
            lambda: len(own.pods.left(shop.namespace, NEXT) + own.pods.left(shop.namespace, SIDECAR)) == 1
        )
    await lane.controller.start()
