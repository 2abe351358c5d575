"""Whatever stands in an object, reading it raises nothing and costs nobody else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarm.cluster.decoding.kinds import Kind, Kinds
from tests.support.manifests import Object, node

TIME = "2026-11-20T10:00:00Z"
CONTAINER: Object = {
    "name": "web",
    "image": "registry.example/web:v1",
    "imagePullPolicy": "Always",
    "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
    "ports": [{"hostPort": 80, "protocol": "TCP"}],
}
SELECTOR: Object = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
POD_TERM: Object = {"topologyKey": "zone", "labelSelector": SELECTOR, "namespaces": ["a"], "namespaceSelector": {}}
SPEC: Object = {
    "containers": [CONTAINER],
    "initContainers": [CONTAINER | {"restartPolicy": "Always"}],
    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "i", "image": {"reference": "r"}}],
    "overhead": {"cpu": "1"},
    "nodeSelector": {"a": "b"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [{"key": "a", "operator": "Exists"}],
                        "matchFields": [{"key": "metadata.name"}],
                    }
                ]
            }
        },
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": POD_TERM}]
        },
    },
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "labelSelector": SELECTOR}],
    "priority": 1,
    "imagePullSecrets": [{"name": "s"}],
}
METADATA: Object = {
    "name": "web",
    "namespace": "shop",
    "uid": "u",
    "resourceVersion": "7",
    "creationTimestamp": TIME,
    "labels": {"a": "b"},
    "annotations": {"prewarm.dev/enabled": "true", "controller.kubernetes.io/pod-deletion-cost": "5"},
    "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "uid": "x", "controller": True}],
}
STATUS: Object = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": TIME}],
    "containerStatuses": [
        {"name": "web", "state": {"terminated": {"exitCode": 1, "finishedAt": TIME}}, "restartCount": 1}
    ],
}
WORKLOAD: Object = {
    "metadata": METADATA,
    "spec": {
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": SPEC},
        "selector": SELECTOR,
        "replicas": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
    },
    "status": {"replicas": 3},
}
SOURCE: Object = {"name": "cpu", "target": {"averageUtilization": 50}, "current": {"averageUtilization": 60}}
JOB: Object = {
    "metadata": METADATA,
    "spec": {
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": SPEC},
        "parallelism": 2,
        "completions": 5,
        "suspend": True,
    },
    "status": {"active": 1, "succeeded": 2, "conditions": [{"type": "Complete", "status": "True"}]},
}
CRON_JOB: Object = {
    "metadata": METADATA,
    "spec": {
        "schedule": "*/5 3 * * 1-5",
        "timeZone": "Europe/Berlin",
        "suspend": False,
        "jobTemplate": {"spec": JOB["spec"]},
    },
    "status": {"lastScheduleTime": TIME},
}
REPEATED: Object = CRON_JOB | {"spec": CRON_JOB["spec"] | {"schedule": "@every 1h30m"}}
AUTOSCALER: Object = {
    "metadata": METADATA,
    "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "web"},
        "maxReplicas": 5,
        "metrics": [{"type": "Resource", "resource": SOURCE}],
    },
    "status": {"currentMetrics": [{"type": "Resource", "resource": SOURCE}]},
}
EVENT: Object = {
    "metadata": METADATA,
    "involvedObject": {"name": "web", "fieldPath": "spec.containers{web}"},
    "source": {"component": "kubelet", "host": "n1"},
    "firstTimestamp": TIME,
    "series": {"count": 2, "lastObservedTime": TIME},
}
KRUISE_STRATEGY: Object = {
    "type": "InPlaceIfPossible",
    "partition": "50%",
    "maxUnavailable": "20%",
    "maxSurge": 0,
    "priorityStrategy": {
        "weightPriority": [{"weight": 5, "matchSelector": SELECTOR}],
        "orderPriority": [{"orderedKey": "rank"}],
    },
    "scatterStrategy": [{"key": "a", "value": "b"}],
    "rollingUpdate": {
        "rollingUpdateType": "InPlaceIfPossible",
        "podUpdatePolicy": "InPlaceOnly",
        "partition": 1,
        "selector": SELECTOR,
        "unorderedUpdate": {"priorityStrategy": {"orderPriority": [{"orderedKey": "rank"}]}},
    },
}
KRUISE: Object = {
    "apiVersion": "apps.kruise.io/v1beta1",
    "metadata": METADATA,
    "spec": WORKLOAD["spec"] | {"updateStrategy": KRUISE_STRATEGY, "reserveOrdinals": [1, "2-4"]},
    "status": {"observedGeneration": 1, "updateRevision": "web-1", "daemonSetHash": "1"},
}
REVISION: Object = {
    "metadata": METADATA
    | {
        "ownerReferences": [
            {"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "uid": "x", "controller": True}
        ]
    },
    "data": {"spec": {"template": {"$patch": "replace", "metadata": {"creationTimestamp": None}, "spec": SPEC}}},
}
ROLLOUT: Object = {
    "metadata": METADATA,
    "spec": WORKLOAD["spec"]
    | {
        "workloadRef": {"kind": "Deployment", "name": "web"},
        "strategy": {
            "canary": {
                "steps": [
                    {"setWeight": 20},
                    {"pause": {"duration": "1h30m"}},
                    {"setCanaryScale": {"weight": 10, "replicas": 3, "matchTrafficWeight": True}},
                    {"analysis": {"templates": []}},
                ],
                "trafficRouting": {},
                "maxSurge": "25%",
            },
            "blueGreen": {"previewReplicaCount": 1, "autoPromotionSeconds": 30},
        },
    },
    "status": {
        "observedGeneration": "3",
        "currentStepIndex": 1,
        "stableRS": "a",
        "canary": {"currentStepAnalysisRunStatus": {"status": "Running"}},
    },
}
CANARY: Object = {
    "metadata": METADATA,
    "spec": {
        "targetRef": {"kind": "Deployment", "name": "web"},
        "analysis": {"interval": "1m", "maxWeight": 50, "stepWeight": 10, "stepWeights": [1, 2], "iterations": 3},
    },
    "status": {"phase": "Progressing", "canaryWeight": 10, "failedChecks": 0, "iterations": 0},
}
IMAGE_POLICY: Object = {
    "metadata": METADATA,
    "status": {
        "latestRef": {"name": "registry.test/web", "tag": "v2", "digest": "sha256:" + "a" * 64},
        "latestImage": "registry.test/web:v1",
    },
}
CACHE: Object = {"metadata": METADATA, "spec": {"cacheSpec": [{"images": ["a"], "nodeNames": ["n"]}]}, "status": {}}

Pick = Callable[[Kinds], Kind[object]]
KINDS: list[tuple[Pick, Object]] = [
    (lambda kinds: kinds.pods, {"metadata": METADATA, "spec": SPEC, "status": STATUS}),
    (lambda kinds: kinds.nodes, node("n1")),
    (lambda kinds: kinds.deployments, WORKLOAD),
    (lambda kinds: kinds.daemon_sets, WORKLOAD),
    (lambda kinds: kinds.stateful_sets, WORKLOAD),
    (lambda kinds: kinds.replica_sets, WORKLOAD),
    (lambda kinds: kinds.jobs, JOB),
    (lambda kinds: kinds.cron_jobs, CRON_JOB),
    (lambda kinds: kinds.cron_jobs, REPEATED),
    (lambda kinds: kinds.clone_sets, KRUISE),
    (lambda kinds: kinds.advanced_stateful_sets, KRUISE),
    (lambda kinds: kinds.advanced_daemon_sets, KRUISE),
    (lambda kinds: kinds.revisions, REVISION),
    (lambda kinds: kinds.rollouts, ROLLOUT),
    (lambda kinds: kinds.canaries, CANARY),
    (lambda kinds: kinds.image_policies, IMAGE_POLICY),
    (lambda kinds: kinds.autoscalers, AUTOSCALER),
    (lambda kinds: kinds.quotas, {"metadata": METADATA, "status": {"hard": {"pods": "3"}, "used": {"pods": "1"}}}),
    (lambda kinds: kinds.limit_ranges, {"metadata": METADATA, "spec": {"limits": [{"type": "Container", "max": {}}]}}),
    (lambda kinds: kinds.services, {"metadata": METADATA, "spec": {"selector": {"a": "b"}}}),
    (lambda kinds: kinds.namespaces, {"metadata": METADATA, "status": {"phase": "Active"}}),
    (lambda kinds: kinds.events, EVENT),
    (lambda kinds: kinds.image_caches, CACHE),
    (lambda kinds: kinds.node_images, {"metadata": METADATA, "spec": {}, "status": {"images": []}}),
    (lambda kinds: kinds.policies, {"metadata": METADATA, "spec": {"mode": "Active"}}),
]

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["1e999", "-5", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "200%", "\0", "a" * 300]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)


def paths(value: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every member of a JSON value."""
    if isinstance(value, dict):
        members: list[tuple[str | int, Any]] = list(value.items())
    else:
        members = list(enumerate(value)) if isinstance(value, list) else []
    return [way for key, member in members for way in ((*here, key), *paths(member, (*here, key)))]


def replaced(value: Any, path: tuple[str | int, ...], member: object) -> Any:
    """A copy with one member replaced."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = member
    return copy


@pytest.mark.parametrize(("pick", "whole"), KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_one_odd_member_costs_at_most_its_own_object(pick: Pick, whole: Object, data: st.DataObject) -> None:
    kind = pick(Kinds())
    broken = replaced(whole, data.draw(st.sampled_from(paths(whole))), data.draw(odd))
    sound = json.loads(json.dumps(whole))
    sound["metadata"]["name"] = "sound"
    body = json.dumps({"metadata": {"resourceVersion": "9"}, "items": [sound, broken, sound]}).encode()
    first, _, last = kind.page(body).items
    assert first.value == last.value
    assert first.value is not None
    change = kind.change(json.dumps({"type": "MODIFIED", "object": broken}).encode())
    assert change.type == "MODIFIED"
