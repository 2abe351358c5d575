"""`prewarm remove-images` against a real containerd: what goes, what stays, and what is said of it."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.cluster import binaries
from e2e.cluster.gomodules import ToolError
from e2e.runtime.node import RuntimeNode, runtime_node
from prewarm.api.removal import REMOVALS_VARIABLE, encode_removals
from prewarm.model.removals import Removal
from prewarm.runtime.client import CriRuntime

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containerd needs root to unpack images")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RuntimeNode]:
    try:
        built = binaries.containerd()
    except ToolError as error:
        pytest.skip(str(error))
    async with runtime_node(built, tmp_path) as running:
        yield running


def remove(node: RuntimeNode, *removals: Removal, socket: Path | None = None) -> tuple[int, dict[str, object]]:
    """Run the command as its pod does: exit code and report."""
    report = node.socket.with_name("termination-log")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prewarm", "remove-images"),
            *("--socket", socket or node.socket, "--report", report),
        ],
        env={**os.environ, REMOVALS_VARIABLE: encode_removals(removals)},
        check=False,
        timeout=120,
        capture_output=True,
    )
    return done.returncode, json.loads(report.read_bytes())


def results(report: dict[str, object]) -> list[str]:
    found = report["results"]
    assert isinstance(found, list)
    return [entry["result"] for entry in found]


def present(node: RuntimeNode, reference: str) -> bool:
    with CriRuntime(node.socket) as runtime:
        return runtime.image(reference) is not None


async def test_images_go_by_tag_and_by_digest_and_others_stay(node: RuntimeNode) -> None:
    web, tool, kept = [await node.push(f"shop/{name}:v1", name) for name in ("web", "tool", "kept")]
    for reference in (web, tool, kept):
        node.pull(reference)
    with CriRuntime(node.socket) as runtime:
        assert runtime.version().startswith("containerd ")
        known = runtime.image(tool)
        assert known is not None
        assert {image.tags for image in runtime.images()} >= {(web,), (tool,), (kept,)}
    code, report = remove(
        node, Removal(web), Removal(known.digests[0], (tool,)), Removal(f"{node.registry}/no/such:v1")
    )
    assert (code, results(report)) == (0, ["Removed", "Removed", "Absent"])
    assert [present(node, reference) for reference in (web, tool, kept)] == [False, False, True]


async def test_a_name_that_was_not_given_keeps_the_image(node: RuntimeNode) -> None:
    web = await node.push("shop/web:v1", "web", "stable")
    stable = web.replace(":v1", ":stable")
    node.pull(web)
    node.pull(stable)
    code, report = remove(node, Removal(web))
    assert (code, results(report)) == (0, ["OtherNames"])
    assert present(node, web)
    code, report = remove(node, Removal(web, (stable,)))
    assert (code, results(report)) == (0, ["Removed"])
    assert not present(node, stable)


async def test_pinned_and_used_images_stay(node: RuntimeNode) -> None:
    pinned, used, free = [await node.push(f"shop/{name}:v1", name) for name in ("pinned", "used", "free")]
    for reference in (pinned, used, free):
        node.pull(reference)
    await node.pin(pinned)
    await node.use(used)
    code, report = remove(node, Removal(pinned), Removal(used), Removal(free))
    assert (code, results(report)) == (0, ["Pinned", "InUse", "Removed"])
    assert [present(node, reference) for reference in (pinned, used, free)] == [True, True, False]


async def test_hostile_references_reach_neither_shell_nor_runtime(node: RuntimeNode, tmp_path: Path) -> None:
    web = await node.push("shop/web:v1", "web")
    node.pull(web)
    marker = tmp_path / "marker"
    with CriRuntime(node.socket) as runtime:
        known = runtime.image(web)
    assert known is not None
    hostile = [f"$(touch {marker})", f"`touch {marker}`", f"{web}; touch {marker}", f"{web}\n", "a b", "'", "", "-rf"]
    code, report = remove(node, *map(Removal, hostile))
    assert (code, results(report)) == (0, ["Invalid"] * len(hostile))
    # Runtimes take the beginning of an id for a name; here it is one of a repository that is not there.
    code, report = remove(node, Removal(known.id.removeprefix("sha256:")[:12]))
    assert results(report) == ["Absent"]
    assert present(node, web)
    assert not marker.exists()


async def test_missing_and_dead_sockets_are_told_apart_from_images(node: RuntimeNode) -> None:
    missing = node.socket.with_name("missing.sock")
    code, report = remove(node, Removal("web:v1"), socket=missing)
    assert code == 1
    assert str(missing) in str(report["error"])
    await node.stop()
    code, report = remove(node, Removal("web:v1"))
    assert code == 1
    assert report["error"]
