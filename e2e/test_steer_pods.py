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
            f"deployment.{SPACE}.no-value": steer.entry(LABEL, "no,value"),
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


KINDS = {
    "StatefulSet": steer.pod("StatefulSet", "web"),
    "ReplicaSet of nobody": steer.pod("ReplicaSet", "web"),
    "Rollout": steer.pod("ReplicaSet", "web-5f", labels={"rollouts-pod-template-hash": "5f"}),
    "CloneSet": steer.pod("CloneSet", "web", api_version="apps.kruise.io/v1alpha1"),
    "Job": steer.pod("Job", "web", api_version="batch/v1"),
    "CronJob": steer.pod("Job", "web-29387520", api_version="batch/v1"),
}


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


OTHERS = {
    "workload without an entry": of_deployment("other"),
    "entry whose time is over": of_deployment("ended"),
    "entry of other words": of_deployment("damaged"),
    "entry that is cut off": of_deployment("short"),
    "entry without a time": of_deployment("no-time"),
    "entry with a label that is none": of_deployment("no-label"),
    "entry with a value that is none": of_deployment("no-value"),
    "bare pod": _without_owner(),
    "owner that does not control": _owned_but_not_controlled(),
    "opted out": _opted_out(),
    "bound already": of_deployment(spec={"nodeName": "n1"}),
    "another scheduler": of_deployment(spec={"schedulerName": "other"}),
    "DaemonSet": steer.pod("DaemonSet", "web"),
    "ReplicaSet of another name": steer.pod("ReplicaSet", "web-6d4f8b9c7"),
    "Job that a CronJob did not make": steer.pod("Job", "web-nightly", api_version="batch/v1"),
    "unknown kind": steer.pod("Thing", "nodash", api_version="example.com/v1"),
}


@pytest.fixture(scope="module")
def stored(cluster: Cluster, entries: None) -> Mapping[str, dict[str, Any]]:
    """All pods as the API server would store them."""
    pods = {**{name: of_deployment(spec=spec) for name, (spec, _) in SHAPES.items()}, **KINDS, **OTHERS}
    return dict(zip(pods, steer.created(cluster, SPACE, *pods.values()), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_pod_gets_the_preference_and_keeps_its_own(
    stored: Mapping[str, dict[str, Any]], shape: str
) -> None:
    spec, before = SHAPES[shape]
    found = stored[shape]
    assert steer.preferences(found) == [*before, OURS]
    asked = spec.get("affinity") or {}
    assert isinstance(asked, dict)
    kept = found["spec"]["affinity"]
    for kind in ("podAffinity", "podAntiAffinity"):
        assert kept.get(kind) == asked.get(kind)
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    assert kept["nodeAffinity"].get(required) == (asked.get("nodeAffinity") or {}).get(required)


@pytest.mark.parametrize("kind", KINDS)
def test_pods_of_every_kind_are_known_by_their_owner(stored: Mapping[str, dict[str, Any]], kind: str) -> None:
    assert steer.preferences(stored[kind]) == [OURS]


@pytest.mark.parametrize("pod", OTHERS)
def test_all_other_pods_stay_as_they_are(stored: Mapping[str, dict[str, Any]], pod: str) -> None:
    assert "affinity" not in stored[pod]["spec"]


def test_pods_of_another_namespace_are_others(cluster: Cluster, namespace: str) -> None:
    (found,) = steer.created(cluster, namespace, of_deployment())
    assert "affinity" not in found["spec"]
