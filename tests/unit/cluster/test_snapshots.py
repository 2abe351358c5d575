"""Snapshots from what kubectl prints."""

import json

import pytest
from structlog.testing import capture_logs

from prewarm.cluster.snapshots import SnapshotError, read_snapshot
from tests.support.manifests import Object, node, pod


def listing(*items: object, kind: str = "List", indent: int | None = 4) -> bytes:
    value = {"apiVersion": "v1", "items": list(items), "kind": kind, "metadata": {"resourceVersion": ""}}
    return json.dumps(value, indent=indent).encode()


def without_type(value: Object) -> Object:
    return {key: item for key, item in value.items() if key not in {"apiVersion", "kind"}}


def test_mixed_kinds_become_one_snapshot() -> None:
    snapshot = read_snapshot(listing(node("n1"), pod("a", node="n1"), pod("b")), 7.0)
    assert snapshot.taken_at == 7.0
    assert snapshot.nodes.keys() == {"n1"}
    assert snapshot.pods.keys() == {("shop", "a"), ("shop", "b")}
    assert snapshot.usage["n1"].milli_cpu == 100


def test_kinds_that_do_not_matter_are_passed_over() -> None:
    job = {"apiVersion": "example.test/v1", "kind": "Thing", "metadata": {"name": "j"}}
    assert read_snapshot(listing(job, pod("a")), 0.0).pods.keys() == {("shop", "a")}


def test_a_typed_list_as_the_api_server_sends_it_is_read_too() -> None:
    data = listing(without_type(pod("a")), kind="PodList", indent=None)
    assert read_snapshot(data, 0.0).pods.keys() == {("shop", "a")}


def test_an_object_that_makes_no_sense_costs_nobody_else_and_is_named() -> None:
    with capture_logs() as logs:
        snapshot = read_snapshot(listing(pod("bad") | {"spec": 7}, pod("a")), 0.0)
    assert snapshot.pods.keys() == {("shop", "a")}
    (warning,) = logs
    assert (warning["kind"], warning["namespace"], warning["name"]) == ("Pod", "shop", "bad")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "snapshot is empty"),
        (b"  \n", "snapshot is empty"),
        (b"kind: List", "no JSON list"),
        (b'{"kind": "List", "items": [', "no JSON list"),
        (b"\xff\xfe", "no JSON list"),
        (b"[]", "no JSON list"),
        (b"[" * 100_000, "no JSON list"),
        (b"{}", "something without a kind"),
        (json.dumps(pod("a")).encode(), "holds Pod, not a List"),
        (listing({"apiVersion": "example.test/v1", "kind": "Thing"}), "none of its 1 objects"),
        (listing(1, 2), "none of its 2 objects"),
    ],
)
def test_garbage_gives_one_clear_line(data: bytes, words: str) -> None:
    with pytest.raises(SnapshotError, match=words) as raised:
        read_snapshot(data, 0.0)
    assert "\n" not in str(raised.value)


def test_what_nests_too_deep_is_left_out_alone() -> None:
    data = listing(pod("a"), pod("b") | {"deep": "HERE"}).replace(b'"HERE"', b"[" * 5_000 + b"]" * 5_000)
    assert read_snapshot(data, 0.0).pods.keys() == {("shop", "a"), ("shop", "b")}


def test_an_empty_list_is_an_empty_cluster() -> None:
    assert not read_snapshot(listing(), 0.0).pods
