"""Quotas, limits, private registries, both forms of puller, and holding: a real control plane, emulated kubelets."""

import base64
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from e2e import admission
from e2e.caching import APP, KIND, LABEL, LOGIN, NEXT, PRIVATE, SIDECAR, Lane, Shop, running_lane
from e2e.cluster.selection import Cluster
from e2e.emulator.nodes import NodePlan
from e2e.lane import eventually
from prewarm.simulation.messages import Runtime
from prewarm.simulation.registry import synthetic_image

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lane]:
    async with running_lane(cluster, tmp_path_factory.mktemp("forms")) as running:
        yield running


async def apply(shop: Shop, kind: str, name: str, spec: object, version: str = "v1", **fields: object) -> None:
    found = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec, **fields}
    await shop.kubectl("apply", "-f", "-", manifest=json.dumps(found))


async def pods(shop: Shop) -> list[dict[str, dict[str, object]]]:
    """Puller pods of the test, as they are."""
    found = json.loads(await shop.kubectl("get", "pods", "-l", "prewarm.dev/puller=true", "-o", "json"))
    items = found["items"]
    assert isinstance(items, list)
    return items


async def held(shop: Shop, node: str) -> dict[str, str]:
    """What the node's record says is held, and until when."""
    found = json.loads(await shop.kubectl("get", f"nodeimages.prewarm.dev/{node}", "-o", "json"))
    return {image["image"]: image["heldUntil"] for image in found["status"]["images"] if "heldUntil" in image}


async def test_quota_is_left_to_the_workloads(lane: Lane) -> None:
    async with lane.shop(nodes=3) as shop:
        container = {"name": "c", "image": SIDECAR, "resources": {"requests": {"cpu": "100m"}}}
        web = {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "nodeSelector": {LABEL: shop.namespace},
                    "terminationGracePeriodSeconds": 0,
                    "containers": [container],
                },
            },
        }
        await apply(shop, "Deployment", "web", web, "apps/v1")
        await shop.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        # Two pods run, and a rollout would add one more.
        await apply(shop, "ResourceQuota", "pods", {"hard": {"pods": "3"}})
        await shop.kubectl("wait", "resourcequota/pods", "--for=jsonpath={.status.used.pods}=2", "--timeout=30s")
        await shop.cache("next", shop.entry(NEXT))
        await shop.wait("next", "QuotaLimited", 20)
        said = (await shop.conditions("next"))["QuotaLimited"]
        assert said.reason == "QuotaHeadroom"
        assert said.message == "ResourceQuota pods has 1 of 3 pods left, of which 1 are kept for pods of workloads"
        assert not lane.pods.ordered(shop.namespace)
        # A rollout of the workload meets no puller in its quota.
        await shop.kubectl("set", "image", "deployment/web", f"c={APP}")
        await shop.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        conditions = json.loads(await shop.kubectl("get", "deployment/web", "-o", "json"))["status"]["conditions"]
        assert not any(condition["type"] == "ReplicaFailure" for condition in conditions)
        # One more pod: pulls go on, one at a time.
        await apply(shop, "ResourceQuota", "pods", {"hard": {"pods": "4"}})
        await shop.wait("next", "Ready", 60)
        assert shop.pulls(NEXT) == shop.once(*shop.nodes)
        assert "QuotaLimited" not in await shop.conditions("next")


async def test_requests_fit_limit_ranges_and_quotas_of_every_resource(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        container = {
            "type": "Container",
            "min": {"cpu": "50m", "memory": "20Mi", "ephemeral-storage": "2Mi"},
            "max": {"cpu": "80m", "memory": "48Mi"},
            "maxLimitRequestRatio": {"memory": "2"},
        }
        await apply(shop, "LimitRange", "containers", {"limits": [container]})
        await apply(shop, "LimitRange", "pods", {"limits": [{"type": "Pod", "max": {"cpu": "150m"}}]})
        resources = ("cpu", "memory", "ephemeral-storage")
        hard = {
            f"{kind}.{name}": "2" if name == "cpu" else "2Gi" for kind in ("requests", "limits") for name in resources
        }
        await apply(shop, "ResourceQuota", "all", {"hard": hard})
        await shop.cache("narrow", shop.entry(APP))
        await shop.wait("narrow", "Ready", 40)
        assert shop.pulls(APP) == shop.once(*shop.nodes)


async def test_private_registry_by_service_account_under_restricted_security_and_a_mesh(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        login = base64.b64encode(LOGIN.encode()).decode()
        config = base64.b64encode(json.dumps({"auths": {PRIVATE.partition("/")[0]: {"auth": login}}}).encode()).decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}}
        await shop.kubectl(
            "create",
            "-f",
            "-",
            manifest=json.dumps(
                {**secret, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}}
            ),
        )
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop"}}
        await shop.kubectl(
            "create", "-f", "-", manifest=json.dumps({**account, "imagePullSecrets": [{"name": "login"}]})
        )
        await shop.kubectl("label", "namespace", shop.namespace, admission.ENFORCE_RESTRICTED)
        await admission.mutate(shop, admission.SIDECAR)
        await shop.cache("private", shop.entry(PRIVATE), serviceAccountName="shop")
        await shop.wait("private", "Ready", 40)
        assert shop.pulls(PRIVATE) == shop.once(*shop.nodes)
        await admission.lift(shop, "MutatingAdmissionPolicy")


async def test_images_are_mounted_where_the_node_can(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        old = NodePlan(
            count=1, prefix=f"{shop.namespace}-old", labels={LABEL: shop.namespace}, runtime=Runtime.CONTAINERD_1_6
        )
        shop.nodes.extend(profile.name for profile in old.profiles())
        await lane.emulator.add_nodes(old)
        await shop.kubectl("label", "namespace", shop.namespace, admission.ENFORCE_RESTRICTED)
        await shop.cache("mounted", shop.entry(APP), pullerForm="Volume", hold="1h")
        await shop.wait("mounted", ".status.succeeded=2", 40)
        await shop.wait("mounted", "Ready", 40)
        new, other = shop.nodes
        found = {str(pod["spec"]["nodeName"]): pod["spec"] for pod in await pods(shop)}
        assert found[new]["volumes"] == [{"name": "pull-0", "image": {"reference": APP, "pullPolicy": "IfNotPresent"}}]
        assert "initContainers" in found[other]
        said = (await shop.conditions("mounted"))["VolumeForm"]
        assert (said.status, said.reason) == ("False", "NotEverywhere")
        assert said.message.startswith("1 of 2 nodes cannot mount images")
        assert shop.pulls(APP) == shop.once(*shop.nodes)


async def test_policy_of_the_namespace_says_how_caches_pull_that_do_not(lane: Lane) -> None:
    async with lane.shop(nodes=1) as shop:
        (node,) = shop.nodes
        match = {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}}
        policy = {"apiVersion": "prewarm.dev/v1alpha1", "kind": "PrewarmPolicy", "metadata": {"name": shop.namespace}}

        async def say(**fields: object) -> None:
            spec = {"namespaceSelector": match, **fields}
            await shop.kubectl("apply", "-f", "-", manifest=json.dumps({**policy, "spec": spec}))

        async def volumes(image: str) -> list[bool]:
            """Of each pod that holds the image: whether it mounts it."""
            return ["initContainers" not in pod["spec"] for pod in await pods(shop) if image in json.dumps(pod["spec"])]

        await say(pullerForm="Volume")
        try:
            await shop.cache("open", shop.entry(APP), hold="1h")
            await shop.cache("decided", shop.entry(NEXT), hold="1h", pullerForm="Container")
            await shop.wait("open", "VolumeForm", 40)
            for name in ("open", "decided"):
                await shop.wait(name, "Ready", 40)
            assert (await volumes(APP), await volumes(NEXT)) == ([True], [False])
            assert "VolumeForm" not in await shop.conditions("decided")
            # Changed under a cache that lives: what is there stays, and what comes has the new form.
            await say()
            await shop.cache("open", shop.entry(APP, SIDECAR), hold="1h")
            await shop.wait("open", ".status.succeeded=2", 40)
            await shop.wait("open", "Ready", 40)
            assert (await volumes(APP), await volumes(SIDECAR)) == ([True], [False])
            assert "VolumeForm" not in await shop.conditions("open")
            assert shop.pulls(APP) == shop.pulls(SIDECAR) == shop.once(node)
        finally:
            await shop.kubectl("delete", "prewarmpolicies.prewarm.dev", shop.namespace)


@pytest.mark.parametrize("form", ["Container", "Volume"])
async def test_image_that_holds_no_program_is_pulled(lane: Lane, form: str) -> None:
    """As of `FROM scratch` and distroless: another pod's container that needs a shell of it does not start."""
    image = f"registry.test/scratch-{form.lower()}:v1"
    scratch = replace(synthetic_image(image, [1_000_000]), has_programs=False)
    lane.emulator.fleet.registries.push(image, scratch)
    async with lane.shop(nodes=1) as shop:
        await shop.cache("warm", shop.entry(image), pullerForm=form, hold="1h")
        await shop.wait("warm", "Ready", 40)
        assert shop.pulls(image) == shop.once(*shop.nodes)
        (puller,) = await pods(shop)
        assert ("initContainers" in puller["spec"]) is (form == "Container")
        container = {"name": "c", "image": image, "command": ["sh", "-c", "true"]}
        spec = {"nodeName": shop.nodes[0], "restartPolicy": "Never", "containers": [container]}
        await apply(shop, "Pod", "shell", spec)
        path = "{.status.containerStatuses[0].state.terminated.reason}"
        await shop.kubectl("wait", "pod/shell", f"--for=jsonpath={path}=StartError", "--timeout=40s")


async def test_each_architecture_gets_what_the_image_has_for_it(lane: Lane) -> None:
    both, one = "registry.test/everywhere:v1", "registry.test/amd64-only:v1"
    for image, architectures in ((both, {"amd64", "arm64"}), (one, {"amd64"})):
        index = replace(synthetic_image(image, [1_000_000]), architectures=frozenset(architectures))
        lane.emulator.fleet.registries.push(image, index)
    async with lane.shop(nodes=1) as shop:
        (amd,) = shop.nodes
        (arm,) = await shop.add_nodes(1, "arm", {"kubernetes.io/arch": "arm64"})
        await shop.cache("mixed", shop.entry(both, one))
        await shop.wait("mixed", ".status.succeeded=3", 40)
        await shop.wait("mixed", "Degraded", 40)
        (failure,) = msgspec.convert((await shop.status("mixed"))["failures"], list[dict[str, str | int]])
        assert (failure["image"], failure["node"], failure["reason"]) == (one, arm, "WrongPlatform")
        assert "no match for platform in manifest" in str(failure["message"])
        # Whoever knows says so, and nothing fails.
        await shop.cache("mixed", shop.entry(both), shop.entry(one, nodeSelector={"kubernetes.io/arch": "amd64"}))
        await shop.wait("mixed", "Ready", 40)
        assert (await shop.status("mixed"))["desired"] == 3
        assert (shop.pulls(both), shop.pulls(one)) == (shop.once(amd, arm), shop.once(amd))


async def test_held_pods_stay_over_a_restart_take_no_quota_and_go_with_the_hold(lane: Lane) -> None:
    async with lane.shop(nodes=2) as shop:
        await apply(shop, "ResourceQuota", "pods", {"hard": {"pods": "5", "requests.cpu": "1", "limits.cpu": "2"}})
        await shop.cache("kept", shop.entry(APP), hold="1h")
        await shop.wait("kept", "Ready", 40)
        await shop.kubectl("wait", "resourcequota/pods", "--for=jsonpath={.status.used.pods}=0", "--timeout=30s")
        before = {str(pod["metadata"]["uid"]) for pod in await pods(shop)}
        assert len(before) == 2
        assert set(await held(shop, shop.nodes[0])) == {APP}
        lane.controller.kill()
        await lane.controller.start()
        # Its work is done again from the pods alone: a second image comes, the first pods stay.
        await shop.cache("kept", shop.entry(APP, NEXT), hold="1h")
        await shop.wait("kept", ".status.succeeded=4", 60)
        await shop.wait("kept", "Ready", 40)
        assert before < {str(pod["metadata"]["uid"]) for pod in await pods(shop)}
        assert shop.pulls(APP) == shop.once(*shop.nodes)
        await shop.kubectl("patch", f"{KIND}/kept", "--type=merge", "-p", json.dumps({"spec": {"hold": None}}))
        await lane.pods.until(lambda: not lane.pods.left(shop.namespace))

        async def released() -> bool:
            return not await held(shop, shop.nodes[0])

        await eventually(released, 20)
