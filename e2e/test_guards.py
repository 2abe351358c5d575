"""The chart's admission policies on a real API server, with every shape of pod: what they let through, and what not."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from e2e.cluster.selection import Cluster, Lane
from e2e.manifests import get
from e2e.release import CONTROLLER, as_user, attempt, installed, refusal, upgrade
from prewarm.api.image_cache import image_cache_manifest
from prewarm.model.image_caches import ImageCache, ImageList, PullerForm
from prewarm.model.pods import Toleration
from prewarm.puller.pods import create, order_for
from prewarm.puller.settings import PullerSettings

APP = "registry.example/web:v1"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, helm: Path) -> Iterator[None]:
    if cluster.lane is Lane.EXISTING:
        pytest.skip("installing and uninstalling would take away what is installed on an existing cluster")
    with installed(cluster, helm):
        yield


def puller(
    namespace: str,
    *images: str,
    watched: bool = True,
    form: PullerForm = PullerForm.CONTAINER,
    **fields: Any,
) -> dict[str, Any]:
    """The manifest that the controller sends."""
    cache = replace(ImageCache(namespace, "web", uid="00000000-0000-0000-0000-000000000001"), **fields)
    order = order_for(cache, "node-1", "uid-1", images or (APP,), 1, 1000.0, watched=watched, form=form)
    manifest: dict[str, Any] = json.loads(json.dumps(create(order, cache, PullerSettings()).manifest))
    return manifest


PULLERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unwatched": {"watched": False},
    "secrets and service account": {"pull_secrets": ("a", "b"), "service_account": "default"},
    "tolerations": {"tolerations": (Toleration("gpu", "Exists"),)},
    "as volumes": {"form": PullerForm.VOLUME},
    "as volumes, unwatched": {"form": PullerForm.VOLUME, "watched": False},
}


@pytest.mark.parametrize("shape", PULLERS)
def test_every_puller_of_ours_passes(cluster: Cluster, namespace: str, shape: str) -> None:
    for images in ((APP,), tuple(f"registry.example/web:v{n}" for n in range(5))):
        assert refusal(cluster, CONTROLLER, namespace, puller(namespace, *images, **PULLERS[shape])) == ""


def spec(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]
    return found


def target(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def volume(source: dict[str, Any]) -> Change:
    return lambda pod: spec(pod)["volumes"].append({"name": "extra", **source})


ALTERED: dict[str, tuple[Change, str]] = {
    "no label": (lambda p: p["metadata"]["labels"].pop("prewarm.dev/puller"), "only pods with the label"),
    "no labels": (lambda p: p["metadata"].pop("labels"), "only pods with the label"),
    "a purger while purging is off": (
        lambda p: p["metadata"].update(labels={"prewarm.dev/purger": "true"}),
        "only pods with the label",
    ),
    "no owner": (lambda p: p["metadata"].pop("ownerReferences"), "controlled by an ImageCache"),
    "another owner": (
        lambda p: p["metadata"]["ownerReferences"][0].update(kind="Deployment", apiVersion="apps/v1"),
        "controlled by an ImageCache",
    ),
    "no node": (lambda p: spec(p).pop("nodeName"), "names its node"),
    "token": (lambda p: spec(p).update(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "token by default": (lambda p: spec(p).pop("automountServiceAccountToken"), "automountServiceAccountToken"),
    "host network": (lambda p: spec(p).update(hostNetwork=True), "its node's network"),
    "host PID": (lambda p: spec(p).update(hostPID=True), "shares no processes"),
    "host IPC": (lambda p: spec(p).update(hostIPC=True), "shares no processes"),
    "host path": (volume({"hostPath": {"path": "/"}}), "empty directories and images"),
    "secret volume": (volume({"secret": {"secretName": "a"}}), "empty directories and images"),
    "projected volume": (
        volume({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
        "empty directories and images",
    ),
    "config map volume": (volume({"configMap": {"name": "a"}}), "empty directories and images"),
    "claim": (volume({"persistentVolumeClaim": {"claimName": "a"}}), "empty directories and images"),
    "privileged": (
        lambda p: target(p)["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
        "neither privileged",
    ),
    "escalation": (
        lambda p: target(p)["securityContext"].update(allowPrivilegeEscalation=True),
        "neither privileged",
    ),
    "capability": (
        lambda p: target(p)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        "drops all capabilities",
    ),
    "no security context": (lambda p: target(p).pop("securityContext"), "drops all capabilities"),
    "root": (lambda p: target(p)["securityContext"].update(runAsUser=0), "ordinary user"),
    "root pod": (lambda p: spec(p)["securityContext"].update(runAsNonRoot=False, runAsUser=0), "ordinary user"),
    "unconfined": (
        lambda p: spec(p)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "ordinary user",
    ),
    "no pod security context": (lambda p: spec(p).pop("securityContext"), "ordinary user"),
    "environment from a secret": (
        lambda p: target(p).update(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        "no environment from Secrets",
    ),
    "environment of a secret": (
        lambda p: target(p).update(envFrom=[{"secretRef": {"name": "a"}}]),
        "no environment from Secrets",
    ),
    "another command": (lambda p: target(p).update(command=["/bin/sh", "-c", "id"]), "with prewarm's commands"),
    "no command": (lambda p: target(p).pop("command"), "with prewarm's commands"),
    "arguments": (lambda p: target(p).update(args=["x"]), "with prewarm's commands"),
    "another container": (
        lambda p: spec(p)["containers"].append({**target(p), "name": "proxy"}),
        "no containers but prewarm's",
    ),
    "another init container": (
        lambda p: spec(p)["initContainers"].append({**target(p), "name": "proxy"}),
        "no containers but prewarm's",
    ),
    "hook": (
        lambda p: target(p).update(lifecycle={"postStart": {"exec": {"command": ["id"]}}}),
        "no hooks",
    ),
    "probe": (lambda p: target(p).update(startupProbe={"exec": {"command": ["id"]}}), "no hooks"),
    "host port": (lambda p: target(p).update(ports=[{"containerPort": 80, "hostPort": 80}]), "no hooks"),
    "system priority": (
        lambda p: spec(p).update(priorityClassName="system-node-critical"),
        "no system priority class",
    ),
    "restarts": (lambda p: spec(p).update(restartPolicy="Always"), "never restarted"),
}


@pytest.mark.parametrize("shape", ALTERED)
def test_no_other_pod_of_ours_passes(cluster: Cluster, namespace: str, shape: str) -> None:
    change, words = ALTERED[shape]
    pod = puller(namespace)
    change(pod)
    said = refusal(cluster, CONTROLLER, namespace, pod)
    assert words in said
    assert "prewarm-pullers" in said


def test_nobody_elses_pods_are_judged(cluster: Cluster, namespace: str) -> None:
    """No policy of ours may keep a workload's pod out, nor break the server on any shape of it."""
    pods = []
    for number, (change, _) in enumerate(ALTERED.values()):
        pod = puller(namespace)
        change(pod)
        pod["metadata"]["name"] = f"shape-{number}"
        pods.append(json.dumps(pod))
    made = cluster.kubectl("create", "--dry-run=server", "-o", "name", "-f", "-", manifest="\n---\n".join(pods))
    assert len(made.split()) == len(ALTERED)


def test_only_pullers_are_deleted(cluster: Cluster, namespace: str) -> None:
    ours, others = puller(namespace), copy.deepcopy(puller(namespace))
    others["metadata"]["name"] = "of-somebody-else"
    others["metadata"]["labels"] = {"app": "web"}
    for pod in (ours, others):
        spec(pod).pop("nodeName")
        # The ImageCache is not there: the garbage collector would be faster than we are.
        pod["metadata"].pop("ownerReferences")
        cluster.kubectl("create", "-f", "-", manifest=json.dumps(pod))
    delete = ("delete", "pod", "--wait=false", "-n", namespace, *as_user(CONTROLLER))
    assert "deletes only pods with the label" in attempt(cluster, *delete, "of-somebody-else")
    assert attempt(cluster, *delete, ours["metadata"]["name"]) == ""
    assert attempt(cluster, "delete", "pod", "of-somebody-else", "-n", namespace, "--force") == ""


def test_the_controller_writes_plans_and_changes_no_ones_cache(cluster: Cluster, namespace: str) -> None:
    lists = (ImageList((APP,), ("node-1",)),)
    written = ImageCache(namespace, "written", lists=lists)
    planned = ImageCache(namespace, "planned", lists=lists, planned=True, workload=f"deployment/{namespace}/web")
    assert refusal(cluster, CONTROLLER, namespace, image_cache_manifest(planned)) == ""
    assert "planned ImageCaches only" in refusal(cluster, CONTROLLER, namespace, image_cache_manifest(written))
    cluster.kubectl("create", "-f", "-", manifest=json.dumps(image_cache_manifest(written)))
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", *as_user(CONTROLLER))
    changed = image_cache_manifest(replace(written, suspend=True))
    assert "does not change the spec" in attempt(cluster, *apply, manifest=json.dumps(changed))
    taken = image_cache_manifest(replace(written, suspend=True, planned=True))
    assert "does not change the spec" in attempt(cluster, *apply, manifest=json.dumps(taken))
    delete = ("delete", "imagecaches.prewarm.dev", "written", "--dry-run=server", "-n", namespace, *as_user(CONTROLLER))
    assert "prewarm deletes planned ImageCaches" in attempt(cluster, *delete)


def test_policies_type_check(cluster: Cluster) -> None:
    """The server checks expressions against the kinds that they speak of, and warns of what can never be true."""
    for name in ("prewarm-imagecaches", "prewarm-pullers", "prewarm-plans", "prewarm-labels"):
        status = get(cluster, "validatingadmissionpolicy", name).get("status", {})
        assert isinstance(status, dict)
        assert not status.get("typeChecking", {}).get("expressionWarnings"), name


PROXY: dict[str, Any] = {
    "name": "mesh-proxy",
    "image": "registry.test/mesh/proxy:v1",
    "command": ["/proxy"],
    "args": ["run"],
}
NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "by tag": ({}, ""),
    "by digest": ({"image": f"registry.test/mesh/proxy@sha256:{'0' * 64}"}, ""),
    "ports, probes and hooks": (
        {
            "ports": [{"containerPort": 15090}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 15021}},
            "lifecycle": {"preStop": {"exec": {"command": ["/proxy", "drain"]}}},
        },
        "",
    ),
    "another name": ({"name": "proxy"}, "no containers but prewarm's"),
    "another image": ({"image": "registry.test/other:v1"}, "no containers but prewarm's"),
    "an image below it": ({"image": "registry.test/mesh/proxy/evil:v1"}, "no containers but prewarm's"),
    "an image beside it": ({"image": "registry.test/mesh/proxy-evil:v1"}, "no containers but prewarm's"),
    "a registry of that name": ({"image": "registry.test/mesh/proxy:5000/evil"}, "no containers but prewarm's"),
    "root": ({"securityContext": {"runAsUser": 0}}, "ordinary user"),
    "capability": ({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}}, "drops all"),
    "privileged": ({"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}, "neither privileged"),
    "environment of a secret": ({"envFrom": [{"secretRef": {"name": "a"}}]}, "no environment from Secrets"),
    "port of the node": ({"ports": [{"containerPort": 80, "hostPort": 80}]}, "no port of its node"),
    "probe of another host": (
        {"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}},
        "hooks and probes of its own pod only",
    ),
    "hook to another host": (
        {"lifecycle": {"postStart": {"httpGet": {"host": "10.0.0.1", "port": 80}}}},
        "hooks and probes of its own pod only",
    ),
}


@pytest.fixture(scope="module")
def named(release: None, cluster: Cluster, helm: Path) -> None:
    """The chart told of the proxy, until the module ends: in force once it lets it in."""
    option = "admissionPolicies.addedContainers[0]"
    image = PROXY["image"].partition(":")[0]
    upgrade(cluster, helm, f"--set={option}.name=mesh-proxy,{option}.image={image}")
    until = time.monotonic() + 30
    while refusal(cluster, CONTROLLER, "default", with_proxy("default")):
        assert time.monotonic() < until, "the API server does not take up the changed policy"


def with_proxy(namespace: str, **changes: Any) -> dict[str, Any]:
    pod = puller(namespace)
    security = {**target(pod)["securityContext"], **changes.pop("securityContext", {})}
    spec(pod)["containers"].append({**PROXY, "securityContext": security, **changes})
    return pod


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("shape", NAMED)
def test_containers_that_the_operator_named_may_be_added_with_no_more_privileges(
    cluster: Cluster, namespace: str, shape: str
) -> None:
    changes, words = NAMED[shape]
    said = refusal(cluster, CONTROLLER, namespace, with_proxy(namespace, **copy.deepcopy(changes)))
    assert words in said if words else said == ""


@pytest.mark.usefixtures("named")
def test_policy_that_names_containers_type_checks(cluster: Cluster) -> None:
    test_policies_type_check(cluster)
