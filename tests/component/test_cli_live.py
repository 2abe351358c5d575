"""Commands against an API server that refuses, is not there, or answers late."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from prewarm.cli.app import execute
from prewarm.cli.errors import ExitCode
from prewarm.model.intents import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    IMAGE_CACHES,
    MUTATING_POLICY_BINDINGS,
    NODE_IMAGES,
    NODES,
    PODS,
    POLICIES,
)
from tests.support.fake_api_server import FakeApiServer, Refuse

IMAGE = "registry.test/base:v1"


@dataclass
class Shell:
    """Runs commands in a thread, as this one serves the API."""

    server: FakeApiServer
    kubeconfig: Path

    async def run(self, *arguments: str) -> int:
        return await asyncio.to_thread(execute, [*arguments, "--kubeconfig", str(self.kubeconfig)])


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    async with FakeApiServer.running() as server:
        path = tmp_path / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server.url}}],
            "users": [{"name": "test", "user": {}}],
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        yield Shell(server, path)


def condition(kind: str, on: bool, message: str = "") -> dict[str, object]:
    return {"type": kind, "status": str(on), "reason": "Because", "message": message}


async def settle(server: FakeApiServer, *, ready: bool, failures: list[dict[str, object]] | None = None) -> None:
    """Play the controller: write a status as soon as the ImageCache is there."""
    await server.until(lambda: bool(server.objects(IMAGE_CACHES)) and server.count("get", IMAGE_CACHES) > 0)
    (cache,) = server.objects(IMAGE_CACHES).values()
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Ready", ready, "2 of 2 are there"), condition("Progressing", on=False)],
        "desired": 2,
        "succeeded": 2 if ready else 1,
        "failures": failures or [],
        "refreshHandled": cache["metadata"].get("annotations", {}).get("prewarm.dev/refresh", ""),
    }
    server.put(IMAGE_CACHES, {**cache, "metadata": {**cache["metadata"], "generation": 1}, "status": status})


async def test_status_without_our_kinds_says_how_to_install_them(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.server.missing.add(IMAGE_CACHES.plural)
    assert await shell.run("status") == ExitCode.FAILED
    assert "prewarm crds" in capsys.readouterr().err


async def test_a_refusal_is_told_in_the_servers_words(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.server.fail_next("list", IMAGE_CACHES, Refuse(403, "Forbidden", "you may not list imagecaches"))
    assert await shell.run("status") == ExitCode.FAILED
    told = capsys.readouterr().err
    assert "you may not list imagecaches" in told
    assert len(told.splitlines()) == 1


async def test_an_absent_server_has_an_exit_code_of_its_own(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    config = shell.kubeconfig.read_text(encoding="utf-8").replace(shell.server.url, "http://127.0.0.1:1")
    shell.kubeconfig.write_text(config, encoding="utf-8")
    assert await shell.run("status") == ExitCode.NO_CLUSTER
    assert len(capsys.readouterr().err.splitlines()) == 1


async def test_status_finds_one_cache_among_all(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        entry = {"images": [IMAGE], "nodeNames": ["n1"]}
        shell.server.put(
            IMAGE_CACHES, {"metadata": {"name": name, "namespace": "shop"}, "spec": {"cacheSpec": [entry]}}
        )
    assert await shell.run("status", "shop/two", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "two"
    assert await shell.run("status", "shop/three") == ExitCode.USAGE
    assert "no ImageCache shop/three" in capsys.readouterr().err


async def test_a_node_without_record_is_no_error(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert await shell.run("status", "node/n1") == 0
    assert shell.server.count("list", NODE_IMAGES) == 1
    assert "Nothing is known of node n1" in capsys.readouterr().out


def stored(name: str, succeeded: int = 0) -> dict[str, object]:
    entry = {"images": [IMAGE], "nodeNames": ["n1"]}
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"cacheSpec": [entry]},
        "status": {"desired": 2, "succeeded": succeeded},
    }


@dataclass
class Watcher:
    """`prewarm status --watch` as a process; what it prints comes line by line."""

    process: asyncio.subprocess.Process

    async def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found = json.loads(await self.process.stdout.readline())
        assert isinstance(found, dict)
        return found


@pytest.fixture
async def watcher(shell: Shell) -> AsyncIterator[Watcher]:
    shell.server.put(IMAGE_CACHES, stored("one"))
    command = ("-m", "prewarm", "status", "shop/one", "--watch", "-o", "json", "--kubeconfig", str(shell.kubeconfig))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=pipe, stderr=pipe)
    try:
        yield Watcher(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_watch_shows_every_change_and_ends_when_interrupted(shell: Shell, watcher: Watcher) -> None:
    assert (await watcher.line())["status"]["succeeded"] == 0
    await shell.server.until(lambda: shell.server.watching(IMAGE_CACHES))
    shell.server.put(IMAGE_CACHES, stored("one", succeeded=1))
    assert (await watcher.line())["status"]["succeeded"] == 1
    shell.server.cut_watches()
    shell.server.put(IMAGE_CACHES, stored("one", succeeded=2))
    while (await watcher.line())["status"]["succeeded"] != 2:
        pass
    watcher.process.send_signal(signal.SIGINT)
    _, told = await watcher.process.communicate()
    assert watcher.process.returncode == ExitCode.INTERRUPTED
    assert all(line.endswith(": trying again") for line in told.decode().splitlines())


async def test_watch_lists_again_once_the_server_has_forgotten(shell: Shell, watcher: Watcher) -> None:
    assert (await watcher.line())["status"]["succeeded"] == 0
    await shell.server.until(lambda: shell.server.watching(IMAGE_CACHES))
    shell.server.put(IMAGE_CACHES, stored("one", succeeded=1), silent=True)
    shell.server.forget(IMAGE_CACHES)
    shell.server.cut_watches()
    assert (await watcher.line())["status"]["succeeded"] == 1


async def test_watch_redraws_in_place_on_a_terminal(shell: Shell) -> None:
    shell.server.put(IMAGE_CACHES, stored("one"))
    terminal, theirs = pty.openpty()
    command = ("-m", "prewarm", "status", "--watch", "--kubeconfig", str(shell.kubeconfig))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(terminal, "rb"))
    try:
        async with asyncio.timeout(30):
            await screen.readuntil(b"one")
            await shell.server.until(lambda: shell.server.watching(IMAGE_CACHES))
            shell.server.put(IMAGE_CACHES, stored("two"))
            await screen.readuntil(b"two")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == ExitCode.INTERRUPTED
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        transport.close()


async def test_warm_orders_and_returns(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert await shell.run("warm", "--image", IMAGE, "-n", "shop", "--node", "n1") == 0
    ((namespace, name),) = shell.server.objects(IMAGE_CACHES)
    assert namespace == "shop"
    assert f"imagecache shop/{name}: ordered" in capsys.readouterr().out
    (request,) = shell.server.asked("patch", IMAGE_CACHES)
    assert request.query["fieldManager"] == "prewarm"
    assert json.loads(request.body)["spec"]["cacheSpec"] == [{"images": [IMAGE], "nodeNames": ["n1"]}]


async def test_warm_waits_until_everything_is_there(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    controller = asyncio.create_task(settle(shell.server, ready=True), name="controller")
    assert await shell.run("warm", "--image", IMAGE, "-n", "shop", "--wait", "--output", "json") == 0
    await controller
    answer = json.loads(capsys.readouterr().out)
    assert answer["warm"] is True
    assert answer["status"]["succeeded"] == 2


async def test_warm_fails_with_the_kubelets_words(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    failure: dict[str, object] = {
        "image": IMAGE,
        "node": "n1",
        "reason": "ImageNotFound",
        "message": "manifest unknown",
        "attempts": 5,
    }
    controller = asyncio.create_task(settle(shell.server, ready=False, failures=[failure]), name="controller")
    assert await shell.run("warm", "--image", IMAGE, "-n", "shop", "--wait") == ExitCode.FAILED
    await controller
    told = capsys.readouterr().err
    assert "manifest unknown" in told
    assert len(told.splitlines()) == 1


async def test_warm_gives_up_in_time_and_says_that_nobody_works(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await shell.run("warm", "--image", IMAGE, "-n", "shop", "--wait", "--timeout", "0.2s") == ExitCode.TIMEOUT
    assert "is prewarm running?" in capsys.readouterr().err


async def test_warm_without_our_kinds_says_how_to_install_them(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.server.missing.add(IMAGE_CACHES.plural)
    assert await shell.run("warm", "--image", IMAGE, "-n", "shop") == ExitCode.FAILED
    assert "prewarm crds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "told"), [(None, False), (Refuse(403, "Forbidden", "you may not get configmaps"), True)]
)
async def test_plans_go_on_without_memory(
    fault: Refuse | None, told: bool, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    if fault is not None:
        shell.server.fail_next("get", CONFIG_MAPS, fault)
    assert await shell.run("plan") == 0
    assert shell.server.count("list", NODES) == shell.server.count("list", PODS) == 1
    printed = capsys.readouterr()
    assert "Nothing to prewarm" in printed.out
    assert ("you may not get configmaps" in printed.err) is told


async def test_steering_labels_go_from_all_nodes_and_no_other_label_does(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, labels in (("n1", {"steer.prewarm.dev/1": "a", "zone": "x"}), ("n2", {"zone": "x"})):
        shell.server.put(NODES, {"metadata": {"name": name, "uid": f"uid-{name}", "labels": labels}})
    assert await shell.run("remove-labels") == 0
    assert capsys.readouterr().out == "labels taken off 1 node\n"
    assert {key[1]: node["metadata"]["labels"] for key, node in shell.server.objects(NODES).items()} == {
        "n1": {"zone": "x"},
        "n2": {"zone": "x"},
    }
    assert shell.server.count("patch", NODES) == 1


async def test_only_labels_whose_entry_has_ended_go_if_asked(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    ends = {"in-force": "2099-01-01T00:00:00Z", "ended": "2020-01-01T00:00:00Z", "garbage": "some day"}
    entries = {name: f"steer.prewarm.dev/{name} v2 {end}" for name, end in ends.items()}
    labels = {f"steer.prewarm.dev/{name}": "v2" for name in ("in-force", "ended", "garbage", "gone")}
    shell.server.put(NODES, {"metadata": {"name": "n1", "uid": "uid-n1", "labels": {**labels, "zone": "x"}}})
    older = {"steer.prewarm.dev/in-force": "v1", "zone": "x"}
    shell.server.put(NODES, {"metadata": {"name": "n2", "uid": "uid-n2", "labels": older}})
    about = {"name": "prewarm-steer", "namespace": "ops"}
    shell.server.put(CONFIG_MAPS, {"metadata": about, "data": entries})
    assert await shell.run("remove-labels", "--expired", "--system-namespace", "ops") == 0
    assert capsys.readouterr().out == "labels taken off 2 nodes\n"
    assert {key[1]: node["metadata"]["labels"] for key, node in shell.server.objects(NODES).items()} == {
        "n1": {"steer.prewarm.dev/in-force": "v2", "zone": "x"},
        "n2": {"zone": "x"},
    }


async def test_labels_stay_where_nobody_may_read_what_is_in_force(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.server.put(NODES, {"metadata": {"name": "n1", "labels": {"steer.prewarm.dev/1": "a"}}})
    shell.server.fail_next("get", CONFIG_MAPS, Refuse(403, "Forbidden", "you may not get configmaps"))
    assert await shell.run("remove-labels", "--expired") == ExitCode.FAILED
    assert "you may not get configmaps" in capsys.readouterr().err
    assert shell.server.count("patch", NODES) == 0


async def test_labels_that_may_not_be_removed_are_named(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.server.put(NODES, {"metadata": {"name": "n1", "labels": {"steer.prewarm.dev/1": "a"}}})
    shell.server.fail_next("patch", NODES, Refuse(403, "Forbidden", "you may not patch nodes"))
    assert await shell.run("remove-labels") == ExitCode.FAILED
    assert "n1: you may not patch nodes" in capsys.readouterr().err


@pytest.mark.parametrize(("entries", "state"), [(True, "Steered"), (False, "SwitchedOff")])
async def test_plan_says_whether_the_controller_steers(
    entries: bool, state: str, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    if entries:
        shell.server.put(CONFIG_MAPS, {"metadata": {"name": "prewarm-steer", "namespace": "prewarm-system"}})
    spec = {"placement": {"steer": "Prefer"}}
    shell.server.put(POLICIES, {"metadata": {"name": "default", "uid": "p"}, "spec": spec})
    status = {
        "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"},
    }
    for number in range(4):
        name = f"n{number}"
        metadata = {"name": name, "uid": f"uid-{name}", "labels": {"kubernetes.io/hostname": name}}
        shell.server.put(NODES, {"metadata": metadata, "status": status})
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": IMAGE}]},
    }
    deployment: dict[str, object] = {
        "replicas": 2,
        "paused": True,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template,
    }
    annotations = {"prewarm.dev/enabled": "true"}
    about = {"name": "web", "namespace": "shop", "uid": "w", "annotations": annotations, "generation": 1}
    shell.server.put(DEPLOYMENTS, {"metadata": about, "spec": deployment})
    assert await shell.run("plan", "--output", "json") == 0
    (demand,) = json.loads(capsys.readouterr().out)["demands"]
    assert demand["steering"]["state"] == state
    assert len(demand["steering"].get("nodes", [])) == (2 if entries else 0)
    assert await shell.run("plan") == 0
    assert ("steered to 2 nodes" in capsys.readouterr().out) is entries


def held(name: str) -> dict[str, Any]:
    """A Deployment that the gate holds."""
    metadata = {"name": name, "namespace": "shop", "annotations": {"prewarm.dev/gate-held": "2026-01-31T12:00:00Z"}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": IMAGE}]}}
    selector = {"matchLabels": {"app": name}}
    return {"metadata": metadata, "spec": {"paused": True, "selector": selector, "template": template}}


def still_held(server: FakeApiServer) -> set[str]:
    return {key[1] for key, value in server.objects(DEPLOYMENTS).items() if value["spec"].get("paused")}


async def test_a_gate_whose_workload_changes_under_the_patch_is_opened_all_the_same(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.server.put(DEPLOYMENTS, held("web"))
    shell.server.fail_next("patch", DEPLOYMENTS, Refuse(422, "Invalid", "a test of the patch failed"))
    assert await shell.run("open-gates") == 0
    assert capsys.readouterr().out == "1 gate opened\n"
    assert still_held(shell.server) == set()


@pytest.mark.parametrize("options", [(), ("--until-quiet",)])
async def test_a_gate_that_may_not_be_opened_is_named_and_keeps_no_other_shut(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("prewarm.cli.open_gates.QUIET_SECONDS", 0.0)
    for name in ("web", "other"):
        shell.server.put(DEPLOYMENTS, held(name))
    shell.server.fail_next("patch", DEPLOYMENTS, Refuse(403, "Forbidden", "you may not patch deployments"))
    assert await shell.run("open-gates", *options) == ExitCode.FAILED
    told = capsys.readouterr()
    assert told.out == "1 gate opened\n"
    assert "stays held: you may not patch deployments" in told.err
    assert len(still_held(shell.server)) == 1


async def test_what_is_held_while_the_policy_ends_is_opened_too(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prewarm.cli.open_gates.QUIET_SECONDS", 2.0)
    shell.server.put(MUTATING_POLICY_BINDINGS, {"metadata": {"name": "gate"}})
    shell.server.put(DEPLOYMENTS, held("web"))
    running = asyncio.create_task(shell.run("open-gates", "--unbind", "gate", "--unbind", "gone", "--until-quiet"))
    await shell.server.until(lambda: shell.server.count("patch", DEPLOYMENTS) == 1)
    assert not shell.server.objects(MUTATING_POLICY_BINDINGS)
    shell.server.put(DEPLOYMENTS, held("late"))
    assert await running == 0
    assert capsys.readouterr().out == "2 gates opened\n"
    assert still_held(shell.server) == set()


async def test_where_the_api_of_the_bindings_is_missing_nothing_has_to_be_unbound(shell: Shell) -> None:
    """An older cluster, or one that went back: what is held is opened all the same."""
    shell.server.missing.add(MUTATING_POLICY_BINDINGS.plural)
    shell.server.put(DEPLOYMENTS, held("web"))
    assert await shell.run("open-gates", "--unbind", "gate", "--unbind", "other") == 0
    assert still_held(shell.server) == set()


async def test_a_policy_that_goes_on_holding_is_told_after_opening_what_is_held(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.server.put(DEPLOYMENTS, held("web"))
    shell.server.fail_next("delete", MUTATING_POLICY_BINDINGS, Refuse(403, "Forbidden", "you may not delete"))
    assert await shell.run("open-gates", "--unbind", "gate") == ExitCode.FAILED
    assert "binding gate stays: you may not delete" in capsys.readouterr().err
    assert still_held(shell.server) == set()
