"""The chart and the plain YAML on a real API server: accepted, sufficient and no more, gone without a trace.

The control plane has no kubelet, so the controller's pod does not run here: what it needs is asked of the API server.
"""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from e2e import definitions
from e2e.cluster.selection import Cluster, Lane
from e2e.manifests import PROJECT, get, install_definitions, server_side_apply
from e2e.plain_yaml import PLAIN, TARGET, render
from prewarm.api.image_cache import image_cache_manifest
from prewarm.api.names import HISTORY_CONFIG_MAP, LEASE_NAME, PULLER_PRIORITY_CLASS
from prewarm.api.node_image import node_images_manifest
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.lease import LeaderLease
from prewarm.controller.persistence import Memory, Persistence
from prewarm.controller.settings import Settings
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.nodes import NodeImages
from prewarm.model.pods import OwnerReference

CHART = str(PROJECT / "charts/prewarm")
RELEASE_NAMESPACE = "prewarm-system"
OURS = (
    "deployment,serviceaccount,configmap,lease,role,rolebinding,service",
    "clusterrole,clusterrolebinding,priorityclass,validatingadmissionpolicy,validatingadmissionpolicybinding",
)

Helm = Callable[..., str]

ALLOWED = [
    *[
        (verb, group, resource)
        for verb in ("list", "watch")
        for group, resource in (
            ("", "events"),
            ("", "limitranges"),
            ("", "resourcequotas"),
            ("", "namespaces"),
            ("", "nodes"),
            ("", "persistentvolumeclaims"),
            ("", "persistentvolumes"),
            ("", "pods"),
            ("", "services"),
            ("", "resourcequotas"),
            ("", "limitranges"),
            ("apps", "daemonsets"),
            ("apps", "deployments"),
            ("apps", "replicasets"),
            ("apps", "statefulsets"),
            ("apps", "controllerrevisions"),
            ("batch", "cronjobs"),
            ("batch", "jobs"),
            ("apps.kruise.io", "clonesets"),
            ("apps.kruise.io", "statefulsets"),
            ("apps.kruise.io", "daemonsets"),
            ("argoproj.io", "rollouts"),
            ("flagger.app", "canaries"),
            ("image.toolkit.fluxcd.io", "imagepolicies"),
            ("autoscaling", "horizontalpodautoscalers"),
            ("storage.k8s.io", "csinodes"),
            ("scheduling.k8s.io", "priorityclasses"),
            ("policy", "poddisruptionbudgets"),
            ("prewarm.dev", "prewarmpolicies"),
            ("prewarm.dev", "imagecaches"),
            ("prewarm.dev", "nodeimages"),
        )
    ],
    *[(verb, "prewarm.dev", kind) for verb in ("create", "patch", "delete") for kind in ("imagecaches", "nodeimages")],
    ("patch", "prewarm.dev", "imagecaches/status"),
    ("plan", "prewarm.dev", "imagecaches"),
    ("create", "", "pods"),
    ("delete", "", "pods"),
    *[(verb, "", "events") for verb in ("create", "get", "patch")],
]
"""What the controller does in all namespaces: reflectors, kopf's watches, the writer's intents."""
POLICIES = [
    f"{kind}.admissionregistration.k8s.io/{name}"
    for kind in ("validatingadmissionpolicy", "validatingadmissionpolicybinding")
    for name in ("prewarm-imagecaches", "prewarm-labels", "prewarm-plans", "prewarm-pullers")
]
FORBIDDEN = [
    *[
        (verb, "apps", kind)
        for verb in ("create", "update", "patch", "delete")
        for kind in ("deployments", "replicasets", "statefulsets", "daemonsets")
    ],
    *[(verb, "", "secrets") for verb in ("get", "list", "watch", "create")],
    *[(verb, "", "nodes") for verb in ("patch", "update", "delete")],
    *[(verb, "", "pods") for verb in ("update", "patch", "deletecollection")],
    *[("create", "", resource) for resource in ("pods/exec", "pods/eviction", "pods/binding", "configmaps")],
    ("create", "coordination.k8s.io", "leases"),
    ("get", "", "configmaps"),
    ("patch", "prewarm.dev", "prewarmpolicies"),
    ("delete", "prewarm.dev", "prewarmpolicies"),
]


@pytest.fixture
def whole_cluster(cluster: Cluster) -> Cluster:
    """A cluster on which kinds and the system namespace may be deleted, without what other tests left of them."""
    if cluster.lane is Lane.EXISTING:
        pytest.skip("installing and uninstalling would take away what is installed on an existing cluster")
    remove_namespace(cluster, RELEASE_NAMESPACE)
    # Helm takes over only what is its own.
    definitions.delete(cluster)
    return cluster


@pytest.fixture
def helm_run(cluster: Cluster, helm: Path) -> Helm:
    """Runs helm against the cluster."""

    def run(*arguments: str) -> str:
        connection = ("--kubeconfig", str(cluster.kubeconfig), "--kube-context", cluster.context)
        done = subprocess.run([helm, *arguments, *connection], capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    return run


@pytest.fixture
def release_namespace(whole_cluster: Cluster) -> Iterator[str]:
    """The namespace of the release, restricted and empty."""
    cluster = whole_cluster
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": RELEASE_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    cluster.kubectl("create", "-f", "-", manifest=json.dumps(manifest))
    yield RELEASE_NAMESPACE
    remove_namespace(cluster, RELEASE_NAMESPACE)


@pytest.fixture
def release(cluster: Cluster, helm_run: Helm, release_namespace: str) -> Iterator[str]:
    """The chart, installed with its default values. A test may uninstall it."""
    helm_run("install", "prewarm", CHART, "-n", release_namespace)
    cluster.kubectl("wait", "--for=condition=Established", "crd/imagecaches.prewarm.dev", "--timeout=60s")
    yield "prewarm"
    if "prewarm" in helm_run("list", "-n", release_namespace, "-q").split():
        helm_run("uninstall", "prewarm", "-n", release_namespace)


def remove_namespace(cluster: Cluster, name: str) -> None:
    # Without a kubelet nobody confirms a graceful end, and the namespace would stay.
    cluster.kubectl("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0")
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=60s")


Rule = tuple[str, str, str]
"""Verb, group, and resource with its subresource."""


def allowed(cluster: Cluster, rules: Sequence[Rule], namespace: str = "", name: str = "") -> list[Rule]:
    """Which of the rules the controller's service account is granted."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{RELEASE_NAMESPACE}:prewarm",
                "groups": ["system:authenticated"],
                "resourceAttributes": {
                    "verb": verb,
                    "group": group,
                    "resource": resource.partition("/")[0],
                    "subresource": resource.partition("/")[2],
                    "namespace": namespace,
                    "name": name,
                },
            },
        }
        for verb, group, resource in rules
    ]
    answers = cluster.kubectl(
        "create", "-f", "-", "-o", "jsonpath={.status.allowed} ", manifest=yaml.safe_dump_all(reviews)
    ).split()
    return [rule for rule, answer in zip(rules, answers, strict=True) if answer == "true"]


def names_of_ours(cluster: Cluster, namespace: str) -> list[str]:
    """Everything in the release's namespace and cluster-wide that carries our name."""
    inside = cluster.kubectl("get", OURS[0], "-n", namespace, "-o", "name").split()
    outside = cluster.kubectl("get", OURS[1], "-o", "name").split()
    foreign = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
    return [name for name in inside if name not in foreign] + [name for name in outside if "prewarm" in name]


def test_objects_are_accepted_and_the_pod_passes_restricted_pod_security(cluster: Cluster, release: str) -> None:
    cluster.kubectl(
        "wait", "-n", RELEASE_NAMESPACE, "--for=jsonpath={.status.replicas}=1", f"deployment/{release}", "--timeout=60s"
    )
    deployment = get(cluster, "deployment", release, "-n", RELEASE_NAMESPACE)
    assert "Forbidden" not in json.dumps(deployment)
    pods = get(cluster, "pods", "-n", RELEASE_NAMESPACE)["items"]
    assert isinstance(pods, list)
    assert len(pods) == 1
    priority_class = get(cluster, "priorityclass", PULLER_PRIORITY_CLASS)
    assert (priority_class["value"], priority_class["preemptionPolicy"]) == (-100, "Never")
    dashboard = get(cluster, "configmap", "prewarm-dashboard", "-n", RELEASE_NAMESPACE)
    data, metadata = dashboard["data"], dashboard["metadata"]
    assert isinstance(data, dict)
    assert isinstance(metadata, dict)
    assert json.loads(data["prewarm.json"]) == json.loads(
        (PROJECT / "charts/prewarm/dashboards/prewarm.json").read_text()
    )
    assert metadata["labels"]["grafana_dashboard"] == "1"


def test_the_controller_may_do_what_it_does_and_no_more(cluster: Cluster, release: str) -> None:
    assert allowed(cluster, ALLOWED) == ALLOWED, f"{release} lacks rights"
    assert allowed(cluster, FORBIDDEN) == []
    assert set(POLICIES) <= set(names_of_ours(cluster, RELEASE_NAMESPACE))
    own = RELEASE_NAMESPACE
    lease: list[Rule] = [(verb, "coordination.k8s.io", "leases") for verb in ("get", "update")]
    memory: list[Rule] = [(verb, "", "configmaps") for verb in ("get", "patch")]
    assert allowed(cluster, lease, own, LEASE_NAME) == lease
    assert allowed(cluster, memory, own, HISTORY_CONFIG_MAP) == memory
    assert allowed(cluster, [*lease, *memory], own, "another") == []
    assert allowed(cluster, memory, "default", HISTORY_CONFIG_MAP) == []


def test_an_upgrade_after_the_controller_wrote_its_state_keeps_it(
    cluster: Cluster, helm_run: Helm, release: str
) -> None:
    write_state(cluster)
    helm_run("upgrade", release, CHART, "-n", RELEASE_NAMESPACE, "--set", "replicas=2")
    lease = get(cluster, "lease", "prewarm", "-n", RELEASE_NAMESPACE)["spec"]
    history = get(cluster, "configmap", "prewarm-history", "-n", RELEASE_NAMESPACE)
    assert isinstance(lease, dict)
    assert lease["leaseTransitions"] == 1
    assert isinstance(history["binaryData"], dict)
    assert "history" in history["binaryData"]
    deployment = get(cluster, "deployment", release, "-n", RELEASE_NAMESPACE)["spec"]
    assert isinstance(deployment, dict)
    assert deployment["replicas"] == 2


def test_uninstalling_leaves_hand_written_caches_and_nothing_of_ours(
    cluster: Cluster, helm_run: Helm, release: str, namespace: str
) -> None:
    write_state(cluster)
    write_work(cluster, namespace)
    helm_run("uninstall", release, "-n", RELEASE_NAMESPACE)
    clean_up_as_documented(cluster)
    assert names_of_ours(cluster, RELEASE_NAMESPACE) == []
    assert_nothing_is_left_of_the_work(cluster, namespace)
    helm_run("install", release, CHART, "-n", RELEASE_NAMESPACE)
    assert "written" in cluster.kubectl("get", "pic", "-n", namespace), "kept kinds and objects are taken over again"


def test_uninstalling_takes_the_definitions_if_asked(cluster: Cluster, helm_run: Helm, release_namespace: str) -> None:
    helm_run("install", "prewarm", CHART, "-n", release_namespace, "--set", "crds.keep=false")
    helm_run("uninstall", "prewarm", "-n", release_namespace)
    definitions.await_gone(cluster)


def test_the_plain_yaml_applies_and_deletes(whole_cluster: Cluster, namespace: str) -> None:
    cluster = whole_cluster
    install_definitions(cluster)
    cluster.kubectl("apply", "--server-side", "-f", str(TARGET))
    assert allowed(cluster, ALLOWED) == ALLOWED
    assert set(POLICIES) <= set(names_of_ours(cluster, RELEASE_NAMESPACE))
    cluster.kubectl(
        "wait", "-n", RELEASE_NAMESPACE, "--for=jsonpath={.status.replicas}=1", "deployment/prewarm", "--timeout=60s"
    )
    write_state(cluster)
    write_work(cluster, namespace)
    cluster.kubectl("delete", "pods", "--all", "-n", RELEASE_NAMESPACE, "--force", "--grace-period=0")
    cluster.kubectl("delete", "-f", str(TARGET), "--timeout=60s")
    clean_up_as_documented(cluster)
    assert names_of_ours(cluster, RELEASE_NAMESPACE) == []
    assert RELEASE_NAMESPACE not in cluster.kubectl("get", "namespaces", "-o", "name")
    assert_nothing_is_left_of_the_work(cluster, namespace)


def write_state(cluster: Cluster) -> None:
    """What a controller leaves when it ends: a freed Lease and its memory."""

    async def leave() -> None:
        connection = Connection.load(cluster.kubeconfig, cluster.context)
        async with Client(connection) as client:
            lease = LeaderLease(client, namespace=RELEASE_NAMESPACE, name=LEASE_NAME, identity="pod-1")
            memory = Persistence(client, RELEASE_NAMESPACE)

            async def work() -> None:
                assert await memory.store(Memory(), time.time())

            await lease.run(work)

    asyncio.run(leave())


def write_work(cluster: Cluster, namespace: str) -> None:
    """A planned and a hand-written ImageCache, a puller pod of each, a NodeImage; the planned one's workload."""
    deployment = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: "registry.example/web:v1"}}]}}
"""
    cluster.kubectl("create", "-f", "-", manifest=deployment)
    owner = OwnerReference("Deployment", "web", uid_of(cluster, "deployment", "web", "-n", namespace), "apps/v1")
    lists = (ImageList(("registry.example/web:v1",), ("absent",)),)
    planned = ImageCache(namespace, "planned", lists=lists, owner=owner, planned=True, workload="deployment/x/web")
    written = ImageCache(namespace, "written", lists=lists)
    server_side_apply(cluster, image_cache_manifest(planned), image_cache_manifest(written))
    server_side_apply(cluster, node_images_manifest(NodeImages("node-of-before", "", "")))
    for cache in (planned, written):
        cluster.kubectl("create", "-f", "-", manifest=json.dumps(puller_pod(cluster, cache)))


def puller_pod(cluster: Cluster, cache: ImageCache) -> Mapping[str, object]:
    uid = uid_of(cluster, "imagecaches.prewarm.dev", cache.name, "-n", cache.namespace)
    owner = {"apiVersion": "prewarm.dev/v1alpha1", "kind": "ImageCache", "name": cache.name, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{cache.name}-pull",
            "namespace": cache.namespace,
            "labels": {"prewarm.dev/puller": "true"},
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "schedulingGates": [{"name": "prewarm.dev/test"}],
            "containers": [{"name": "pull", "image": "registry.example/web:v1"}],
        },
    }


def uid_of(cluster: Cluster, *what: str) -> str:
    metadata = get(cluster, *what)["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["uid"])


def clean_up_as_documented(cluster: Cluster) -> None:
    """The very lines of docs/uninstall.md that follow the removal of the controller."""
    page = (PROJECT / "docs/uninstall.md").read_text()
    (block,) = [block for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) if "--for=delete pod" in block]
    for line in block.strip().splitlines():
        program, *arguments = line.split()
        assert program == "kubectl"
        cluster.kubectl(*arguments)


def assert_nothing_is_left_of_the_work(cluster: Cluster, namespace: str) -> None:
    assert cluster.kubectl("get", "imagecaches.prewarm.dev", "-A", "-o", "name").split() == [
        "imagecache.prewarm.dev/written"
    ]
    assert cluster.kubectl("get", "nodeimages.prewarm.dev", "-o", "name") == ""
    cluster.kubectl("wait", "--for=delete", "pod/planned-pull", "-n", namespace, "--timeout=60s")
    assert cluster.kubectl("get", "pods", "-A", "-l", "prewarm.dev/puller=true", "-o", "name") == ""
    workload = get(cluster, "deployment", "web", "-n", namespace)["metadata"]
    assert isinstance(workload, dict)
    assert "prewarm" not in json.dumps({**workload, "namespace": ""})


def test_the_plain_yaml_is_what_the_chart_gives(helm: Path) -> None:
    assert TARGET.read_text() == render(helm, PLAIN), "run python -m e2e.plain_yaml"


def test_the_chart_passes_the_strict_linter(helm: Path) -> None:
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("replicas=many", "replicas"),
        ("settings.clusterPull=3", "settings"),
        ("settings.nodePulls=0", "nodePulls"),
        ("image.digest=sha256:short", "digest"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("metrics.serviceMonitor.enabled=true,metrics.service.enabled=false", "needs metrics.service.enabled"),
    ],
)
def test_wrong_values_are_refused_and_named(helm: Path, option: str, message: str) -> None:
    done = subprocess.run(
        [helm, "template", "prewarm", CHART, "--set", option], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert message in done.stderr


def test_switches_render_what_they_promise(helm: Path) -> None:
    options = (
        "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.team=a,dashboard.enabled=false,"
        "crds.install=false,image.digest=sha256:" + "0" * 64
    )
    done = subprocess.run(
        [helm, "template", "prewarm", CHART, "--set", options], capture_output=True, text=True, check=True, timeout=60
    )
    objects = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout) if o}
    monitor = objects[("ServiceMonitor", "prewarm")]
    service = objects[("Service", "prewarm-metrics")]
    assert monitor["metadata"]["labels"]["team"] == "a"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert ("ConfigMap", "prewarm-dashboard") not in objects
    assert not [kind for kind, _ in objects if kind == "CustomResourceDefinition"]
    container = objects[("Deployment", "prewarm")]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "prewarm@sha256:" + "0" * 64


def rendered(helm: Path, *options: str) -> str:
    done = subprocess.run([helm, "template", *options, CHART], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_policies_speak_of_the_release_that_they_come_with(helm: Path) -> None:
    named = ("ahead", "--namespace", "ops", "--set", "serviceAccount.name=puller,settings.purge=true")
    policies = {
        found["metadata"]["name"]: found["spec"]
        for found in yaml.safe_load_all(rendered(helm, *named))
        if found and found["kind"] == "ValidatingAdmissionPolicy"
    }
    assert set(policies) == {"ahead-imagecaches", "ahead-labels", "ahead-plans", "ahead-pullers"}
    text = json.dumps(policies)
    assert text.count("system:serviceaccount:ops:puller") == 2
    assert "prewarm-system" not in text
    variables = {entry["name"]: entry["expression"] for entry in policies["ahead-pullers"]["variables"]}
    assert variables["purging"] == "true"
    assert "request.namespace == 'ops'" in variables["purger"]


def test_policies_can_be_left_out(helm: Path) -> None:
    assert "ValidatingAdmissionPolicy" in rendered(helm, "prewarm")
    assert "ValidatingAdmissionPolicy" not in rendered(helm, "prewarm", "--set", "admissionPolicies.enabled=false")


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda letter: f"_{letter[1].lower()}", name)


def test_every_environment_variable_is_a_setting(helm: Path) -> None:
    done = subprocess.run([helm, "template", "prewarm", CHART], capture_output=True, text=True, check=True, timeout=60)
    variables = set(re.findall(r"name: PREWARM_([A-Z_]+)", done.stdout))
    assert "HELPER_IMAGE" in variables
    assert {name.lower() for name in variables} <= Settings.model_fields.keys()


def test_settings_of_the_chart_are_the_controllers_with_its_defaults() -> None:
    schema = json.loads((PROJECT / "charts/prewarm/values.schema.json").read_text())
    known = {snake(name) for name in schema["properties"]["settings"]["properties"]}
    by_the_chart_itself = {
        "kubeconfig",
        "context",
        "namespace",
        "http_host",
        "http_port",
        "identity",
        "lease_name",
        "puller_priority_class",
        "purge_image",
        "purge_pull_secrets",
        "steer",
    }
    assert known | by_the_chart_itself == set(Settings.model_fields)
    values = yaml.safe_load((PROJECT / "charts/prewarm/values.yaml").read_text())["settings"]
    spelt_out = {snake(name): value for name, value in values.items()}
    defaults = {name: Settings.model_fields[name].default for name in spelt_out}
    assert spelt_out == {**defaults, "log_format": "json"}
