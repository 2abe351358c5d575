"""How long does `prewarm plan --snapshot` take on a large cluster, start of Python included?"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median

from prewarm.model.intents import Json

NODES = 1_000
PODS = 10_000
GOAL_SECONDS = 2.0
_RUNS = 5
_WORKLOADS = 100
_START = "2026-01-01T00:00:00Z"


def snapshot(nodes: int, pods: int, *, seed: int = 1, images: int = 50) -> dict[str, Json]:
    """A cluster as `kubectl get nodes,pods,deployments,replicasets,services -A -o json` prints it."""
    random = Random(seed)  # noqa: S311 - a repeatable cluster is wanted
    items: list[Json] = [_node(index, random, images) for index in range(nodes)]
    share = pods // _WORKLOADS
    for index in range(_WORKLOADS):
        items += _workload(f"web-{index}", share, nodes, random)
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def _node(index: int, random: Random, images: int) -> Json:
    name = f"node-{index:05d}"
    cpu = random.choice((16, 32, 64))
    room: dict[str, Json] = {
        "cpu": str(cpu),
        "memory": f"{cpu * 4}Gi",
        "pods": "110",
        "ephemeral-storage": "100Gi",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": _START,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": f"zone-{index % 3}",
            },
        },
        "spec": {},
        "status": {
            "allocatable": room,
            "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _START}],
            "images": [
                {
                    "names": [f"registry.example/app-{n}@sha256:{n:064x}", f"registry.example/app-{n}:v{index % 5}"],
                    "sizeBytes": 100_000_000 + n,
                }
                for n in range(images)
            ],
            "nodeInfo": {"bootID": f"boot-{name}", "operatingSystem": "linux", "architecture": "amd64"},
        },
    }


_CONTROLLED_BY: dict[str, Json] = {"apiVersion": "apps/v1", "controller": True}


def _workload(name: str, replicas: int, nodes: int, random: Random) -> list[Json]:
    labels: dict[str, Json] = {"app": name}
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": labels},
    }
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(name)},
        },
        "status": {"replicas": replicas, "observedGeneration": 1},
    }
    pods = (_pod(name, number, f"node-{random.randrange(nodes):05d}") for number in range(replicas))
    return [deployment, _replica_set(name, replicas), service, *pods]


def _pod_spec(name: str) -> dict[str, Json]:
    return {
        "containers": [
            {
                "name": "web",
                "image": f"registry.example/{name}:v1",
                "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}},
                "env": [{"name": f"SETTING_{n}", "value": "x" * 40} for n in range(10)],
            }
        ]
    }


def _hashed(name: str) -> dict[str, Json]:
    """Labels of a ReplicaSet's pods."""
    return {"app": name, "pod-template-hash": "abc123"}


def _replica_set(name: str, replicas: int) -> Json:
    labels = _hashed(name)
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name}-abc123",
            "namespace": "default",
            "uid": f"uid-{name}-abc123",
            "labels": labels,
            "ownerReferences": [{**_CONTROLLED_BY, "kind": "Deployment", "name": name, "uid": f"uid-{name}"}],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(name)},
        },
    }


def _pod(name: str, number: int, node: str) -> Json:
    owner: Json = {**_CONTROLLED_BY, "kind": "ReplicaSet", "name": f"{name}-abc123", "uid": f"uid-{name}-abc123"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-abc123-{number:05d}",
            "namespace": "default",
            "uid": f"uid-{name}-{number}",
            "labels": _hashed(name),
            "creationTimestamp": _START,
            "ownerReferences": [owner],
        },
        "spec": {**_pod_spec(name), "nodeName": node},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _START}],
            "containerStatuses": [
                {"name": "web", "ready": True, "image": f"registry.example/{name}:v1", "state": {"running": {}}}
            ],
        },
    }


def main() -> None:
    """Measure a what-if rollout on a snapshot file, start of Python included."""
    if not measure():
        raise SystemExit(1)


def measure() -> bool:
    """Print the time of a what-if rollout on a snapshot file; whether it stays below the goal."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "snapshot.json"
        file.write_text(json.dumps(snapshot(NODES, PODS)), encoding="utf-8")
        command = [sys.executable, "-m", "prewarm", "plan", "--snapshot", str(file), "--output", "json"]
        question = ["--workload", "deployment/default/web-0", "--set-image", "web=registry.example/web-0:v2"]
        times = [_seconds([*command, *question]) for _ in range(_RUNS)]
        start = median(_seconds([sys.executable, "-m", "prewarm", "--version"]) for _ in range(_RUNS))
        size = file.stat().st_size / 1e6
    took = median(times)
    print(f"prewarm plan --snapshot, {NODES} nodes, {PODS} pods, {size:.0f} MB of JSON:")
    print(f"  median of {_RUNS}: {took:.2f} s (goal {GOAL_SECONDS:.0f} s); prewarm --version alone: {start:.2f} s")
    return took < GOAL_SECONDS


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
