"""The gate's admission policies on a real API server, with every shape of workload and every way to change one.

None of them may be refused or changed otherwise than by the hold. No controller acts on the workloads: their status,
of a rollout that is over, is written by hand, also of those whose pods no node would run.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from e2e import gate
from e2e.cluster.components import Component
from e2e.cluster.selection import Cluster
from e2e.gate import ASKED, HELD

NAME = f"prewarm-gate-shapes-{os.getpid()}"
OLD, NEW = "registry.test/app:v1", "registry.test/app:v2"
KINDS = ("Deployment", "StatefulSet")

Shape = Mapping[str, Any]


def containers(count: int, image: str = OLD, **fields: object) -> list[dict[str, object]]:
    return [{"name": f"c{number}", "image": image, **fields} for number in range(count)]


def image_volume(reference: str) -> dict[str, object]:
    return {"name": "model", "image": {"reference": reference}}


INIT = [
    {"name": "init", "image": "registry.test/init:v1"},
    {"name": "side", "image": "registry.test/side:v1", "restartPolicy": "Always"},
]
ENV = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
PORTS = [{"containerPort": 80, "name": "a"}, {"containerPort": 80, "name": "b"}]
VOLUMES = [image_volume("registry.test/model:v1"), {"name": "tmp", "emptyDir": {}}]
SHAPES: Mapping[str, Shape] = {
    "one container": {},
    "null maps": {"metadata": {"labels": None, "annotations": None}, "template": {"annotations": None}},
    "labels and annotations": {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b", "c/d": "e=f,g"}}},
    "null parts": {"pod": {"initContainers": None, "volumes": None, "affinity": None, "securityContext": None}},
    "empty parts": {"pod": {"initContainers": [], "volumes": [], "affinity": {}, "imagePullSecrets": []}},
    "init containers and sidecars": {"pod": {"initContainers": INIT}},
    "image volumes": {"pod": {"volumes": VOLUMES}},
    "many containers": {"pod": {"containers": containers(60), "initContainers": INIT}},
    "many volumes": {"pod": {"volumes": [{"name": f"v{number}", "emptyDir": {}} for number in range(100)]}},
    "no pull": {"pod": {"containers": containers(1, imagePullPolicy="Never")}},
    "digest": {"pod": {"containers": containers(1, f"registry.test/app@sha256:{'0' * 64}")}},
    "names twice": {"pod": {"containers": containers(1, env=ENV, ports=PORTS)}},
    "no image": {"pod": {"containers": [{"name": "c0", "image": OLD}, {"name": "injected", "image": " "}]}},
    "other scheduler": {"pod": {"schedulerName": "other", "schedulingGates": [{"name": "a/b"}]}},
    "null strategy": {"Deployment": {"strategy": None}, "StatefulSet": {"updateStrategy": None}},
    "empty strategy": {"Deployment": {"strategy": {}}, "StatefulSet": {"updateStrategy": {}}},
    "strategy without parameters": {
        "Deployment": {"strategy": {"type": "RollingUpdate", "rollingUpdate": None}},
        "StatefulSet": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": None}},
    },
    "strategy with parameters": {
        "Deployment": {"strategy": {"rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 0}}},
        "StatefulSet": {
            "updateStrategy": {"rollingUpdate": {"partition": 0}},
            "podManagementPolicy": "Parallel",
            "minReadySeconds": 5,
            "ordinals": {"start": 3},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                }
            ],
        },
    },
    "Recreate": {"Deployment": {"strategy": {"type": "Recreate"}}},
}
CHANGES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "a container's image": ("one container", {"containers": [{"name": "c0", "image": NEW}]}),
    "one of many containers' image": ("many containers", {"containers": [{"name": "c59", "image": NEW}]}),
    "an init container's image": ("init containers and sidecars", {"initContainers": [{"name": "init", "image": NEW}]}),
    "a sidecar's image": ("init containers and sidecars", {"initContainers": [{"name": "side", "image": NEW}]}),
    "an image volume alone": ("image volumes", {"volumes": [image_volume("registry.test/model:v2")]}),
    "a new image volume": ("one container", {"volumes": [image_volume("registry.test/model:v1")]}),
    "an image volume in place of another": (
        "image volumes",
        {"volumes": [{"name": "model", "$patch": "delete"}, {**image_volume("registry.test/model:v1"), "name": "m"}]},
    ),
    "an init container that is new": ("null parts", {"initContainers": [{"name": "init", "image": NEW}]}),
    "an init container that goes": (
        "init containers and sidecars",
        {"initContainers": [{"name": "init", "$patch": "delete"}]},
    ),
}
"""By what is changed: the shape that is changed, and the change to its pods."""
OTHER_CHANGES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "an image volume's pull policy": (
        "image volumes",
        {"volumes": [{"name": "model", "image": {"reference": "registry.test/model:v1", "pullPolicy": "Always"}}]},
    ),
    "a volume that is no image": ("image volumes", {"volumes": [{"name": "more", "emptyDir": {}}]}),
    "a container's command": ("many containers", {"containers": [{"name": "c7", "command": ["sh"]}]}),
    "an init container's command": ("init containers and sidecars", {"initContainers": [{"name": "init", "args": []}]}),
}


@pytest.fixture(scope="module", autouse=True)
def workloads(cluster: Cluster) -> Iterator[None]:
    """Every shape of both kinds, as after a rollout that is over."""
    plane = cluster.control_plane
    if plane is None:
        pytest.skip("needs a control plane whose controllers can be stopped")
    plane.signal_component(Component.KUBE_CONTROLLER_MANAGER, signal.SIGSTOP)
    try:
        gate.install(cluster, NAME)
        gate.write_lease(cluster, NAME)
        given = ("-n", NAME, "-f", "-")
        cluster.kubectl("create", *given, manifest=as_list([manifest(kind, shape) for kind, shape in shaped()]))
        created = json.loads(cluster.kubectl("get", "deployment,statefulset", "-n", NAME, "-o", "json"))["items"]
        over = as_list([{**one, "status": rolled_out(one)} for one in created])
        cluster.kubectl("replace", "--subresource=status", *given, manifest=over)
        for kind in KINDS:
            gate.await_enforced(cluster, NAME, asking(manifest(kind, "one container", NEW)))
        yield
    finally:
        gate.remove(cluster, NAME)
        plane.signal_component(Component.KUBE_CONTROLLER_MANAGER, signal.SIGCONT)


def as_list(items: list[dict[str, Any]]) -> str:
    return json.dumps({"kind": "List", "apiVersion": "v1", "items": items})


def rolled_out(workload: Mapping[str, Any]) -> dict[str, object]:
    """The status of a workload all of whose pods are there and available."""
    count = workload["spec"]["replicas"]
    status = {"observedGeneration": workload["metadata"]["generation"], "replicas": count, "readyReplicas": count}
    status |= {"updatedReplicas": count, "availableReplicas": count}
    return {**status, "currentRevision": "1", "updateRevision": "1"} if workload["kind"] == "StatefulSet" else status


def shaped() -> list[tuple[str, str]]:
    return [
        (kind, shape)
        for shape, parts in SHAPES.items()
        for kind in KINDS
        if kind == "Deployment" or shape != "Recreate"
    ]


def manifest(kind: str, shape: str, image: str = OLD) -> dict[str, Any]:
    parts = SHAPES[shape]
    name = shape.lower().replace(" ", "-")
    template = {
        "metadata": {"labels": {"app": name}, **parts.get("template", {})},
        "spec": {"containers": containers(1, image), **parts.get("pod", {})},
    }
    spec: dict[str, Any] = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        spec["serviceName"] = "none"
    spec |= parts.get(kind, {})
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, **parts.get("metadata", {})},
        "spec": spec,
    }


def asking(workload: dict[str, Any]) -> dict[str, Any]:
    """The same, asking for the gate."""
    annotations = {**(workload["metadata"].get("annotations") or {}), **ASKED}
    metadata = {**workload["metadata"], "annotations": annotations}
    return {**workload, "metadata": metadata}


def tried(cluster: Cluster, kind: str, shape: str, pod: Mapping[str, object], asked: str = "5m") -> dict[str, Any]:
    """What the server makes of a change of a workload's pods."""
    annotations = {"prewarm.dev/gate": asked}
    patch = {"metadata": {"annotations": annotations}, "spec": {"template": {"spec": pod}}}
    name = shape.lower().replace(" ", "-")
    options = ("-n", NAME, "--dry-run=server", "-o", "json", "-p", json.dumps(patch))
    found = json.loads(cluster.kubectl("patch", kind, name, *options))
    assert isinstance(found, dict)
    return found


def is_held(found: Mapping[str, Any]) -> bool:
    """Whether all of the hold is there; part of it is wrong."""
    spec = found["spec"]
    partition = spec.get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0)
    marked = HELD in found["metadata"].get("annotations", {})
    assert (spec.get("paused", False) or partition > 0) == marked
    return marked


@pytest.mark.parametrize(("kind", "shape"), shaped())
def test_every_shape_is_held_and_otherwise_as_it_would_be(cluster: Cluster, kind: str, shape: str) -> None:
    change = {"containers": [{"name": "c0", "image": NEW}]}
    found, free = tried(cluster, kind, shape, change), tried(cluster, kind, shape, change, "false")
    assert is_held(found)
    assert not is_held(free)
    assert gate.without_hold(found) == gate.without_hold(free)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_image_of_a_pod_counts(cluster: Cluster, kind: str, change: str) -> None:
    assert is_held(tried(cluster, kind, *CHANGES[change]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", OTHER_CHANGES)
def test_what_is_no_image_does_not_count(cluster: Cluster, kind: str, change: str) -> None:
    assert not is_held(tried(cluster, kind, *OTHER_CHANGES[change]))


@pytest.mark.parametrize("kind", KINDS)
def test_ephemeral_containers_are_for_the_api_server_to_refuse(cluster: Cluster, kind: str) -> None:
    """A template has none: it says so itself, held or not."""
    ephemeral = {"ephemeralContainers": [{"name": "debug", "image": NEW}], "containers": [{"name": "c0", "image": NEW}]}
    told = []
    for asked in ("5m", "false"):
        with pytest.raises(RuntimeError, match="ephemeralContainers") as refusal:
            tried(cluster, kind, "one container", ephemeral, asked)
        told.append(str(refusal.value).partition("error:")[2])
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        ("apply",),
        ("apply", "--server-side", "--force-conflicts"),
        ("apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller"),
        ("replace",),
    ],
    ids=" ".join,
)
def test_every_way_to_write_it_is_held(cluster: Cluster, kind: str, options: tuple[str, ...]) -> None:
    changed = json.dumps(asking(manifest(kind, "one container", NEW)))
    written = cluster.kubectl(*options, "-n", NAME, "--dry-run=server", "-o", "json", "-f", "-", manifest=changed)
    assert is_held(json.loads(written))


def test_who_resets_the_field_managers_is_not_refused(cluster: Cluster) -> None:
    changed = asking(manifest("Deployment", "one container", NEW))
    changed["metadata"]["managedFields"] = [{}]
    written = cluster.kubectl(
        "replace", "-n", NAME, "--dry-run=server", "-o", "json", "-f", "-", manifest=json.dumps(changed)
    )
    assert json.loads(written)["spec"]["template"]["spec"]["containers"][0]["image"] == NEW
