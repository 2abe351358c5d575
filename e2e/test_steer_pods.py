"""The policy that steers new pods, on a real API server with every shape of pod."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from e2e import steer
from e2e.cluster.selection import Cluster

SPACE = "default"
LABEL = "steer.prewarm.dev/0123456789abcdef"
OURS = {
    "weight": 1,
    "preference": {"matchExpressions": [{"key": LABEL, "operator": "In", "values": ["rev-1"]}]},
}
HASH = {"pod-template-hash": "6d4f8b9c7"}
ZONE = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}
REQUIRED = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [ZONE]}]}}
PREFERRED = [
    {"weight": 50, "preference": {"matchExpressions": [ZONE]}},
    {"weight": 3, "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}},
]
WITH_PREFERRED = {"preferredDuringSchedulingIgnoredDuringExecution": PREFERRED}
OTHER_PODS = {
    "requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    ]
}


@pytest.fixture(scope="module", autouse=True)
def entries(cluster: Cluster, steering: str) -> Iterator[None]:
    steer.write_entries(
        cluster,
        steering,
        {
            **steer.PROBE,
            **{
                f"{key}.{SPACE}.web": steer.entry(LABEL, "rev-1")
                for key in ("deployment", "rollout", "statefulset", "replicaset", "cloneset", "job", "cronjob")
            },
            f"deployment.{SPACE}.ended": steer.entry(LABEL, "rev-1", "2020-01-01T00:00:00Z"),
            f"deployment.{SPACE}.damaged": "no entry at all, but words",
            f"deployment.{SPACE}.short": LABEL,
            f"deployment.{SPACE}.no-time": steer.entry(LABEL, "rev-1", "tomorrow"),
            f"deployment.{SPACE}.no-label": steer.entry("what?/is=this", "rev-1"),
        },
    )
    yield
    steer.write_entries(cluster, steering, steer.PROBE)


def of_deployment(name: str = "web", spec: Mapping[str, object] | None = None) -> dict[str, Any]:
    return steer.pod("ReplicaSet", f"{name}-6d4f8b9c7", labels=HASH, spec=spec)


SHAPES: Mapping[str, tuple[Mapping[str, object], list[object]]] = {
    "no affinity": ({}, []),
    "null affinity": ({"affinity": None}, []),
    "empty affinity": ({"affinity": {}}, []),
    "null node affinity": ({"affinity": {"nodeAffinity": None}}, []),
    "empty node affinity": ({"affinity": {"nodeAffinity": {}}}, []),
    "empty preferences": (
        {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}},
        [],
    ),
    "required only": ({"affinity": {"nodeAffinity": REQUIRED}}, []),
    "preferred only": ({"affinity": {"nodeAffinity": WITH_PREFERRED}}, list(PREFERRED)),
    "required and preferred": ({"affinity": {"nodeAffinity": {**REQUIRED, **WITH_PREFERRED}}}, list(PREFERRED)),
    "pod affinity": ({"affinity": {"podAffinity": OTHER_PODS}}, []),
    "pod anti-affinity": ({"affinity": {"podAntiAffinity": OTHER_PODS}}, []),
    "all of them": (
        {
            "affinity": {
                "nodeAffinity": {**REQUIRED, **WITH_PREFERRED},
                "podAffinity": OTHER_PODS,
                "podAntiAffinity": OTHER_PODS,
            }
        },
        list(PREFERRED),
    ),
    "many containers": (
        {
            "initContainers": [
                {"name": "init", "image": "registry.test/init:v1"},
                {"name": "side", "image": "registry.test/side:v1", "restartPolicy": "Always"},
            ],
            "containers": [{"name": f"c{n}", "image": "registry.test/app:v1"} for n in range(30)],
            "volumes": [{"name": "image", "image": {"reference": "registry.test/data:v1"}}],
        },
        [],
    ),
    "node selector and spread": (
        {
            "nodeSelector": {"pool": "a"},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
            ],
        },
        [],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_pod_gets_the_preference_and_keeps_its_own(cluster: Cluster, shape: str) -> None:
    spec, before = SHAPES[shape]
    found = steer.created(cluster, SPACE, of_deployment(spec=spec))
    assert steer.preferences(found) == [*before, OURS]
    asked = spec.get("affinity") or {}
    assert isinstance(asked, dict)
    kept = found["spec"]["affinity"]
    for kind in ("podAffinity", "podAntiAffinity"):
        assert kept.get(kind) == asked.get(kind)
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    assert kept["nodeAffinity"].get(required) == (asked.get("nodeAffinity") or {}).get(required)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(steer.pod("StatefulSet", "web"), id="StatefulSet"),
        pytest.param(steer.pod("ReplicaSet", "web"), id="ReplicaSet of nobody"),
        pytest.param(steer.pod("ReplicaSet", "web-5f", labels={"rollouts-pod-template-hash": "5f"}), id="Rollout"),
        pytest.param(steer.pod("CloneSet", "web", api_version="apps.kruise.io/v1alpha1"), id="CloneSet"),
        pytest.param(steer.pod("Job", "web", api_version="batch/v1"), id="Job"),
        pytest.param(steer.pod("Job", "web-29387520", api_version="batch/v1"), id="CronJob"),
    ],
)
def test_pods_of_every_kind_are_known_by_their_owner(cluster: Cluster, pod: dict[str, Any]) -> None:
    assert steer.preferences(steer.created(cluster, SPACE, pod)) == [OURS]


def _without_owner() -> dict[str, Any]:
    pod = of_deployment()
    del pod["metadata"]["ownerReferences"]
    return pod


def _opted_out() -> dict[str, Any]:
    pod = of_deployment()
    pod["metadata"]["annotations"] = {"prewarm.dev/enabled": "false"}
    return pod


def _owned_but_not_controlled() -> dict[str, Any]:
    pod = of_deployment()
    pod["metadata"]["ownerReferences"][0]["controller"] = False
    return pod


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(of_deployment("other"), id="workload without an entry"),
        pytest.param(of_deployment("ended"), id="entry whose time is over"),
        pytest.param(of_deployment("damaged"), id="entry of other words"),
        pytest.param(of_deployment("short"), id="entry that is cut off"),
        pytest.param(of_deployment("no-time"), id="entry without a time"),
        pytest.param(_without_owner(), id="bare pod"),
        pytest.param(_owned_but_not_controlled(), id="owner that does not control"),
        pytest.param(_opted_out(), id="opted out"),
        pytest.param(of_deployment(spec={"nodeName": "n1"}), id="bound already"),
        pytest.param(of_deployment(spec={"schedulerName": "other"}), id="another scheduler"),
        pytest.param(steer.pod("DaemonSet", "web"), id="DaemonSet"),
        pytest.param(steer.pod("ReplicaSet", "web-6d4f8b9c7"), id="ReplicaSet of another name"),
        pytest.param(steer.pod("Job", "web-nightly", api_version="batch/v1"), id="Job that a CronJob did not make"),
        pytest.param(steer.pod("Thing", "nodash", api_version="example.com/v1"), id="unknown kind"),
    ],
)
def test_all_other_pods_stay_as_they_are(cluster: Cluster, pod: dict[str, Any]) -> None:
    assert "affinity" not in steer.created(cluster, SPACE, pod)["spec"]


def test_pods_of_another_namespace_are_others(cluster: Cluster, namespace: str) -> None:
    assert "affinity" not in steer.created(cluster, namespace, of_deployment())["spec"]
