"""What cannot be pulled is told at once, in the words of whoever refused it, and stands in nobody's way."""

import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from e2e import admission
from e2e.caching import APP, KIND, NEXT, PRIVATE, SIDECAR, WRONG, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.lane import eventually
from prewarm.simulation.registry import synthetic_image

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

FOREIGN = "registry.test/foreign:v1"
"""An index that has nothing for the nodes' architecture."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("failures")) as running:
        foreign = replace(synthetic_image(FOREIGN, [1_000_000]), matches_platform=False)
        running.emulator.fleet.registries.push(FOREIGN, foreign)
        yield running


async def failures(shop: Shop, name: str) -> dict[str, tuple[str, str]]:
    """Reason and message by image."""
    found = (await shop.status(name))["failures"]
    assert isinstance(found, list)
    return {failure["image"]: (failure["reason"], failure["message"]) for failure in found}


async def apply(shop: Shop, kind: str, name: str, spec: object, version: str = "v1") -> None:
    found = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
    await shop.kubectl("apply", "-f", "-", manifest=json.dumps(found))


async def test_kubelets_words_about_each_image_and_the_good_one_is_there(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        absent = [{"name": "absent"}]
        await shop.cache("mixed", shop.entry(WRONG, PRIVATE, FOREIGN, APP), imagePullSecrets=absent)
        began = time.monotonic()
        # The first within a few seconds; one pod at a time on a node, so three failures come one after the other.
        await shop.wait("mixed", ".status.failures[0].attempts=1", 10)
        await shop.wait("mixed", ".status.failed=6", 20)
        assert time.monotonic() - began < 20
        told = await failures(shop, "mixed")
        assert {image: reason for image, (reason, _) in told.items()} == {
            WRONG: "NotFound",
            PRIVATE: "MissingSecret",
            FOREIGN: "WrongPlatform",
        }
        assert f"failed to resolve image: {WRONG}: not found" in told[WRONG][1]
        assert "Unable to retrieve some image pull secrets (absent)" in told[PRIVATE][1]
        assert "no match for platform in manifest" in told[FOREIGN][1]
        assert await shop.reasons("mixed") == {"NotFound": 2, "MissingSecret": 2, "WrongPlatform": 2}
        await shop.wait("mixed", ".status.succeeded=2", 40)
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))


async def test_refused_pods_in_the_servers_words_and_retried_once_it_agrees(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await apply(shop, "ResourceQuota", "none", {"hard": {"pods": "0"}})
        await shop.cache("quota", shop.entry(APP))
        await shop.wait("quota", ".status.failed=2", 20)
        reason, message = (await failures(shop, "quota"))[APP]
        assert reason == "Refused"
        assert "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0" in message
        await shop.kubectl("delete", "resourcequota", "none")
        await shop.wait("quota", "Ready", 40)
        await admission.forbid(shop, "no pods on Sundays")
        await shop.cache("rule", shop.entry(NEXT))
        await shop.wait("rule", ".status.failed=2", 20)
        assert "no pods on Sundays" in (await failures(shop, "rule"))[NEXT][1]
        await admission.lift(shop, "ValidatingAdmissionPolicy")
        least = {"type": "Container", "min": {"memory": "100Mi"}}
        await apply(shop, "LimitRange", "least", {"limits": [least]})
        await apply(shop, "LimitRange", "most", {"limits": [{"type": "Container", "max": {"memory": "50Mi"}}]})
        await shop.cache("limits", shop.entry(SIDECAR), serviceAccountName="nobody")
        await shop.wait("limits", ".status.failed=2", 20)
        assert 'serviceaccount "nobody" not found' in (await failures(shop, "limits"))[SIDECAR][1]
        # An edit takes effect at once: what the LimitRanges say comes in place of the words about another pod.
        await shop.cache("limits", shop.entry(SIDECAR))
        await shop.wait("limits", ".status.observedGeneration=2", 20)

        async def told_of_limits() -> bool:
            found = (await failures(shop, "limits")).get(SIDECAR, ("", ""))
            return found[0] == "Refused" and "minimum memory usage per Container is 100Mi" in found[1]

        began = time.monotonic()
        await eventually(told_of_limits, 20)
        assert time.monotonic() - began < 8
        await shop.wait("limits", ".status.failed=2", 20)
        degraded = (await shop.conditions("limits"))["Degraded"]
        assert (degraded.status, degraded.observed_generation) == ("True", 2)
        assert await shop.reasons("limits") == {"Refused": 2}


async def test_container_that_pod_security_refuses_is_named(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await shop.kubectl("label", "namespace", shop.namespace, admission.ENFORCE_RESTRICTED)
        await admission.mutate(shop, admission.PRIVILEGED)
        await shop.cache("meshed", shop.entry(APP))
        await shop.wait("meshed", ".status.failed=1", 20)
        reason, message = (await failures(shop, "meshed"))[APP]
        assert reason == "Refused"
        assert 'violates PodSecurity "restricted' in message
        await admission.lift(shop, "MutatingAdmissionPolicy")


async def test_added_sidecar_that_never_ends_does_not_keep_the_pull_from_ending(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await shop.kubectl("label", "namespace", shop.namespace, admission.ENFORCE_RESTRICTED)
        await admission.mutate(shop, admission.SIDECAR)
        await shop.cache("meshed", shop.entry(APP))
        await shop.wait("meshed", "Ready", 40)
        altered = (await shop.conditions("meshed"))["PodsAltered"]
        assert "added containers" in altered.message
        assert "mesh-proxy" in altered.message
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        await admission.lift(shop, "MutatingAdmissionPolicy")


async def test_changed_image_is_a_failure_of_the_one_that_was_asked_for(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await admission.mutate(shop, admission.MIRROR)
        await shop.cache("mirrored", shop.entry(APP), attempts={"limit": 2})
        await shop.wait("mirrored", ".status.failed=1", 20)
        assert (await failures(shop, "mirrored"))[APP] == (
            "Altered",
            "admission changed the image of container pull-0 to mirror.test/shop:v1",
        )
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
        await admission.lift(shop, "MutatingAdmissionPolicy")


async def test_attempts_count_though_annotations_are_dropped(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        await admission.mutate(shop, admission.FORGETFUL)
        await shop.cache("forgetful", shop.entry(WRONG))
        await shop.kubectl(
            "wait",
            f"{KIND}/forgetful",
            "--for=jsonpath={.status.failures[0].attempts}=2",
            "--timeout=40s",
        )
        assert "dropped annotations" in (await shop.conditions("forgetful"))["PodsAltered"].message
        assert len(lane.pods.ordered(shop.namespace)) <= 3
        await admission.lift(shop, "MutatingAdmissionPolicy")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"reason": "OutOfpods", "message": "Pod was rejected: Node didn't have enough resource: pods"}, "Rejected"),
        ({"reason": "Evicted", "message": "The node was low on resource: memory. "}, "Evicted"),
        ({"reason": "Preempting", "message": "Preempted in order to admit critical pod"}, "Evicted"),
    ],
)
async def test_pod_that_the_node_ends(lane: Lane, words: dict[str, str], reason: str) -> None:
    """The test plays the node's kubelet: it ends the pod in the kubelet's words."""
    async with lane.shop() as shop:
        await shop.add_silent_node()
        await shop.cache("ended", shop.entry(APP))
        await lane.pods.until(lambda: lane.pods.left(shop.namespace))
        (pod,) = lane.pods.left(shop.namespace)
        status = json.dumps({"status": {"phase": "Failed", **words}})
        await shop.kubectl("patch", "pod", pod.metadata.name, "--subresource=status", "--type=merge", "-p", status)
        await shop.wait("ended", ".status.failed=1", 10)
        told, message = (await failures(shop, "ended"))[APP]
        assert (told, message) == (reason, f"{words['reason']}: {words['message'].strip()}")
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))
