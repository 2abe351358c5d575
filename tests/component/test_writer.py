"""What becomes of intents, whatever the server answers."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from prewarm.cluster.client import Client
from prewarm.cluster.credentials import TokenFile
from prewarm.cluster.writer import WriteOutcome, Writer
from prewarm.model.intents import (
    CONFIG_MAPS,
    EVENTS,
    IMAGE_CACHES,
    NODES,
    PODS,
    Apply,
    Create,
    Delete,
    Intent,
    LabelNode,
    RecordEvent,
    RemoveAnnotation,
)
from tests.support.fake_api_server import FakeApiServer, Garble, Lose, Refuse
from tests.support.mirroring import connected

UNAVAILABLE = Refuse(503, "ServiceUnavailable", "try later")


def create(name: str) -> Create:
    return Create(PODS, "shop", name, {"metadata": {"name": name}})


def apply(name: str, value: str, subresource: str = "") -> Apply:
    return Apply(CONFIG_MAPS, "shop", name, {"data": {"value": value}}, subresource)


ENDS: Mapping[str, object] = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
"""As admission plugin NamespaceLifecycle says that a namespace is being terminated."""
NO_NAMESPACE = {"kind": "namespaces", "name": "shop"}

CASES: list[tuple[Intent, str, Refuse, WriteOutcome]] = [
    (create("a"), "create", Refuse(409, "AlreadyExists", "exists"), WriteOutcome.EXISTED),
    (create("a"), "create", Refuse(409, "Conflict", "quota has been modified"), WriteOutcome.FAILED),
    (create("a"), "create", Refuse(403, "Forbidden", "exceeded quota: pods"), WriteOutcome.REFUSED),
    (create("a"), "create", Refuse(422, "Invalid", "spec: required"), WriteOutcome.REFUSED),
    (create("a"), "create", Refuse(404, "NotFound", "namespace"), WriteOutcome.REFUSED),
    (create("a"), "create", Refuse(403, "Forbidden", "ends", details=ENDS), WriteOutcome.NAMESPACE_ENDS),
    (create("a"), "create", Refuse(404, "NotFound", "gone", details=NO_NAMESPACE), WriteOutcome.NAMESPACE_ENDS),
    (apply("a", "x"), "patch", Refuse(403, "Forbidden", "ends", details=ENDS), WriteOutcome.NAMESPACE_ENDS),
    (
        RecordEvent(PODS, "shop", "a", "uid-a", "Planned", "3 nodes"),
        "create",
        Refuse(403, "Forbidden", "ends", details=ENDS),
        WriteOutcome.NAMESPACE_ENDS,
    ),
    (Delete(PODS, "shop", "a"), "delete", Refuse(404, "NotFound", "gone"), WriteOutcome.GONE),
    (Delete(PODS, "shop", "a", uid="u"), "delete", Refuse(409, "Conflict", "Precondition failed"), WriteOutcome.GONE),
    (apply("a", "x", "status"), "patch", Refuse(404, "NotFound", "gone"), WriteOutcome.GONE),
    (apply("a", "x"), "patch", Refuse(404, "NotFound", "namespace"), WriteOutcome.REFUSED),
    (RemoveAnnotation(PODS, "shop", "a", "b"), "patch", Refuse(404, "NotFound", "gone"), WriteOutcome.GONE),
    (RemoveAnnotation(PODS, "shop", "a", "b"), "patch", Refuse(403, "Forbidden", "no"), WriteOutcome.REFUSED),
    (LabelNode("n1", (("a", "b"),)), "patch", Refuse(404, "NotFound", "gone"), WriteOutcome.GONE),
    (LabelNode("n1", (("a", "b"),), "u"), "patch", Refuse(409, "Conflict", "Precondition failed"), WriteOutcome.GONE),
    (LabelNode("n1", (("a", "b"),)), "patch", Refuse(403, "Forbidden", "no"), WriteOutcome.REFUSED),
]


@pytest.mark.parametrize(("intent", "verb", "refusal", "outcome"), CASES)
async def test_answers_become_outcomes(
    server: FakeApiServer, client: Client, intent: Intent, verb: str, refusal: Refuse, outcome: WriteOutcome
) -> None:
    server.fail_next(verb, EVENTS if isinstance(intent, RecordEvent) else intent.resource, refusal)
    (result,) = await Writer(client).execute([intent])
    assert result.outcome is outcome
    assert (result.code, result.reason, result.message) == (refusal.code, refusal.reason, refusal.message)


async def test_a_proxys_page_in_place_of_an_answer_is_a_failure(server: FakeApiServer, client: Client) -> None:
    server.fail_next("create", PODS, Garble())
    (garbled, fine) = await Writer(client).execute([create("a"), create("b")])
    assert (garbled.outcome, fine.outcome) == (WriteOutcome.FAILED, WriteOutcome.CREATED)
    assert "no Kubernetes object" in garbled.message


async def test_nothing_is_written_once_it_is_not_allowed_any_more(server: FakeApiServer, client: Client) -> None:
    writer = Writer(client, concurrency=1, allowed=lambda: not server.objects(PODS))
    results = await writer.execute([create("a"), create("b")])
    assert [result.outcome for result in results] == [WriteOutcome.CREATED, WriteOutcome.FAILED]
    assert [name for _, name in server.objects(PODS)] == ["a"]


async def test_one_that_fails_does_not_stop_the_others(server: FakeApiServer, client: Client) -> None:
    server.fail_next("create", PODS, UNAVAILABLE)
    results = await Writer(client, concurrency=1).execute([create("a"), create("b")])
    assert [result.outcome for result in results] == [WriteOutcome.FAILED, WriteOutcome.CREATED]
    assert set(server.objects(PODS)) == {("shop", "b")}


async def test_credentials_that_vanish_for_a_moment_fail_the_write_not_the_writer(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with connected(server, TokenFile(tmp_path / "token")) as client:
        writer = Writer(client)
        (failed,) = await writer.execute([create("a")])
        (tmp_path / "token").write_text("back")
        (created,) = await writer.execute([create("a")])
    assert failed.outcome is WriteOutcome.FAILED
    assert "cannot be read" in failed.message
    assert created.outcome is WriteOutcome.CREATED


async def test_a_create_whose_answer_got_lost_is_asked_once_and_found_done_when_asked_again(
    server: FakeApiServer, client: Client
) -> None:
    """Between two tries the pod may do its work and be deleted: it would be made twice."""
    server.fail_next("create", PODS, Lose())
    writer = Writer(client)
    (lost,) = await writer.execute([create("a")])
    assert lost.outcome is WriteOutcome.FAILED
    assert server.count("create", PODS) == 1
    (again,) = await writer.execute([create("a")])
    assert again.outcome is WriteOutcome.EXISTED
    assert again.done


async def test_no_more_than_the_given_number_of_writes_at_once(server: FakeApiServer, client: Client) -> None:
    results = await Writer(client, concurrency=3).execute([create(f"pod-{number}") for number in range(40)])
    assert all(result.outcome is WriteOutcome.CREATED for result in results)
    assert 1 < server.most_at_once <= 3


async def test_a_status_does_not_queue_behind_creates(server: FakeApiServer, client: Client) -> None:
    writer = Writer(client, concurrency=1)
    creating = asyncio.create_task(writer.execute([create(f"pod-{number}") for number in range(100)]))
    await server.until(lambda: server.count("create", PODS) == 1)
    (told,) = await writer.execute([apply("a", "x", "status")])
    created = server.count("create", PODS)
    await creating
    assert told.outcome is not WriteOutcome.FAILED
    assert created < 100


async def test_intents_for_one_object_keep_their_order(server: FakeApiServer, client: Client) -> None:
    intents = [apply("a", str(number)) for number in range(10)]
    await Writer(client).execute([*intents, create("other")])
    assert server.objects(CONFIG_MAPS)["shop", "a"]["data"] == {"value": "9"}
    asked = [request.body for request in server.asked("patch", CONFIG_MAPS)]
    assert asked == sorted(asked)


async def test_everything_is_applied_under_our_field_manager_and_forced(server: FakeApiServer, client: Client) -> None:
    await Writer(client).execute([Apply(IMAGE_CACHES, "shop", "web", {"spec": {}}), apply("a", "x", "status")])
    (cache,) = server.asked("patch", IMAGE_CACHES)
    assert cache.query == {"fieldManager": "prewarm", "force": "true"}
    assert cache.headers["Content-Type"] == "application/apply-patch+yaml"
    (status,) = server.asked("patch", CONFIG_MAPS)
    assert status.path == "/api/v1/namespaces/shop/configmaps/a/status"


async def test_equal_events_are_counted_and_others_are_new(server: FakeApiServer, client: Client) -> None:
    writer = Writer(client, clock=lambda: 1_800_000_000.0)
    planned = RecordEvent(CONFIG_MAPS, "shop", "a", "uid-a", "Planned", "3 nodes")
    other = RecordEvent(CONFIG_MAPS, "shop", "a", "uid-a", "Planned", "4 nodes", warning=True)
    await writer.execute([planned, other, planned, planned])
    found = {event["message"]: (event["count"], event["type"]) for event in server.objects(EVENTS).values()}
    assert found == {"3 nodes": (3, "Normal"), "4 nodes": (1, "Warning")}


async def test_an_event_that_the_server_forgot_is_created_anew(server: FakeApiServer, client: Client) -> None:
    writer = Writer(client)
    planned = RecordEvent(CONFIG_MAPS, "shop", "a", "uid-a", "Planned", "3 nodes")
    await writer.execute([planned])
    ((namespace, name),) = server.objects(EVENTS)
    server.remove(EVENTS, namespace, name)
    (result,) = await writer.execute([planned])
    assert result.outcome is WriteOutcome.RECORDED
    assert server.objects(EVENTS)[namespace, name]["count"] == 1


@pytest.mark.parametrize(
    ("value", "uid", "outcome", "left"),
    [
        ("", "uid-of-web", WriteOutcome.APPLIED, {"kept": "x"}),
        ("7", "uid-of-web", WriteOutcome.GONE, {"prewarm.dev/purge": "", "kept": "x"}),
        ("", "another-uid", WriteOutcome.GONE, {"prewarm.dev/purge": "", "kept": "x"}),
    ],
)
async def test_an_annotation_goes_only_with_the_value_that_was_acted_on(
    server: FakeApiServer, client: Client, value: str, uid: str, outcome: WriteOutcome, left: dict[str, str]
) -> None:
    annotations = {"prewarm.dev/purge": "", "kept": "x"}
    metadata = {"namespace": "shop", "name": "web", "uid": "uid-of-web", "annotations": annotations}
    server.put(IMAGE_CACHES, {"metadata": metadata})
    (result,) = await Writer(client).execute(
        [RemoveAnnotation(IMAGE_CACHES, "shop", "web", "prewarm.dev/purge", value, uid)]
    )
    assert result.outcome is outcome
    assert server.objects(IMAGE_CACHES)["shop", "web"]["metadata"]["annotations"] == left


async def test_a_removal_whose_answer_got_lost_is_done_and_repeats_when_it_was_not_made(
    server: FakeApiServer, client: Client
) -> None:
    metadata = {"namespace": "shop", "name": "web", "annotations": {"prewarm.dev/refresh": ""}}
    server.put(IMAGE_CACHES, {"metadata": metadata})
    removal = RemoveAnnotation(IMAGE_CACHES, "shop", "web", "prewarm.dev/refresh")
    server.fail_next("patch", IMAGE_CACHES, Refuse(429, "TooManyRequests", "slow down"))
    (made,) = await Writer(client).execute([removal])
    (again,) = await Writer(client).execute([removal])
    assert (made.outcome, again.outcome) == (WriteOutcome.APPLIED, WriteOutcome.GONE)
    assert again.done


async def test_labels_of_ours_are_set_and_removed_and_all_others_stay(server: FakeApiServer, client: Client) -> None:
    """Twice the same changes nothing more: what is there may be set, what is not may be removed."""
    server.put(NODES, {"metadata": {"name": "n1", "uid": "u", "labels": {"zone": "a", "ours/old": "1"}}})
    change = LabelNode("n1", (("ours/new", "2"), ("ours/old", None), ("ours/never", None)), "u")
    for _ in range(2):
        (result,) = await Writer(client).execute([change])
        assert result.outcome is WriteOutcome.APPLIED
        assert server.objects(NODES)["", "n1"]["metadata"]["labels"] == {"zone": "a", "ours/new": "2"}
