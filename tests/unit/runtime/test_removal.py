"""What is removed from a runtime, what stays, and what is said of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.api.removal import (
    MAX_REMOVALS,
    MAX_REPORT_BYTES,
    decode_removals,
    decode_report,
    encode_removals,
    encode_report,
)
from prewarm.model.removals import Removal, RemovalReport, RemovalResult, Removed
from prewarm.runtime import generate
from prewarm.runtime.client import CriRuntime, find_socket
from prewarm.runtime.interface import RuntimeContainer, RuntimeImage, RuntimeUnavailable
from prewarm.runtime.removal import remove_images

DIGEST = "sha256:" + "1" * 64


class Node:
    """A runtime: images by all their names, and containers. Like the real ones, it removes all names of an image."""

    def __init__(self, *images: RuntimeImage, containers: Sequence[RuntimeContainer] = ()) -> None:
        self.stored = list(images)
        self.running = list(containers)
        self.mounts: dict[str, tuple[str, ...]] = {}
        self.stuck = False
        self.broken = ""
        self.asked: list[str] = []

    def image(self, reference: str) -> RuntimeImage | None:
        self.asked.append(reference)
        if reference == self.broken:
            raise RuntimeUnavailable("INTERNAL: the disk is on fire")
        return next((image for image in self.stored if reference in (image.id, *image.tags, *image.digests)), None)

    def containers(self) -> Sequence[RuntimeContainer]:
        return self.running

    def mounted_images(self, container_id: str) -> Sequence[str]:
        return self.mounts.get(container_id, ())

    def remove(self, reference: str) -> None:
        if not self.stuck:
            self.stored = [image for image in self.stored if reference not in (*image.tags, *image.digests)]


def image(name: str, number: int = 1, *more: str, pinned: bool = False) -> RuntimeImage:
    repository = name.rpartition(":")[0]
    return RuntimeImage(
        f"sha256:{number:064x}", (name, *more), (f"{repository}@sha256:{number + 100:064x}",), 10, pinned=pinned
    )


WEB = "registry.example/web:v1"
SHELL = "docker.io/library/busybox:1"


def only(node: Node, *names: str, also: tuple[str, ...] = ()) -> list[RemovalResult]:
    report = remove_images(node, [Removal(name, also) for name in names])
    return [entry.result for entry in report.results]


def test_an_image_goes_with_its_tag_and_digest() -> None:
    node = Node(image(WEB), image(SHELL, 2))
    assert only(node, WEB) == [RemovalResult.REMOVED]
    assert node.stored == [image(SHELL, 2)]


@pytest.mark.parametrize("spelling", ["busybox:1", "docker.io/busybox:1", SHELL])
def test_every_spelling_of_a_name_is_the_same_image(spelling: str) -> None:
    assert only(Node(image(SHELL)), spelling) == [RemovalResult.REMOVED]


def test_tag_and_digest_together_mean_the_digest() -> None:
    node = Node(RuntimeImage("id", (), (f"registry.example/web@{DIGEST}",)))
    assert only(node, f"{WEB}@{DIGEST}") == [RemovalResult.REMOVED]


def test_what_is_not_there_is_absent() -> None:
    assert only(Node(image(SHELL)), WEB) == [RemovalResult.ABSENT]


def test_a_pinned_image_stays() -> None:
    node = Node(image(WEB, pinned=True))
    assert only(node, WEB) == [RemovalResult.PINNED]
    assert node.stored


@pytest.mark.parametrize(
    "used",
    [f"sha256:{1:064x}", WEB, f"registry.example/web@sha256:{101:064x}"],
    ids=["by id", "by name", "by digest"],
)
def test_an_image_that_a_container_uses_stays(used: str) -> None:
    node = Node(image(WEB), containers=[RuntimeContainer("c", (used,))])
    assert only(node, WEB) == [RemovalResult.IN_USE]
    assert node.stored


def test_an_image_that_a_container_mounts_stays() -> None:
    node = Node(image(WEB), containers=[RuntimeContainer("c", (SHELL,))])
    node.mounts["c"] = (WEB,)
    assert only(node, WEB) == [RemovalResult.IN_USE]


def test_an_image_that_somebody_knows_by_another_name_stays() -> None:
    node = Node(image(WEB, 1, "registry.example/web:stable"))
    report = remove_images(node, [Removal(WEB)])
    assert report.results == (Removed(RemovalResult.OTHER_NAMES, "registry.example/web:stable"),)
    assert node.stored


def test_names_that_nobody_wants_go_with_it() -> None:
    also = "registry.example/web:stable"
    assert only(Node(image(WEB, 1, also)), WEB, also=(also,)) == [RemovalResult.REMOVED]
    assert only(Node(image(WEB, 1, also)), WEB, also) == [RemovalResult.REMOVED, RemovalResult.ABSENT]


def test_a_digest_in_a_mirror_is_another_name() -> None:
    node = Node(RuntimeImage("id", (WEB,), (f"mirror.example/web@{DIGEST}",)))
    assert only(node, WEB) == [RemovalResult.OTHER_NAMES]


def test_a_removal_that_had_no_effect_is_no_success() -> None:
    node = Node(image(WEB))
    node.stuck = True
    assert only(node, WEB) == [RemovalResult.FAILED]


def test_trouble_with_one_image_does_not_keep_the_others() -> None:
    node = Node(image(WEB), image(SHELL, 2))
    node.broken = WEB
    report = remove_images(node, [Removal(WEB), Removal(SHELL)])
    assert [entry.result for entry in report.results] == [RemovalResult.FAILED, RemovalResult.REMOVED]
    assert "on fire" in report.results[0].message


@pytest.mark.parametrize(
    "hostile",
    ["", "a b", "$(reboot)", "web:v1; rm -rf /", "web\n:v1", "'web'", "x" * 10_000, "../../etc/passwd", "\ud800"],
)
def test_what_is_no_reference_never_reaches_the_runtime(hostile: str) -> None:
    node = Node(image(WEB))
    assert only(node, hostile) == [RemovalResult.INVALID]
    assert node.asked == []


def test_a_name_that_is_the_beginning_of_an_id_is_a_name() -> None:
    node = Node(RuntimeImage("deadbeef", (WEB,)))
    assert only(node, "deadbeef") == [RemovalResult.ABSENT]
    assert node.asked == ["docker.io/library/deadbeef:latest"]


NAMES = [f"r.example/{letter}:v1" for letter in "abcde"]


@given(
    groups=st.lists(st.sampled_from(NAMES), unique=True).flatmap(
        lambda names: st.tuples(st.just(names), st.lists(st.integers(0, 2), min_size=len(names), max_size=len(names)))
    ),
    asked=st.lists(st.sampled_from(NAMES), max_size=4),
    used=st.sets(st.integers(0, 2)),
)
def test_only_what_was_asked_for_goes_and_never_what_is_used(
    groups: tuple[list[str], list[int]], asked: list[str], used: set[int]
) -> None:
    by_image: dict[int, list[str]] = {}
    for name, number in zip(*groups, strict=True):
        by_image.setdefault(number, []).append(name)
    node = Node(
        *(RuntimeImage(f"id-{number}", tuple(names)) for number, names in by_image.items()),
        containers=[RuntimeContainer(f"c-{number}", (f"id-{number}",)) for number in used],
    )
    report = remove_images(node, [Removal(name) for name in asked])
    left = {name for image in node.stored for name in image.tags}
    for number, names in by_image.items():
        if number in used or not set(names) <= set(asked):
            assert set(names) <= left
    for name, entry in zip(asked, report.results, strict=True):
        assert entry.result.gone == (name not in left)


@given(st.lists(st.builds(Removed, st.sampled_from(RemovalResult), st.text(max_size=3000)), max_size=MAX_REMOVALS))
def test_every_report_fits_the_termination_log_and_keeps_all_results(results: list[Removed]) -> None:
    encoded = encode_report(RemovalReport(tuple(results)))
    assert len(encoded) <= MAX_REPORT_BYTES
    read = decode_report(encoded.decode())
    assert read is not None
    assert [entry.result for entry in read.results] == [entry.result for entry in results]


@pytest.mark.parametrize("text", ["", "panic: x", "{", '{"results": [{"result": "Nonsense"}]}', "[]", "null"])
def test_what_is_no_report_is_none(text: str) -> None:
    assert decode_report(text) is None


def test_removals_arrive_as_they_were_sent() -> None:
    removals = (Removal(WEB, (SHELL,)), Removal("a'; $(b)\n"))
    assert decode_removals(encode_removals(removals)) == removals


@pytest.mark.parametrize(
    "text",
    ["x", "{}", '["a"]', '[{"image": 3}]', json.dumps([{"image": "a"}] * 51), json.dumps([{"image": "a" * 2000}])],
)
def test_removals_beyond_their_bounds_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="PREWARM_REMOVE") as refused:
        decode_removals(text)
    assert "\n" not in str(refused.value)


def test_no_socket_is_said_with_the_places_that_were_looked_at(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"nowhere\.sock"):
        find_socket(tmp_path / "nowhere.sock")


def test_a_socket_that_nobody_serves_is_unavailable(tmp_path: Path) -> None:
    with CriRuntime(tmp_path / "dead.sock") as runtime, pytest.raises(RuntimeUnavailable, match="UNAVAILABLE"):
        runtime.version()


def test_the_generated_messages_are_those_of_the_protocol_file() -> None:
    assert generate.main(["--check"]) == 0
