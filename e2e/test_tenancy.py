"""Tenants of a cluster with the chart installed: what they may do works, and attempts to get more fail.

The controller runs under the chart's ServiceAccount: its rights and the admission policies bind it as in production.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from e2e.cluster.selection import Cluster, Lane
from e2e.controller import ControllerProcess
from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from e2e.manifests import get
from e2e.release import CONTROLLER, RELEASE, RELEASE_NAMESPACE, as_user, attempt, installed
from prewarm.api.image_cache import image_cache_manifest
from prewarm.cli.asks import ImagesOnNodes
from prewarm.cli.warming import images_cache
from prewarm.cluster.connection import Connection
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.pods import OwnerReference, Taint, TaintEffect
from prewarm.simulation.registry import Registries, Registry

APP = "registry.test/web:v1"
PRIVATE = "private.test/web:v1"
POOL = {"prewarm.dev/test": "tenancy"}
ALICE, MALLORY = "alice", "mallory"
"""May do anything with ImageCaches of the namespace: with the right to create pods there, and without."""
NODES = 3


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, helm: Path) -> Iterator[None]:
    if cluster.lane is Lane.EXISTING:
        pytest.skip("installing and uninstalling would take away what is installed on an existing cluster")
    with installed(cluster, helm):
        yield


@pytest.fixture
def tenants(cluster: Cluster, namespace: str) -> str:
    """The namespace in which they have their rights."""
    grant(cluster, namespace, ALICE, "imagecaches", "imagecaches/status", "pods")
    grant(cluster, namespace, MALLORY, "imagecaches", "imagecaches/status")
    return namespace


def grant(cluster: Cluster, namespace: str, user: str, *resources: str) -> None:
    """Every verb, as careless Roles have it."""
    groups = [{"apiGroups": ["", "prewarm.dev"], "resources": list(resources), "verbs": ["*"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": user, "namespace": namespace}}
    binding = {
        **role,
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    both = [json.dumps({**role, "kind": "Role", "rules": groups}), json.dumps(binding)]
    cluster.kubectl("create", "-f", "-", manifest="\n---\n".join(both))


def manifest(namespace: str, name: str = "web", *images: str, **spec: object) -> str:
    entry = {"images": list(images or (APP,)), "nodeSelector": POOL}
    return json.dumps(
        {
            "apiVersion": "prewarm.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"cacheSpec": [entry], **spec},
        }
    )


def by(cluster: Cluster, user: str, namespace: str, *arguments: str, manifest: str | None = None) -> str:
    """kubectl in a user's name; "" if it succeeded, else what was said."""
    return attempt(cluster, "-n", namespace, *as_user(user), *arguments, manifest=manifest)


CACHE = "imagecaches.prewarm.dev/web"
NO_PODS = "its author must be allowed to create pods there"


def test_without_the_right_to_create_pods_nothing_is_pulled(cluster: Cluster, tenants: str) -> None:
    create = ("create", "-f", "-")
    assert f"{NO_PODS}: {MALLORY} may not in {tenants}" in by(
        cluster, MALLORY, tenants, *create, manifest=manifest(tenants)
    )
    assert by(cluster, ALICE, tenants, *create, manifest=manifest(tenants)) == ""
    for change in (
        ("patch", CACHE, "--type=merge", "-p", '{"spec":{"priority":1}}'),
        ("annotate", CACHE, "prewarm.dev/refresh=now"),
        ("annotate", CACHE, "prewarm.dev/refresh="),
        ("annotate", CACHE, "prewarm.dev/purge=now"),
    ):
        assert NO_PODS in by(cluster, MALLORY, tenants, *change)
        assert by(cluster, ALICE, tenants, *change, "--dry-run=server") == ""
    assert by(cluster, MALLORY, tenants, "label", CACHE, "team=a") == ""
    assert by(cluster, MALLORY, tenants, "delete", CACHE) == ""


def test_another_namespace_is_out_of_reach(cluster: Cluster, tenants: str) -> None:
    assert "forbidden" in by(cluster, ALICE, "default", "create", "-f", "-", manifest=manifest("default"))


def test_only_the_planner_plans(cluster: Cluster, tenants: str) -> None:
    lists = (ImageList((APP,), ("absent",)),)
    planned = ImageCache(tenants, "web", lists=lists, planned=True, workload=f"deployment/{tenants}/web")
    as_json = json.dumps(image_cache_manifest(planned))
    only = "only prewarm's planner"
    assert only in by(cluster, ALICE, tenants, "create", "-f", "-", manifest=as_json)
    assert NO_PODS in by(cluster, MALLORY, tenants, "create", "-f", "-", manifest=as_json)
    assert by(cluster, CONTROLLER, tenants, "create", "-f", "-", manifest=as_json) == ""
    assert only in by(cluster, ALICE, tenants, "label", CACHE, "prewarm.dev/planned-")
    assert only in by(cluster, ALICE, tenants, "label", "--overwrite", CACHE, "prewarm.dev/planned=false")
    assert by(cluster, ALICE, tenants, "create", "-f", "-", manifest=manifest(tenants, "own")) == ""
    own = "imagecaches.prewarm.dev/own"
    assert only in by(cluster, ALICE, tenants, "label", own, "prewarm.dev/planned=true")
    foreign = by(cluster, ALICE, tenants, "annotate", own, "prewarm.dev/workload=deployment/kube-system/coredns")
    assert "names a workload of the same namespace" in foreign


def test_what_prewarm_warm_writes_needs_no_right_to_plan(cluster: Cluster, tenants: str) -> None:
    for_images = images_cache(ImagesOnNodes(tenants, (APP,), None, (), (), ""))
    for_workload = replace(for_images, name="warm-web", workload=f"deployment/{tenants}/web", plan_annotation="{}")
    for cache in (for_images, for_workload):
        apply = ("apply", "--server-side", "-f", "-")
        assert by(cluster, ALICE, tenants, *apply, manifest=json.dumps(image_cache_manifest(cache))) == ""
        assert NO_PODS in by(
            cluster, MALLORY, tenants, *apply, manifest=json.dumps(image_cache_manifest(replace(cache, name="m")))
        )


def test_cluster_scoped_kinds_are_the_administrators(cluster: Cluster, tenants: str) -> None:
    for kind in ("NodeImage", "PrewarmPolicy"):
        wanted = json.dumps({"apiVersion": "prewarm.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": {}})
        said = by(cluster, ALICE, tenants, "create", "--validate=ignore", "-f", "-", manifest=wanted)
        assert "forbidden" in said
        assert "at the cluster scope" in said


def test_nobody_else_makes_pullers(cluster: Cluster, tenants: str) -> None:
    """They would count against the budgets and keep everyone's pulls waiting."""
    metadata = {"name": "fake", "labels": {"prewarm.dev/puller": "true"}}
    spec = {"containers": [{"name": "pull-0", "image": APP}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    only = "only prewarm sets, changes or removes the label prewarm.dev/puller"
    assert only in by(cluster, ALICE, tenants, "create", "-f", "-", manifest=json.dumps(pod))
    metadata.pop("labels")
    assert by(cluster, ALICE, tenants, "create", "-f", "-", manifest=json.dumps(pod)) == ""
    assert only in by(cluster, ALICE, tenants, "label", "pod/fake", "prewarm.dev/puller=true")


def test_garbage_collection_is_not_in_the_way_of_the_policies(cluster: Cluster, tenants: str) -> None:
    for name in ("gone", "orphaned"):
        cluster.kubectl("create", "deployment", name, f"--image={APP}", "--replicas=0", "-n", tenants)
        metadata = get(cluster, "deployment", name, "-n", tenants)["metadata"]
        assert isinstance(metadata, dict)
        owner = OwnerReference("Deployment", name, metadata["uid"], "apps/v1")
        lists = (ImageList((APP,), ("absent",)),)
        planned = ImageCache(tenants, name, lists=lists, planned=True, owner=owner)
        made = json.dumps(image_cache_manifest(planned))
        assert by(cluster, CONTROLLER, tenants, "create", "-f", "-", manifest=made) == ""
    cluster.kubectl("delete", "deployment", "gone", "-n", tenants)
    cluster.kubectl("wait", "--for=delete", "imagecaches.prewarm.dev/gone", "-n", tenants, "--timeout=60s")
    cluster.kubectl("delete", "deployment", "orphaned", "-n", tenants, "--cascade=orphan", "--timeout=60s")
    left = get(cluster, "imagecaches.prewarm.dev/orphaned", "-n", tenants)["metadata"]
    assert isinstance(left, dict)
    assert "ownerReferences" not in left


MAY_NOT = (
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "secrets"),
    ("create", "serviceaccounts/token"),
    ("patch", "pods"),
    ("update", "pods"),
    ("deletecollection", "pods"),
    ("create", "pods/exec"),
    ("create", "pods/eviction"),
    ("patch", "nodes"),
    ("update", "nodes/status"),
    ("delete", "nodes"),
    ("patch", "deployments.apps"),
    ("patch", "deployments.apps/scale"),
    ("create", "prewarmpolicies.prewarm.dev"),
    ("patch", "prewarmpolicies.prewarm.dev"),
    ("deletecollection", "imagecaches.prewarm.dev"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("impersonate", "users"),
    ("create", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("delete", "validatingadmissionpolicies.admissionregistration.k8s.io"),
)


def test_the_controller_itself_may_not(cluster: Cluster, tenants: str) -> None:
    granted = [
        f"{verb} {what}"
        for verb, what in MAY_NOT
        if by(cluster, CONTROLLER, tenants, "auth", "can-i", verb, *_split(what), "-q") == ""
    ]
    assert granted == []


def _split(what: str) -> tuple[str, ...]:
    """kubectl wants a subresource as an option."""
    resource, _, subresource = what.partition("/")
    return (resource, f"--subresource={subresource}") if subresource else (resource,)


@dataclass
class Tenancy:
    """A controller with the rights of the chart, emulated nodes, one of them of the control plane."""

    cluster: Cluster
    namespace: str
    emulator: Emulator
    controller: ControllerProcess

    async def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        self.controller.check()
        self.emulator.check()
        return await asyncio.to_thread(self.cluster.kubectl, "-n", self.namespace, *arguments, manifest=manifest)

    async def create(self, text: str) -> None:
        said = await asyncio.to_thread(by, self.cluster, ALICE, self.namespace, "create", "-f", "-", manifest=text)
        assert said == ""

    async def wait(self, name: str, condition: str) -> Mapping[str, object]:
        """The status once the condition holds."""
        cache = f"imagecaches.prewarm.dev/{name}"
        await self.kubectl("wait", cache, f"--for={condition}", "--timeout=60s")
        status: Mapping[str, object] = json.loads(await self.kubectl("get", cache, "-o", "json"))["status"]
        return status

    def pulled(self, image: str) -> list[str]:
        """Nodes that got it, by the kubelets' own account."""
        return sorted(pull.node for pull in self.emulator.pulls if pull.image == image and not pull.error)


def reasons(status: Mapping[str, object]) -> dict[str, int]:
    """How many pairs of node and image each reason keeps."""
    found = status["reasons"]
    assert isinstance(found, list)
    return {entry["reason"]: entry["count"] for entry in found}


@pytest.fixture
async def lane(cluster: Cluster, tenants: str, tmp_path: Path) -> AsyncIterator[Tenancy]:
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    registries = Registries([Registry("private.test", accepts=frozenset({"user:secret"}))], Catalog())
    connection = Connection.load(cluster.kubeconfig, cluster.context)
    plan = NodePlan(count=NODES, prefix="tenancy", labels=POOL, bandwidth=100e6)
    taint = Taint("node-role.kubernetes.io/control-plane", "", TaintEffect.NO_SCHEDULE)
    masters = NodePlan(count=1, prefix="tenancy-master", labels=POOL, taints=(taint,), bandwidth=100e6)
    kubeconfig = await cluster.control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, RELEASE)
    controller = ControllerProcess(kubeconfig, tmp_path / "controller.log", {"PREWARM_LEASE_DURATION_SECONDS": "2"})
    options = EmulatorOptions(nodes=plan, registries=registries, delete_nodes=True)
    async with Emulator(connection, options) as emulator:
        await emulator.add_nodes(masters)
        try:
            await controller.start()
            yield Tenancy(cluster, tenants, emulator, controller)
        finally:
            await controller.stop()
            await asyncio.to_thread(
                cluster.kubectl, "delete", "prewarmpolicies.prewarm.dev", "--all", "--ignore-not-found"
            )


@pytest.mark.timeout(240)
async def test_the_controller_does_its_work_under_its_own_rights_and_policies(lane: Tenancy) -> None:
    """Tenants' ImageCaches come true, and bring neither other credentials nor nodes that their pods would not get."""
    await lane.create(manifest(lane.namespace))
    status = await lane.wait("web", "condition=Ready")
    workers = [f"tenancy-{number}" for number in range(NODES)]
    assert lane.pulled(APP) == workers
    assert status["failed"] == 0

    master = {"images": ["registry.test/b:v1"], "nodeNames": ["tenancy-master-0"]}
    named = json.loads(manifest(lane.namespace, "master"))
    named["spec"] = {"cacheSpec": [master]}
    await lane.create(json.dumps(named))
    status = await lane.wait("master", "jsonpath={.status.skipped}=1")
    assert reasons(status) == {"Tainted": 1}
    assert lane.pulled("registry.test/b:v1") == []

    auth = base64.b64encode(b"user:secret").decode()
    config = json.dumps({"auths": {"private.test": {"auth": auth}}})
    secret = ("create", "secret", "generic", "key", "--type=kubernetes.io/dockerconfigjson")
    await lane.kubectl(*secret, f"--from-literal=.dockerconfigjson={config}", "-n", "default")
    try:
        secrets = [{"name": "key"}]
        await lane.create(manifest(lane.namespace, "stolen", PRIVATE, imagePullSecrets=secrets))
        status = await lane.wait("stolen", f"jsonpath={{.status.failed}}={NODES}")
        assert lane.pulled(PRIVATE) == []
        await lane.kubectl(*secret, f"--from-literal=.dockerconfigjson={config}")
        await lane.create(manifest(lane.namespace, "own", PRIVATE, imagePullSecrets=secrets))
        await lane.wait("own", "condition=Ready")
        assert lane.pulled(PRIVATE) == workers
    finally:
        await lane.kubectl("delete", "secret", "key", "-n", "default")
    log = lane.controller.log.read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "denied request" not in log


@pytest.mark.timeout(240)
async def test_limits_of_the_namespace_hold_against_its_tenants(lane: Tenancy) -> None:
    await lane.kubectl("label", "namespace", lane.namespace, "tenant=a")
    limits = {"images": 2, "nodes": 2, "priority": 0, "registries": ["registry.test"], "nodeSelector": POOL}
    policy = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": "tenants"},
        "spec": {"namespaceSelector": {"matchLabels": {"tenant": "a"}}, "limits": limits},
    }
    await lane.kubectl("create", "-f", "-", manifest=json.dumps(policy))
    await lane.create(manifest(lane.namespace, "first", APP, "elsewhere.test/a:v1", priority=1000))
    status = await lane.wait("first", "condition=Ready")
    # The control-plane node counts, too: what a tenant may not have comes before what a node does not take.
    there = NODES + 1
    assert reasons(status) == {"LimitNodes": there - 2, "RegistryNotAllowed": there}
    more = [f"registry.test/more:v{number}" for number in range(3)]
    await lane.create(manifest(lane.namespace, "second", *more, priority=1000))
    status = await lane.wait("second", "jsonpath={.status.succeeded}=2")
    assert reasons(status) == {"LimitImages": 2 * there, "LimitNodes": there - 2}
    pulled = {image: lane.pulled(image) for image in (APP, *more)}
    assert sum(map(len, pulled.values())) == 4
    await lane.kubectl("delete", "prewarmpolicies.prewarm.dev", "tenants")
    # Ready it was with what the limits left of it.
    await lane.wait("second", f"jsonpath={{.status.succeeded}}={len(more) * NODES}")
    assert lane.pulled(more[2]) == [f"tenancy-{number}" for number in range(NODES)]
