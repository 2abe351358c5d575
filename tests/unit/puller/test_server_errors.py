"""A server that cannot create pods of one namespace: that is told in its words, and in nobody else's way."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import Completion, ImageCache, ImageList
from prewarm.puller import PullerSettings
from tests.support.pulling import MB, World, registries

IMAGE, OTHER = "registry.test/web:v1", "registry.test/proxy:v1"
WORDS = 'Internal error occurred: failed calling webhook "pods.example": service "gone" not found'
SLOW = 200 * MB
"""Four seconds on these nodes."""


def cache(namespace: str, name: str, image: str, **fields: object) -> ImageCache:
    made = ImageCache(namespace, name, uid=f"uid-{name}", generation=1, lists=(ImageList((image,)),))
    return replace(made, **fields)


def world(**errors: str) -> World:
    found = World(registries({IMAGE: SLOW, OTHER: SLOW}), settings=PullerSettings(cluster_pulls=2), errors=errors)
    found.add_nodes(4)
    return found


def failures(found: World, cache: str) -> set[tuple[str, str, str]]:
    """Image, reason and message of what status says of a cache."""
    (status,) = (known.status for known in found.caches.values() if known.name == cache)
    return {(failure.image, failure.reason, failure.message) for failure in status.failures}


def test_lasting_errors_are_a_refusal_that_leaves_its_place_to_others() -> None:
    found = world(broken=WORDS)
    # Older, so it comes first wherever there is not enough for both.
    found.add_cache(cache("broken", "first", IMAGE))
    found.run(1)
    found.add_cache(cache("shop", "second", OTHER))
    found.run(9)
    assert failures(found, "first") == {(IMAGE, "Refused", WORDS)}
    assert found.condition("first", "Degraded")[0]
    found.run(590)
    assert found.condition("second") == (True, "Warm")
    assert found.pulls_of(OTHER) == dict.fromkeys(found.nodes, 1)
    assert failures(found, "first") == {(IMAGE, "Refused", WORDS)}
    assert "Refused" in dict(found.caches["broken", "first"].status.reasons)
    # Two nodes' first tries within seconds, then with back-off.
    assert found.creates - len(found.created) < 40


def test_the_other_cache_waits_for_no_more_than_the_first_tries() -> None:
    alone = world()
    alone.add_cache(cache("shop", "second", OTHER))
    alone.settle()
    needed = alone.now - alone.caches["shop", "second"].created_at
    found = world(broken=WORDS)
    found.add_cache(cache("broken", "first", IMAGE))
    found.add_cache(cache("shop", "second", OTHER))
    found.run(needed + 10)
    assert found.condition("second") == (True, "Warm")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_run_ends_after_as_many_attempts_as_it_may_have(limit: int) -> None:
    found = world(broken=WORDS)
    found.add_cache(cache("broken", "first", IMAGE, completion=Completion(once=True), attempt_limit=limit))
    found.run(600)
    assert found.condition("first", "Finished") == (True, "PullsFailed")
    assert failures(found, "first") == {(IMAGE, "Refused", WORDS)}
    tries = found.creates
    found.run(600)
    assert found.creates == tries


def test_a_deadline_ends_a_run_whose_pods_the_server_cannot_make() -> None:
    found = world(broken=WORDS)
    completion = Completion(once=True, deadline_seconds=30)
    found.add_cache(cache("broken", "first", IMAGE, completion=completion, attempt_limit=10))
    found.run(60)
    assert found.condition("first", "Finished") == (True, "DeadlineExceeded")


def test_a_hiccup_is_no_failure() -> None:
    found = world(shop=WORDS)
    found.add_cache(cache("shop", "first", IMAGE))
    found.run(2)
    assert failures(found, "first") == set()
    found.errors.clear()
    found.settle(60)
    assert found.condition("first") == (True, "Warm")
    assert not [event for event in found.events if event.warning]


def test_what_heals_is_pulled_once_on_every_node() -> None:
    found = world(shop=WORDS)
    found.add_cache(cache("shop", "first", IMAGE))
    found.run(60)
    found.errors.clear()
    found.run(120)
    assert found.condition("first") == (True, "Warm")
    assert failures(found, "first") == set()
    assert found.pulls_of(IMAGE) == dict.fromkeys(found.nodes, 1)


@pytest.mark.parametrize("words", [WORDS, ""])
def test_a_pod_that_was_made_in_spite_of_the_error_counts_and_ends_the_refusal(words: str) -> None:
    found = world(shop=words)
    found.made_anyhow = True
    found.add_cache(cache("shop", "first", IMAGE))
    found.settle(120)
    assert found.condition("first") == (True, "Warm")
    assert found.pulls_of(IMAGE) == dict.fromkeys(found.nodes, 1)
    assert len(found.created) == len(set(found.created)) == len(found.nodes)
    assert found.most_at_once <= 2


def test_no_answer_at_all_is_no_failure_and_starves_nobody() -> None:
    found = world(broken="")
    found.add_cache(cache("broken", "first", IMAGE))
    found.add_cache(cache("shop", "second", OTHER))
    found.run(120)
    assert found.condition("second") == (True, "Warm")
    assert failures(found, "first") == set()
    assert found.most_at_once <= 2
    found.errors.clear()
    found.run(40)
    assert found.condition("first") == (True, "Warm")
    assert found.pulls_of(IMAGE) == dict.fromkeys(found.nodes, 1)


def test_an_edit_makes_other_pods_which_are_asked_for_at_once() -> None:
    found = world()
    found.refusal = 'serviceaccount "nobody" not found'
    found.add_cache(cache("shop", "first", IMAGE, service_account="nobody"))
    found.run(60)
    assert failures(found, "first") == {(IMAGE, "Refused", found.refusal)}
    found.refusal = ""
    edited = found.caches["shop", "first"]
    found.add_cache(replace(edited, service_account="", generation=2))
    found.run(1)
    assert failures(found, "first") == set()
    assert found.created
