"""Only one leads, whatever clocks say; a leader that loses the Lease stops its work first."""

import asyncio

import pytest

from prewarm.cluster.client import Client
from prewarm.cluster.errors import ConfigurationError
from prewarm.cluster.lease import LeaderLease, LeadershipLost, LeaseTimes
from prewarm.model.intents import LEASES
from tests.support.fake_api_server import FakeApiServer, Garble, Hang, Refuse
from tests.support.mirroring import TIMEOUT_SECONDS

PATIENT = LeaseTimes(duration=15, renew_deadline=10, retry=0.02)
HASTY = LeaseTimes(duration=1.2, renew_deadline=0.3, retry=0.02)


def candidate(client: Client, identity: str, times: LeaseTimes = PATIENT) -> LeaderLease:
    return LeaderLease(client, namespace="prewarm", name="prewarm", identity=identity, times=times)


def held_by_another(server: FakeApiServer, renewed: str) -> None:
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 2, "renewTime": renewed, "leaseTransitions": 4}
    server.put(LEASES, {"metadata": {"name": "prewarm", "namespace": "prewarm"}, "spec": spec})


def spec(server: FakeApiServer) -> dict[str, object]:
    found = server.objects(LEASES)["prewarm", "prewarm"]["spec"]
    assert isinstance(found, dict)
    return found


async def forever() -> None:
    await asyncio.Event().wait()


async def nothing() -> None:
    """Work that is done at once."""


async def test_the_lease_is_freed_when_the_work_is_done(server: FakeApiServer, client: Client) -> None:
    first = candidate(client, "first")
    await first.run(nothing)
    assert spec(server)["holderIdentity"] == ""
    await candidate(client, "second").run(nothing)
    assert spec(server)["leaseTransitions"] == 1
    assert not first.leading.is_set()


async def test_labels_and_annotations_of_others_stay_on_the_lease(server: FakeApiServer, client: Client) -> None:
    theirs = {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    server.put(LEASES, {"metadata": {"name": "prewarm", "namespace": "prewarm", **theirs}, "spec": {}})
    await candidate(client, "first").run(nothing)
    metadata = server.objects(LEASES)["prewarm", "prewarm"]["metadata"]
    assert isinstance(metadata, dict)
    assert spec(server)["leaseTransitions"] == 1
    assert theirs.items() <= metadata.items()


async def test_an_error_of_the_work_comes_through_and_frees_the_lease(server: FakeApiServer, client: Client) -> None:
    async def breaks() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await candidate(client, "first").run(breaks)
    assert spec(server)["holderIdentity"] == ""


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
async def test_a_holder_with_a_wrong_clock_keeps_the_lease_while_it_renews(
    server: FakeApiServer, client: Client, renewed: str
) -> None:
    """Ages are taken from when we saw the record change, never from the time written in it."""
    held_by_another(server, renewed)
    waiting = candidate(client, "second")
    running = asyncio.create_task(waiting.run(nothing))
    for renewal in range(8):
        asked = server.count("get", LEASES)
        await server.until(lambda asked=asked: server.count("get", LEASES) > asked + 1)  # type: ignore[misc]
        held_by_another(server, renewed.replace("000000Z", f"00000{renewal}Z"))
    assert not waiting.leading.is_set()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await running
    assert spec(server)["leaseTransitions"] == 5


async def test_an_answer_that_comes_too_late_gives_no_lead(server: FakeApiServer, client: Client) -> None:
    """Others take a Lease over by the time of its record, however long its writer waits to hear of it."""
    server.fail_next("create", LEASES, Hang())
    async with asyncio.timeout(TIMEOUT_SECONDS / 2):
        await candidate(client, "first", HASTY).run(nothing)
    assert server.count("create", LEASES) == 2


async def test_a_proxys_page_in_place_of_the_lease_is_tried_again(server: FakeApiServer, client: Client) -> None:
    server.fail_next("get", LEASES, Garble())
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await candidate(client, "first").run(nothing)
    assert spec(server)["leaseTransitions"] == 0


async def test_a_leader_that_cannot_renew_stops_its_work(server: FakeApiServer, client: Client) -> None:
    leader = candidate(client, "first", HASTY)
    stopped = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    running = asyncio.create_task(leader.run(work))
    await leader.leading.wait()
    server.fail_next("get", LEASES, *[Refuse(503, "ServiceUnavailable", "away")] * 10_000)
    with pytest.raises(LeadershipLost):
        await running
    assert stopped.is_set()
    assert not leader.leading.is_set()


async def test_a_leader_whose_lease_was_taken_stops_at_once(server: FakeApiServer, client: Client) -> None:
    leader = candidate(client, "first")
    running = asyncio.create_task(leader.run(forever))
    await leader.leading.wait()
    held_by_another(server, "2026-01-01T00:00:00.000000Z")
    with pytest.raises(LeadershipLost):
        await running
    assert spec(server)["holderIdentity"] == "another"


async def test_of_two_that_try_together_one_leads(server: FakeApiServer, client: Client) -> None:
    candidates = [candidate(client, str(number)) for number in range(2)]
    running = [asyncio.create_task(one.run(forever)) for one in candidates]
    leading = [asyncio.create_task(one.leading.wait()) for one in candidates]
    await asyncio.wait(leading, return_when=asyncio.FIRST_COMPLETED)
    await server.until(lambda: server.count("get", LEASES) > 12)
    assert sum(one.leading.is_set() for one in candidates) == 1
    for task in (*running, *leading):
        task.cancel()
    await asyncio.gather(*running, *leading, return_exceptions=True)


async def test_a_leader_that_slept_longer_than_its_lease_knows_that_it_may_be_lost(client: Client) -> None:
    clock = [100.0]
    lease = LeaderLease(
        client, namespace="prewarm", name="prewarm", identity="us", times=PATIENT, monotonic=lambda: clock[0]
    )
    seen = [lease.holds]
    await lease.acquire()
    seen.append(lease.holds)
    clock[0] += PATIENT.renew_deadline
    seen.append(lease.holds)
    assert seen == [False, True, False]


def test_times_that_contradict_each_other_are_refused(client: object) -> None:
    with pytest.raises(ConfigurationError, match="lease times 10 > 10 > 2"):
        LeaderLease(client, namespace="a", name="a", identity="a", times=LeaseTimes(duration=10))  # type: ignore[arg-type]


async def test_it_carries_what_others_judge_by_and_keeps_what_is_not_ours(
    server: FakeApiServer, client: Client
) -> None:
    held_by_another(server, "2026-01-01T00:00:00.000000Z")
    stored = server.objects(LEASES)["prewarm", "prewarm"]
    server.put(LEASES, {**stored, "metadata": {**stored["metadata"], "annotations": {"theirs": "kept"}}, "spec": {}})

    def annotations() -> dict[str, str]:
        found: dict[str, str] = server.objects(LEASES)["prewarm", "prewarm"]["metadata"].get("annotations", {})
        return found

    first = candidate(client, "first")
    leading = asyncio.create_task(first.run(forever))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await first.leading.wait()
        first.annotate("prewarm.dev/gated", "deployment/shop/web=600")
        await server.until(lambda: annotations() == {"theirs": "kept", "prewarm.dev/gated": "deployment/shop/web=600"})
        first.annotate("prewarm.dev/gated", "")
        await server.until(lambda: annotations() == {"theirs": "kept"})
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
