"""What we wrote is seen at once, and neither an event on its way nor a deletion that overtook us confuses it."""

import json

import pytest

from prewarm.cluster.feeds import Feed, feeds
from prewarm.cluster.store import Store
from prewarm.model.intents import PODS
from tests.support.manifests import Object, pod


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def feed(store: Store) -> Feed:
    return next(feed for feed in feeds(store) if feed.resource == PODS)


def state(version: int, node: str) -> Object:
    return pod("a", node=node, uid="uid-a", resourceVersion=str(version))


def event(kind: str, value: Object) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode()


def listing(version: int, *items: Object) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": str(version)}, "items": items}).encode()


def node_of(store: Store) -> str | None:
    found = store.snapshot(0.0).pods.get(("shop", "a"))
    return None if found is None else found.node_name


def test_our_own_write_is_not_undone_by_an_event_from_before(store: Store, feed: Feed) -> None:
    feed.take(event("ADDED", state(1, "")))
    feed.put_raw(json.dumps(state(3, "n3")).encode())
    feed.take(event("MODIFIED", state(2, "n2")))
    assert node_of(store) == "n3"
    feed.take(event("MODIFIED", state(4, "n4")))
    assert node_of(store) == "n4"


def test_what_was_deleted_before_we_heard_of_our_own_write_does_not_come_back(store: Store, feed: Feed) -> None:
    feed.take(event("ADDED", state(1, "")))
    feed.take(event("DELETED", state(2, "")))
    feed.put_raw(json.dumps(state(1, "")).encode())
    assert node_of(store) is None


def test_a_new_list_is_right_even_with_lower_versions(store: Store, feed: Feed) -> None:
    """As after etcd was restored from a backup."""
    feed.take(event("ADDED", state(900, "n900")))
    feed.load(listing(500, state(400, "n400")))
    assert node_of(store) == "n400"


def test_a_namesake_is_another_object_whatever_its_version(store: Store, feed: Feed) -> None:
    feed.take(event("ADDED", state(900, "n1")))
    feed.take(event("ADDED", pod("a", node="n2", uid="uid-b", resourceVersion="100")))
    assert node_of(store) == "n2"
