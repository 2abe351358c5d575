"""`prewarm plan --snapshot`: the JSON that programs read, and the same for people."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from prewarm.cli.app import execute

WEB = "deployment/default/web"


def snapshot(*, nodes: int = 6, annotated: bool = False, present: Sequence[str] = ()) -> Mapping[str, object]:
    """Equal nodes, one cordoned, and a Deployment of two pods; `present` are nodes that have the next image."""
    labels, hashed = {"app": "web"}, {"app": "web", "pod-template-hash": "abc"}
    container = {"name": "web", "image": "registry.test/web:v1", "resources": {"requests": {"cpu": "1"}}}
    spec = {"containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    items: list[object] = [_node(f"node-{n}", n == 0, f"node-{n}" in present) for n in range(nodes)]
    items.append(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "web",
                "namespace": "default",
                "uid": "web",
                "annotations": {"prewarm.dev/enabled": "true"} if annotated else {},
            },
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        }
    )
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web", "controller": True}
    items.append(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": "web-abc",
                "namespace": "default",
                "uid": "web-abc",
                "labels": hashed,
                "ownerReferences": [owner],
            },
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": hashed},
                "template": {"metadata": {"labels": hashed}, "spec": spec},
            },
        }
    )
    items += [_pod(number, hashed, spec) for number in (1, 2)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _node(name: str, cordoned: bool, present: bool) -> object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": [{"names": ["registry.test/web:v2"], "sizeBytes": 10**8}] if present else [],
        },
    }


def _pod(number: int, labels: Mapping[str, str], spec: Mapping[str, object]) -> object:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "uid": "web-abc", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-{number}",
            "namespace": "default",
            "uid": f"web-{number}",
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {**spec, "nodeName": f"node-{number}"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str, content: object = None) -> str:
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(content or snapshot()), encoding="utf-8")
    assert execute(["plan", "--snapshot", str(file), *arguments]) == 0
    return capsys.readouterr().out


ROLLOUT = ("--workload", WEB, "--set-image", "web=registry.test/web:v2")


def test_what_if_a_workload_had_another_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = snapshot(present=["node-3"])
    answer = json.loads(ask(tmp_path, capsys, *ROLLOUT, "--output", "json", content=content))
    (demand,) = answer["demands"]
    assert demand["workload"] == WEB
    assert demand["images"] == ["registry.test/web:v2"]
    assert demand["pods"] == 2
    assert demand["neededAt"].endswith("Z")
    assert 0 <= demand["predictability"] <= 1
    assert demand["rejected"] == [{"reason": "NodeUnschedulable", "nodes": 1}]
    names = [node["name"] for node in demand["nodes"]]
    assert len(names) == len(set(names))
    assert {"node-3"} < set(names) <= {f"node-{n}" for n in range(1, 6)}
    assert [node["name"] for node in demand["nodes"] if node["present"]] == ["node-3"]
    probabilities = [node["probability"] for node in demand["nodes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert min(probabilities) >= 0.01
    assert {skip["reason"] for skip in answer["skipped"]} >= {"AlreadyPresent"}


def test_the_image_caches_are_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = snapshot(nodes=3)
    answer = json.loads(ask(tmp_path, capsys, *ROLLOUT, "--output", "json", content=content))
    (cache,) = answer["imageCaches"]
    assert (cache["apiVersion"], cache["kind"]) == ("prewarm.dev/v1alpha1", "ImageCache")
    assert cache["spec"]["cacheSpec"][0]["images"] == ["registry.test/web:v2"]
    assert sorted(cache["spec"]["cacheSpec"][0]["nodeNames"]) == ["node-1", "node-2"]


def test_what_if_it_had_more_replicas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(ask(tmp_path, capsys, "--workload", WEB, "--replicas", "5", "--output", "json"))
    (demand,) = answer["demands"]
    assert demand["pods"] == 3
    assert demand["images"] == ["registry.test/web:v1"]
    assert {node["name"] for node in demand["nodes"]} == {"node-3", "node-4", "node-5"}


def test_pods_without_room_name_the_nodes_that_would_take_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grouped = json.loads(json.dumps(snapshot()))
    for item in grouped["items"]:
        if item["kind"] == "Node":
            item["metadata"]["labels"]["karpenter.sh/nodepool"] = "general"
    many = ("--workload", WEB, "--replicas", "60")
    found = json.loads(ask(tmp_path, capsys, *many, "--output", "json", content=grouped))
    (entry,) = found["demands"]
    (group,) = entry["newNodes"]
    assert entry["unplaced"] > 0
    assert group["group"] == "karpenter.sh/nodepool=general"
    assert group["nodes"] * group["podsEach"] >= entry["unplaced"]
    assert "new nodes of karpenter.sh/nodepool=general" in ask(tmp_path, capsys, *many, content=grouped)


def test_without_a_workload_only_covered_ones_are_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(ask(tmp_path, capsys, "--output", "json"))
    assert answer == {"demands": [], "imageCaches": [], "skipped": []}
    assert "Nothing to prewarm" in ask(tmp_path, capsys)


def test_what_is_not_understood_does_not_stand_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(json.dumps(snapshot(annotated=True)))
    next(item for item in content["items"] if item["kind"] == "Deployment")["spec"]["strategy"] = {"type": "Sometimes"}
    (tmp_path / "snapshot.json").write_text(json.dumps(content))
    assert execute(["plan", "--snapshot", str(tmp_path / "snapshot.json"), "--output", "json"]) == 0
    printed = capsys.readouterr()
    assert "demands" in json.loads(printed.out)
    assert "Sometimes" in printed.err


def test_yaml_says_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(ask(tmp_path, capsys, *ROLLOUT, "--output", "json"))
    second = yaml.safe_load(ask(tmp_path, capsys, *ROLLOUT, "--output", "yaml"))
    assert first["demands"][0]["nodes"] == second["demands"][0]["nodes"]


def test_the_table_names_nodes_with_what_happens_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = snapshot(nodes=4, present=["node-3"])
    printed = ask(tmp_path, capsys, *ROLLOUT, content=content)
    assert WEB in printed
    assert "registry.test/web:v2" in printed
    row = next(line for line in printed.splitlines() if "node-3" in line)
    assert row.split()[-1] == "present"
    assert "NodeUnschedulable" in printed


def test_a_snapshot_is_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.dumps(snapshot()).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert execute(["plan", "--snapshot", "-", *ROLLOUT, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["demands"][0]["pods"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--workload", "deployment/default/other", "--replicas", "2"), "not in the cluster"),
        (("--workload", WEB, "--set-image", "side=a:1"), "it has: web"),
        (("--workload", WEB, "--replicas", "-1"), "replicas -1"),
    ],
)
def test_impossible_questions_say_why(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(snapshot()), encoding="utf-8")
    assert execute(["plan", "--snapshot", str(file), *arguments]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert len(told.splitlines()) == 1
