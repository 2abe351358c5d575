"""Bytes pulled ahead are reported once as pulled and once as used or wasted."""

from collections import Counter

from msgspec.structs import replace

from prewarm.accounting import (
    ByteUse,
    ByteVerdict,
    Ledger,
    WasteMemory,
    WasteReason,
    account,
    decode_ledger,
    encode_ledger,
    waste,
)
from prewarm.history import History
from prewarm.model.nodes import Evidence, NodeImages, PresentImage
from tests.support.starts import SIZE, Scene, present


def look(ledger: Ledger, scene: Scene, at: float) -> tuple[Ledger, tuple[ByteVerdict, ...]]:
    """Account and judge waste at one moment."""
    snapshot = scene.snapshot(at)
    ledger, _ = account(ledger, snapshot, (), History())
    return waste(ledger, snapshot, History())


def said(verdicts: tuple[ByteVerdict, ...]) -> list[tuple[ByteUse, WasteReason | None]]:
    return [(verdict.use, verdict.reason) for verdict in verdicts]


def test_bytes_count_as_pulled_once() -> None:
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, first = look(Ledger(), scene, 1010.0)
    _, second = look(ledger, scene, 1020.0)
    assert [(verdict.use, verdict.size_bytes) for verdict in first] == [(ByteUse.PULLED, SIZE)]
    assert second == ()


def test_bytes_that_a_start_was_credited_to_are_used() -> None:
    scene = Scene()
    ledger, _ = account(Ledger(), scene.snapshot(1000.0), (), History())
    scene.record("node-a", since=1010.0)
    pod = scene.pod("web-1", "node-a", created=1040.0, started=1041.0)
    ledger, _ = account(ledger, scene.snapshot(1042.0), [present(pod, at=1041.0)], History())
    ledger, verdicts = waste(ledger, scene.snapshot(1042.0), History())
    assert [verdict.use for verdict in verdicts] == [ByteUse.PULLED, ByteUse.USED]
    assert waste(ledger, scene.snapshot(1043.0), History())[1] == ()


def test_an_image_that_went_unused_is_wasted() -> None:
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, _ = look(Ledger(), scene, 1010.0)
    scene.records["node-a"] = replace(scene.records["node-a"], images=())
    ledger, verdicts = look(ledger, scene, 1020.0)
    assert said(verdicts) == [(ByteUse.WASTED, WasteReason.EVICTED)]
    assert verdicts[0].size_bytes == SIZE
    assert look(ledger, scene, 1030.0)[1] == ()


def test_an_image_that_went_with_its_node_is_wasted() -> None:
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, _ = look(Ledger(), scene, 1010.0)
    scene.node_names = ("node-b",)
    _, verdicts = look(ledger, scene, 1020.0)
    assert said(verdicts) == [(ByteUse.WASTED, WasteReason.EVICTED)]


def test_a_record_that_was_deleted_says_nothing_of_waste() -> None:
    """As when the CRD was deleted, with all records, while nobody looked."""
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, _ = look(Ledger(), scene, 1010.0)
    restored, _ = decode_ledger(encode_ledger(ledger, 1010.0))
    del scene.records["node-a"]
    restored, verdicts = look(restored, scene, 1020.0)
    assert verdicts == ()
    # The record that is begun anew knows nothing of the earlier pull.
    scene.record("node-a", since=1100.0, image="registry.test/other:v1")
    _, verdicts = look(restored, scene, 1000.0 + 86401.0)
    assert {verdict.image for verdict in verdicts} == {"registry.test/other:v1"}


def test_a_node_that_booted_says_nothing_of_waste() -> None:
    """Images outlive a boot; our record is void and begun anew from the node's own list."""
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, _ = look(Ledger(), scene, 1010.0)
    scene.records["node-a"] = replace(scene.records["node-a"], boot_id="before")
    assert look(ledger, scene, 1020.0)[1] == ()


def test_an_image_that_nobody_asks_for_any_more_is_wasted() -> None:
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, _ = look(Ledger(), scene, 1010.0)
    scene.image = "registry.test/web:v3"
    assert look(ledger, scene, 1030.0)[1] == ()
    ledger, verdicts = look(ledger, scene, 1100.0)
    assert said(verdicts) == [(ByteUse.WASTED, WasteReason.SUPERSEDED)]
    assert look(ledger, scene, 1200.0)[1] == ()


def test_an_unused_image_is_wasted_at_the_end_of_retention() -> None:
    scene = Scene()
    scene.record("node-a", since=1000.0)
    ledger, _ = look(Ledger(), scene, 1010.0)
    ledger, verdicts = look(ledger, scene, 1000.0 + 86401.0)
    assert said(verdicts) == [(ByteUse.WASTED, WasteReason.EXPIRED)]


def test_a_pull_that_brought_nothing_is_not_counted() -> None:
    scene = Scene()
    puller = scene.puller("node-a", created=1000.0, done=1001.0)
    scene.record("node-a", since=1001.0)
    snapshot = scene.snapshot(1010.0)
    ledger, _ = account(Ledger(), snapshot, [present(puller, at=1001.0, container="pull-0")], History())
    assert waste(ledger, snapshot, History())[1] == ()


def test_a_restart_neither_repeats_nor_loses_verdicts() -> None:
    scene = Scene()
    scene.record("node-a", since=1000.0)
    scene.record("node-b", since=1000.0, used_at=1005.0)
    ledger, first = look(Ledger(), scene, 1010.0)
    restored, problem = decode_ledger(encode_ledger(ledger, 1010.0))
    scene.records["node-a"] = replace(scene.records["node-a"], images=())
    _, second = look(restored, scene, 1020.0)
    assert problem == ""
    assert Counter(verdict.use for verdict in first + second) == {
        ByteUse.PULLED: 2,
        ByteUse.USED: 1,
        ByteUse.WASTED: 1,
    }


def test_more_verdicts_than_a_saved_ledger_holds_are_not_repeated() -> None:
    images = [f"registry.test/team/application-{number}:v1" for number in range(6000)]
    scene = Scene()
    entries = tuple(PresentImage(image, Evidence.OUR_PULL, 1000.0, size_bytes=SIZE, used_at=1001.0) for image in images)
    scene.records["node-a"] = NodeImages("node-a", "uid-node-a", "boot", entries)
    ledger, first = look(Ledger(), scene, 1010.0)
    ledger, _ = look(ledger, scene, 1200.0)
    restored, _ = decode_ledger(encode_ledger(ledger, 1200.0))
    assert len(first) == 2 * len(images)
    assert look(restored, scene, 1210.0)[1] == ()


def test_without_a_saved_ledger_what_is_on_record_is_nothing_new() -> None:
    """A ledger that was lost, or that a new release cannot read, must not count a month of pulls in one moment."""
    scene = Scene()
    scene.record("node-a", since=1000.0)
    assert look(Ledger(), scene, 5000.0)[1] == ()


def test_reading_only_records_that_changed_gives_the_same_verdicts() -> None:
    scene = Scene()
    scene.node_names = ("node-a", "node-b", "node-c")
    whole, incremental, memory = Ledger(), Ledger(), WasteMemory()
    given: list[tuple[ByteVerdict, ...]] = []

    def both(at: float) -> None:
        nonlocal whole, incremental
        snapshot = scene.snapshot(at)
        whole, expected = waste(account(whole, snapshot, (), History())[0], snapshot, History())
        ledger = account(incremental, snapshot, (), History())[0]
        incremental, found = waste(ledger, snapshot, History(), memory)
        assert (found, incremental) == (expected, whole)
        given.append(found)

    both(990.0)
    # The second pull is too young to be judged when its record is first read.
    scene.record("node-a", since=1000.0)
    scene.record("node-b", since=1009.9)
    both(1010.0)
    both(1020.0)
    both(1030.0)
    scene.records["node-a"] = replace(scene.records["node-a"], images=())
    both(1040.0)
    scene.record("node-c", since=1050.0, image="registry.test/unwanted:v1")
    both(1060.0)
    both(1120.0)
    del scene.records["node-c"]
    both(1130.0)
    both(1009.9 + 86401.0)
    uses = Counter(verdict.use for verdicts in given for verdict in verdicts)
    assert uses == {ByteUse.PULLED: 3, ByteUse.WASTED: 3}
