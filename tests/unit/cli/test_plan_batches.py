"""The batches of `prewarm plan`: what comes, when, after which pause, and which pods they are."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from prewarm.cli.app import execute
from prewarm.cli.plan_batches import MAX_NAMES, MAX_STEPS, SHOWN_STEPS, data, rows
from prewarm.demand import far_ahead
from prewarm.model.plans import Batch, Demand, Trigger
from tests.support.clusters import WEB, template

NOW = 1_700_000_000.0
FAR = far_ahead(NOW)
V2 = template("registry.test/web:v2")


def demand(*batches: Batch, trigger: Trigger = Trigger.ROLLOUT) -> Demand:
    return Demand(WEB, "uid", trigger, "v2", ("registry.test/web:v2",), V2, batches)


def shown(*batches: Batch, trigger: Trigger = Trigger.ROLLOUT) -> list[tuple[str, ...]]:
    return rows(demand(*batches, trigger=trigger), NOW)[0]


def test_what_comes_at_once_later_and_after_a_pause_is_told_apart() -> None:
    found = shown(
        Batch(NOW, 2),
        Batch(NOW + 21, 3),
        Batch(NOW + 321, 4, after_rest=True),
        Batch(FAR, 5, after_rest=True),
        Batch(FAR + 30, 1),
    )
    assert [(row[1], row[2]) for row in found] == [
        ("now", "2"),
        ("21 s later", "3"),
        ("5 min later, after a pause", "4"),
        ("after a pause of which nobody knows the end", "5"),
        ("30 s later", "1"),
    ]


def test_a_rollout_that_waits_for_people_still_says_how_its_batches_follow_each_other() -> None:
    found = shown(Batch(FAR, 1, names=("db-1",)), Batch(FAR + 8, 1, names=("db-0",)))
    assert [row[1:] for row in found] == [("nobody knows when", "1", "db-1"), ("8.0 s later", "1", "db-0")]


def test_headroom_is_not_called_a_pause() -> None:
    assert [row[1] for row in shown(Batch(NOW, 1), Batch(FAR, 2), trigger=Trigger.SCALE_OUT)] == [
        "now",
        "nobody knows when",
    ]


def test_pods_that_follow_on_each_other_are_one_row() -> None:
    found = shown(Batch(NOW, 10), *(Batch(NOW + 20 + 0.4 * n, 1) for n in range(10)))
    assert [row[1:3] for row in found] == [("now", "10"), ("20 s later, within 3.6 s", "10")]


def test_ordinals_keep_rows_of_their_own_however_soon_they_come() -> None:
    assert len(shown(*(Batch(NOW + 0.1 * n, 1, names=(f"db-{2 - n}",)) for n in range(3)))) == 3


def test_pods_updated_in_place_are_named_with_their_nodes() -> None:
    (row,) = shown(Batch(NOW, 2, nodes=("n2", "n1"), names=("web-b", "web-a")))
    assert row[-1] == "web-b on n2, web-a on n1"
    (row,) = shown(Batch(NOW, 2, nodes=("n2", "n1")))
    assert row[-1] == "on n2, on n1"


def test_one_batch_of_pods_that_nobody_can_name_needs_no_table() -> None:
    assert rows(demand(Batch(NOW, 20)), NOW) == ([], "")


def test_a_long_rollout_is_cut_and_says_so() -> None:
    many = [Batch(NOW + 10 * n, 1, names=(f"db-{n}",)) for n in range(MAX_STEPS + 50)]
    table, more = rows(demand(*many), NOW)
    assert len(table) == SHOWN_STEPS
    assert (
        more == f"and {len(many) - SHOWN_STEPS} more batches, {len(many) - SHOWN_STEPS} pods; more with --output json"
    )
    told = data(demand(*many), NOW)
    assert isinstance(told["batches"], list)
    assert len(told["batches"]) == MAX_STEPS
    assert told["moreBatches"] == {"batches": 50, "pods": 50}


def test_data_has_times_gaps_and_names() -> None:
    names = tuple(f"db-{n}" for n in range(MAX_NAMES + 1))
    told = data(demand(Batch(NOW, 1, names=("db-9",)), replace(Batch(FAR, len(names)), names=names)), NOW)
    assert isinstance(told["batches"], list)
    first, last = told["batches"]
    assert first == {
        "neededAt": "2023-11-14T22:13:20Z",
        "afterSeconds": 0.0,
        "afterPause": False,
        "pods": 1,
        "names": ["db-9"],
    }
    assert isinstance(last, dict)
    assert (last["neededAt"], last["afterSeconds"], last["afterPause"], last["pods"]) == (None, None, True, len(names))
    assert last["names"] == list(names[:MAX_NAMES])


def stateful_set(*, nodes: int = 3, replicas: int = 3) -> object:
    """A StatefulSet with a changed template, none of its pods replaced yet; nodes have room for many of them."""
    labels: dict[str, object] = {"app": "db"}

    def spec(tag: str) -> dict[str, object]:
        return {"containers": [{"name": "db", "image": f"registry.test/db:{tag}"}]}

    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db", "controller": True}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    allocatable = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    items: list[object] = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"node-{number:02}", "labels": {"kubernetes.io/hostname": f"node-{number:02}"}},
            "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
        }
        for number in range(nodes)
    ]
    items.append(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {
                "name": "db",
                "namespace": "shop",
                "uid": "db",
                "generation": 2,
                "annotations": {"prewarm.dev/enabled": "true"},
            },
            "spec": {
                "replicas": replicas,
                "serviceName": "db",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec("v2")},
            },
            "status": {"observedGeneration": 2, "currentRevision": "db-1", "updateRevision": "db-2"},
        }
    )
    items += [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"db-{number}",
                "namespace": "shop",
                "uid": f"db-{number}",
                "labels": {"app": "db", "controller-revision-hash": "db-1"},
                "ownerReferences": [owner],
            },
            "spec": {**spec("v1"), "nodeName": f"node-{number:02}"},
            "status": ready,
        }
        for number in range(replicas)
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, *arguments: str) -> str:
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert execute(["plan", "--snapshot", str(file), *arguments]) == 0
    return capsys.readouterr().out


def test_a_stateful_sets_plan_names_its_ordinals_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = stateful_set()
    (entry,) = json.loads(ask(tmp_path, capsys, content, "--output", "json"))["demands"]
    assert [batch["names"] for batch in entry["batches"]] == [["db-2"], ["db-1"], ["db-0"]]
    assert all(batch["afterSeconds"] > 0 for batch in entry["batches"][1:])
    printed = ask(tmp_path, capsys, content)
    assert printed.index("db-2") < printed.index("db-1") < printed.index("db-0")


def test_a_rollout_under_way_keeps_its_times_when_it_is_asked_for_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--workload", "statefulset/shop/db", "--output", "json")
    (entry,) = json.loads(ask(tmp_path, capsys, stateful_set(), *asked))["demands"]
    assert entry["trigger"] == "Rollout"
    assert all(batch["neededAt"] for batch in entry["batches"])
    (entry,) = json.loads(ask(tmp_path, capsys, stateful_set(), *asked, "--set-image", "db=registry.test/db:v3"))[
        "demands"
    ]
    assert entry["trigger"] == "WhatIf"


def test_what_cannot_be_predicted_comes_with_its_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = stateful_set(nodes=90)
    (entry,) = json.loads(ask(tmp_path, capsys, content, "--output", "json"))["demands"]
    words = " ".join(ask(tmp_path, capsys, content).split())
    assert entry["advice"] in words
    for way in ("placement.steer", "prewarm.dev/gate", "accept"):
        assert way in entry["advice"]
    (known,) = json.loads(ask(tmp_path, capsys, stateful_set(), "--output", "json"))["demands"]
    assert "advice" not in known
