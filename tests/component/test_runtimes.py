"""Removing images over a socket that answers as CRI-O and cri-dockerd do; containerd is real, in e2e/runtime."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prewarm.model.removals import Removal, RemovalResult, Removed
from prewarm.runtime.client import CriRuntime
from prewarm.runtime.removal import remove_images
from tests.support.runtimes import Crio, Dockerd, Held, Stored, serving

WEB, STABLE, TOOL = "registry.example/web:v1", "registry.example/web:stable", "registry.example/tool:v1"
BUSYBOX = "docker.io/library/busybox:1"


def digest(name: str, image: Stored) -> str:
    return f"{name.rpartition(':')[0]}@sha256:{image.manifest}"


def crio_image(number: int, *names: str, pinned: bool = False) -> Stored:
    return Stored(f"{number:064x}", f"{number + 100:064x}", list(names), pinned=pinned)


def docker_image(number: int, *names: str) -> Stored:
    image = crio_image(number, *names)
    image.names.extend(dict.fromkeys(digest(name, image) for name in names))
    return image


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "runtime.sock"


@pytest.fixture
def crio(socket: Path) -> Iterator[Crio]:
    model = Crio()
    with serving(model, socket):
        yield model


@pytest.fixture
def dockerd(socket: Path) -> Iterator[Dockerd]:
    model = Dockerd()
    with serving(model, socket):
        yield model


def remove(socket: Path, *removals: Removal) -> tuple[Removed, ...]:
    with CriRuntime(socket) as runtime:
        return remove_images(runtime, removals).results


def results(socket: Path, *removals: Removal) -> list[RemovalResult]:
    return [entry.result for entry in remove(socket, *removals)]


def test_crio_removes_an_image_and_keeps_others(crio: Crio, socket: Path) -> None:
    kept = crio_image(2, TOOL)
    crio.images = [crio_image(1, WEB), kept]
    assert results(socket, Removal(WEB), Removal("registry.example/no/such:v1")) == [
        RemovalResult.REMOVED,
        RemovalResult.ABSENT,
    ]
    assert crio.images == [kept]


def test_crio_removes_an_image_with_all_names_that_may_go(crio: Crio, socket: Path) -> None:
    crio.images = [crio_image(1, WEB, STABLE)]
    assert results(socket, Removal(WEB, (STABLE,))) == [RemovalResult.REMOVED]
    assert crio.images == []


def test_crio_keeps_an_image_with_a_name_that_was_not_given(crio: Crio, socket: Path) -> None:
    crio.images = [crio_image(1, WEB, STABLE)]
    assert remove(socket, Removal(WEB)) == (Removed(RemovalResult.OTHER_NAMES, STABLE),)
    assert crio.images[0].names == [WEB, STABLE]


def test_crio_removes_by_a_digest_that_is_no_name(crio: Crio, socket: Path) -> None:
    image = crio_image(1, WEB)
    crio.images = [image]
    assert results(socket, Removal(digest(WEB, image), (WEB,))) == [RemovalResult.REMOVED]
    assert crio.images == []


def test_crio_removes_what_was_pulled_by_digest(crio: Crio, socket: Path) -> None:
    image = crio_image(1)
    image.names = [digest(WEB, image)]
    crio.images = [image]
    assert results(socket, Removal(digest(WEB, image))) == [RemovalResult.REMOVED]
    assert crio.images == []


def test_crio_keeps_what_is_pinned_used_or_mounted(crio: Crio, socket: Path) -> None:
    pinned, used, mounted = crio_image(1, "r.example/pinned:1"), crio_image(2, WEB), crio_image(3, TOOL)
    pinned.pinned = True
    crio.images = [pinned, used, mounted]
    crio.containers = [Held("c1", used, WEB, (mounted,))]
    assert results(socket, Removal("r.example/pinned:1"), Removal(WEB), Removal(TOOL)) == [
        RemovalResult.PINNED,
        RemovalResult.IN_USE,
        RemovalResult.IN_USE,
    ]
    assert crio.images == [pinned, used, mounted]


def test_crio_that_tells_no_mounts_refuses_in_its_own_words(socket: Path) -> None:
    crio = Crio(tells_mounts=False)
    used, mounted = crio_image(1, TOOL), crio_image(2, WEB, STABLE)
    crio.images, crio.containers = [used, mounted], [Held("c1", used, TOOL, (mounted,))]
    with serving(crio, socket):
        (found,) = remove(socket, Removal(WEB, (STABLE,)))
    assert found.result is RemovalResult.FAILED
    assert f'image "{WEB}" is mounted as volume to container with ID: c1' in found.message
    assert crio.images == [used, mounted]
    assert mounted.names == [WEB, STABLE]


def test_cri_dockerd_removes_by_name_though_it_takes_ids_alone(dockerd: Dockerd, socket: Path) -> None:
    kept = docker_image(2, TOOL)
    dockerd.images = [docker_image(1, WEB, STABLE), kept]
    assert results(socket, Removal(WEB, (STABLE,)), Removal(STABLE)) == [RemovalResult.REMOVED, RemovalResult.ABSENT]
    assert dockerd.images == [kept]


def test_cri_dockerd_knows_familiar_names(dockerd: Dockerd, socket: Path) -> None:
    dockerd.images = [docker_image(1, "busybox:1")]
    assert results(socket, Removal(BUSYBOX)) == [RemovalResult.REMOVED]
    assert dockerd.images == []


def test_cri_dockerd_keeps_what_a_container_uses_by_whatever_name(dockerd: Dockerd, socket: Path) -> None:
    used, by_id = docker_image(1, "busybox:1"), docker_image(2, WEB)
    dockerd.images = [used, by_id]
    dockerd.containers = [Held("c1", used, "busybox:1"), Held("c2", by_id, f"sha256:{by_id.number}")]
    assert results(socket, Removal(BUSYBOX), Removal(WEB)) == [RemovalResult.IN_USE, RemovalResult.IN_USE]
    assert dockerd.images == [used, by_id]


def test_cri_dockerds_refusal_is_told_and_the_next_image_goes(socket: Path) -> None:
    class Racing(Dockerd):
        """A container comes between the question who uses the image and its removal."""

        def remove(self, reference: str) -> None:
            self.containers = [Held("c1", self.images[0], WEB)]
            super().remove(reference)

    dockerd = Racing()
    used, free = docker_image(1, WEB), docker_image(2, TOOL)
    dockerd.images = [used, free]
    with serving(dockerd, socket):
        refused, removed = remove(socket, Removal(WEB), Removal(TOOL))
    assert refused.result is RemovalResult.FAILED
    assert "container c1 is using its referenced image" in refused.message
    assert removed.result is RemovalResult.REMOVED
    assert dockerd.images == [used]


def test_container_that_goes_while_it_is_asked_about_uses_nothing(dockerd: Dockerd, socket: Path) -> None:
    used, free = docker_image(1, TOOL), docker_image(2, WEB)
    dockerd.images, dockerd.containers = [used, free], [Held("c1", used, TOOL)]
    with CriRuntime(socket) as runtime:
        assert [container.id for container in runtime.containers()] == ["c1"]
        dockerd.containers = []
        assert runtime.mounted_images("c1") == ()
