"""The real API server takes our kinds: it checks structural rules, the cost of CEL, and what users get wrong."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from e2e.cluster.selection import Cluster
from e2e.manifests import PROJECT, get, in_namespace, install_definitions, server_side_apply
from prewarm.api.image_cache import MAX_NODE_NAMES, decode_image_cache, image_cache_manifest
from prewarm.api.image_cache_status import bounded_status, status_manifest
from prewarm.api.node_image import decode_node_images, node_images_manifest
from prewarm.api.policy import decode_policy, policy_manifest
from prewarm.model.image_caches import (
    Condition,
    ImageCache,
    ImageCacheStatus,
    ImageList,
    Policy,
    PolicyMode,
    PullFailure,
)
from prewarm.model.images import PullPolicy
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from prewarm.model.pods import OwnerReference, Toleration
from prewarm.model.selectors import LabelSelector, Operator, Requirement

ENTRY = {"images": ["registry.example/web:v1"]}


@pytest.fixture(scope="module", autouse=True)
def definitions(cluster: Cluster) -> None:
    install_definitions(cluster)


@pytest.fixture
def cluster_scoped(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Names of cluster-scoped objects of ours that are deleted after the test."""
    created: list[str] = []

    def remember(name: str) -> str:
        created.append(name)
        return name

    yield remember
    for name in created:
        cluster.kubectl("delete", "--ignore-not-found", name)


def image_cache(spec: object, namespace: str, name: str = "web") -> Mapping[str, object]:
    return {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def full_cache(namespace: str) -> ImageCache:
    return ImageCache(
        namespace,
        "full",
        lists=(
            ImageList(("registry.example/web:v1", "busybox"), ("node-2", "node-1"), (("zone", "a"),)),
            ImageList(("registry.example:5000/a/b@sha256:" + "0" * 64,)),
        ),
        pull_secrets=("credentials",),
        service_account="web",
        pull_policy=PullPolicy.ALWAYS,
        tolerations=(Toleration("gpu", "Exists"), Toleration("dedicated", "Equal", "web", "NoExecute")),
        parallelism="10%",
        attempt_timeout_seconds=1200,
        attempt_limit=3,
        suspend=True,
        priority=-7,
        needed_by=1_800_000_000.25,
        planned=True,
        workload=f"deployment/{namespace}/web",
        plan_annotation='{"trigger":"Rollout"}',
    )


def test_definitions_are_accepted_without_complaint(cluster: Cluster) -> None:
    for plural in ("imagecaches", "nodeimages", "prewarmpolicies"):
        status = get(cluster, "crd", f"{plural}.prewarm.dev")["status"]
        assert isinstance(status, dict)
        conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
        assert (conditions["Established"], conditions["NamesAccepted"]) == ("True", "True")
        assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("path", sorted((PROJECT / "examples").glob("image-cache*.yaml")), ids=lambda path: path.stem)
def test_examples_are_accepted_and_read(cluster: Cluster, namespace: str, path: Path) -> None:
    manifest = in_namespace(yaml.safe_load(path.read_text()), namespace)
    server_side_apply(cluster, manifest)
    name = decode_image_cache(manifest).name
    stored = get(cluster, "imagecaches.prewarm.dev", name, "-n", namespace)
    assert decode_image_cache(stored).lists == decode_image_cache(manifest).lists
    assert decode_image_cache(stored).error == ""


@pytest.mark.parametrize("path", sorted((PROJECT / "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_policies_are_accepted_and_read(cluster: Cluster, cluster_scoped: Callable[[str], str], path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    policy = decode_policy(manifest)
    cluster_scoped(f"prewarmpolicy/{policy.name}")
    server_side_apply(cluster, manifest)
    stored = decode_policy(get(cluster, "prewarmpolicies.prewarm.dev", policy.name))
    assert policy_manifest(stored) == policy_manifest(policy)


def test_an_image_cache_and_its_status_round_trip(cluster: Cluster, namespace: str) -> None:
    cache = full_cache(namespace)
    server_side_apply(cluster, image_cache_manifest(cache))
    status = ImageCacheStatus(
        observed_generation=1,
        conditions=(Condition("Ready", False, "Pulling", "2 of 4", 1_800_000_000.5),),
        desired=4,
        active=1,
        succeeded=2,
        failed=1,
        reasons=(("ErrImagePull", 1),),
        failures=(PullFailure("registry.example/web:v1", "node-1", "NotFound", "not found", 5, 1_800_000_000.0),),
        started_at=1_800_000_000.0,
    )
    server_side_apply(cluster, status_manifest(cache, status), options=["--subresource=status"])
    stored = decode_image_cache(get(cluster, "imagecaches.prewarm.dev", "full", "-n", namespace))
    assert stored.status == status
    assert stored.generation == 1
    assert image_cache_manifest(stored) == image_cache_manifest(cache)


def test_applying_again_changes_nothing(cluster: Cluster, namespace: str) -> None:
    server_side_apply(cluster, image_cache_manifest(full_cache(namespace)))
    before = get(cluster, "imagecaches.prewarm.dev", "full", "-n", namespace)["metadata"]
    server_side_apply(cluster, image_cache_manifest(full_cache(namespace)))
    after = get(cluster, "imagecaches.prewarm.dev", "full", "-n", namespace)["metadata"]
    assert before == after


def test_a_list_that_shrinks_leaves_nothing_of_the_old_one(cluster: Cluster, namespace: str) -> None:
    cache = full_cache(namespace)
    server_side_apply(cluster, image_cache_manifest(cache))
    smaller = ImageCache(namespace, "full", lists=(ImageList(("busybox",), ("node-1",)),))
    server_side_apply(cluster, image_cache_manifest(smaller))
    stored = decode_image_cache(get(cluster, "imagecaches.prewarm.dev", "full", "-n", namespace))
    assert (stored.lists, stored.pull_secrets, stored.tolerations, stored.planned) == (smaller.lists, (), (), False)


def test_the_largest_plan_and_status_fit(cluster: Cluster, namespace: str) -> None:
    names = tuple(f"ip-10-{i // 250}-{i % 250}-7.region-1.compute.internal" for i in range(MAX_NODE_NAMES))
    cache = ImageCache(namespace, "large", lists=(ImageList(("busybox",), names),))
    server_side_apply(cluster, image_cache_manifest(cache))
    status = ImageCacheStatus(failures=tuple(PullFailure("i" * 1000, "n" * 250, "r", "m" * 250) for _ in range(20)))
    server_side_apply(cluster, status_manifest(cache, status), options=["--subresource=status"])
    stored = decode_image_cache(get(cluster, "imagecaches.prewarm.dev", "large", "-n", namespace))
    assert stored.lists[0].node_names == names
    assert stored.status == bounded_status(status)


def test_a_node_image_is_written_by_one_request_and_collected_with_its_node(
    cluster: Cluster, cluster_scoped: Callable[[str], str]
) -> None:
    cluster_scoped("node/pni-test")
    cluster.kubectl("create", "-f", "-", manifest=json.dumps(NODE))
    metadata = get(cluster, "node", "pni-test")["metadata"]
    assert isinstance(metadata, dict)
    images = (
        PresentImage("registry.example/web:v1", Evidence.OUR_PULL, 1.8e9, "sha256:1", 7, "shop/web", 1.5, "shop|web"),
        PresentImage("docker.io/library/busybox:latest", Evidence.RUNNING_POD, 1.8e9 + 0.5, used_at=1.8e9 + 1),
    )
    record = NodeImages("pni-test", metadata["uid"], "boot-1", images)
    server_side_apply(cluster, node_images_manifest(record))
    stored = decode_node_images(get(cluster, "nodeimages.prewarm.dev", "pni-test"))
    assert (stored.node_uid, stored.boot_id, stored.images) == (record.node_uid, record.boot_id, record.images)
    cluster.kubectl("delete", "node", "pni-test")
    cluster.kubectl("wait", "--for=delete", "nodeimages.prewarm.dev/pni-test", "--timeout=60s")


NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "pni-test"}}


def test_a_planned_cache_goes_with_its_workload(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "--image=registry.example/web:v1", "--replicas=0", "-n", namespace)
    metadata = get(cluster, "deployment", "web", "-n", namespace)["metadata"]
    assert isinstance(metadata, dict)
    owner = OwnerReference("Deployment", "web", metadata["uid"], "apps/v1")
    server_side_apply(cluster, image_cache_manifest(replace(full_cache(namespace), owner=owner)))
    assert decode_image_cache(get(cluster, "imagecaches.prewarm.dev", "full", "-n", namespace)).owner == owner
    cluster.kubectl("delete", "deployment", "web", "-n", namespace)
    cluster.kubectl("wait", "--for=delete", "imagecaches.prewarm.dev/full", "-n", namespace, "--timeout=60s")


def test_a_policy_round_trips(cluster: Cluster, cluster_scoped: Callable[[str], str]) -> None:
    policy = Policy(
        "round-trip",
        PolicyMode.SHADOW,
        namespace_selector=LabelSelector((("team", "a"),), (Requirement("tier", Operator.IN, ("web", "api")),)),
        workload_selector=LabelSelector(match_expressions=(Requirement("batch", Operator.DOES_NOT_EXIST),)),
        rollout=False,
        headroom_percent=1000,
        coverage=math.pi / 4,
        max_overprovision=100,
        max_waste=1.0,
        hold_seconds=5400.0,
    )
    cluster_scoped("prewarmpolicy/round-trip")
    server_side_apply(cluster, policy_manifest(policy))
    stored = decode_policy(get(cluster, "prewarmpolicies.prewarm.dev", "round-trip"))
    assert policy_manifest(stored) == policy_manifest(policy)


def test_defaults_show_in_a_policy(cluster: Cluster, cluster_scoped: Callable[[str], str]) -> None:
    cluster_scoped("prewarmpolicy/empty")
    server_side_apply(
        cluster,
        {"apiVersion": "prewarm.dev/v1alpha1", "kind": "PrewarmPolicy", "metadata": {"name": "empty"}, "spec": {}},
    )
    assert get(cluster, "pwp", "empty")["spec"] == {
        "mode": "Active",
        "rollout": {"enabled": True, "minUpdatedReadyPods": 0},
        "scaleOut": {"enabled": True, "headroom": "20%"},
        "placement": {"coverage": 0.99, "maxOverprovision": 1.5, "maxWaste": 0.1, "steer": "Off"},
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.cacheSpec: Required value"),
        ({"cacheSpec": []}, "spec.cacheSpec in body should have at least 1 items"),
        ({"cacheSpec": [{}]}, "spec.cacheSpec[0].images: Required value"),
        ({"cacheSpec": [{"images": ["https://a.example/b"]}]}, "write an image as registry.example/team/app:v1"),
        ({"cacheSpec": [{"images": ["a b"]}]}, "write an image as registry.example/team/app:v1"),
        ({"cacheSpec": [{"images": ["a" * 1025]}]}, "spec.cacheSpec[0].images[0]: Too long"),
        ({"cacheSpec": [{"images": ["a"] * 257}]}, "spec.cacheSpec[0].images: Too many: 257"),
        ({"cacheSpec": [ENTRY] * 33}, "spec.cacheSpec: Too many: 33"),
        ({"cacheSpec": [ENTRY | {"nodeNames": ["Node_1"]}]}, "spec.cacheSpec[0].nodeNames[0] in body should match"),
        ({"cacheSpec": [ENTRY | {"nodeSelector": {"k" * 318: "v"}}]}, "a label key has 1 to 317 characters"),
        ({"cacheSpec": [ENTRY], "parallelism": 0}, "spec.parallelism in body should be greater than or equal to 1"),
        ({"cacheSpec": [ENTRY], "parallelism": "0%"}, "write parallelism as a whole number from 1, or as a percentage"),
        ({"cacheSpec": [ENTRY], "parallelism": "101%"}, "write parallelism as a whole number from 1"),
        ({"cacheSpec": [ENTRY], "imagePullPolicy": "Never"}, 'Unsupported value: "Never"'),
        ({"cacheSpec": [ENTRY], "neededBy": "tomorrow"}, "spec.neededBy in body must be of type date-time"),
        ({"cacheSpec": [ENTRY], "attempts": {"limit": 0}}, "spec.attempts.limit in body should be greater than"),
        ({"cacheSpec": [ENTRY], "priority": 1001}, "spec.priority in body should be less than or equal to 1000"),
        (
            {"cacheSpec": [ENTRY], "tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "a toleration with operator Exists has no value",
        ),
        ({"cacheSpec": [ENTRY], "tolerations": [{"value": "b"}]}, "a toleration without a key needs operator Exists"),
        ({"cacheSpec": [ENTRY], "paralellism": 3}, 'unknown field "spec.paralellism"'),
    ],
)
def test_a_bad_image_cache_is_refused_readably(cluster: Cluster, spec: object, message: str) -> None:
    with pytest.raises(RuntimeError) as refusal:
        cluster.kubectl("create", "--validate=strict", "-f", "-", manifest=json.dumps(image_cache(spec, "default")))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"mode": "On"}, 'Unsupported value: "On"'),
        ({"scaleOut": {"headroom": "20"}}, "spec.scaleOut.headroom in body should match"),
        ({"scaleOut": {"headroom": 20}}, "spec.scaleOut.headroom in body must be of type string"),
        ({"hold": "2 hours"}, "write a duration such as 30s, 15m or 1h30m"),
        ({"pullerForm": "Job"}, 'spec.pullerForm: Unsupported value: "Job": supported values: "Container", "Volume"'),
        ({"pullerForm": ["Volume"]}, "spec.pullerForm in body must be of type string"),
        ({"hold": 7200}, "spec.hold in body must be of type string"),
        ({"placement": {"coverage": 95}}, "spec.placement.coverage in body should be less than or equal to 1"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "operators In and NotIn need values, Exists and DoesNotExist take none",
        ),
    ],
)
def test_a_bad_policy_is_refused_readably(cluster: Cluster, spec: object, message: str) -> None:
    manifest = {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": "bad"},
        "spec": spec,
    }
    with pytest.raises(RuntimeError) as refusal:
        cluster.kubectl("create", "--validate=strict", "-f", "-", manifest=json.dumps(manifest))
    assert message in str(refusal.value)


def test_short_names_category_and_columns(
    cluster: Cluster, namespace: str, cluster_scoped: Callable[[str], str]
) -> None:
    cache = full_cache(namespace)
    server_side_apply(cluster, image_cache_manifest(cache))
    status = ImageCacheStatus(
        conditions=(Condition("Ready", True, "Done", "", 1.8e9),), desired=4, succeeded=3, failed=1
    )
    server_side_apply(cluster, status_manifest(cache, status), options=["--subresource=status"])
    header, row = cluster.kubectl("get", "pic", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "DESIRED", "ACTIVE", "SUCCEEDED", "FAILED", "AGE"]
    assert row.split()[:5] == ["full", "4", "0", "3", "1"]
    wide = cluster.kubectl("get", "pic", "-n", namespace, "-o", "wide").splitlines()[1].split()
    assert wide[6:] == ["True", "0", "-7", f"deployment/{namespace}/web"]
    cluster_scoped("prewarmpolicy/columns")
    server_side_apply(cluster, policy_manifest(Policy("columns")))
    assert cluster.kubectl("get", "pwp", "columns", "--no-headers").split()[:5] == [
        "columns",
        "Active",
        "true",
        "true",
        "20%",
    ]
    assert "imagecache.prewarm.dev/full" in cluster.kubectl("get", "prewarm", "-n", namespace, "-o", "name")
    assert cluster.kubectl("get", "pni", "-o", "name") == ""
