"""Wrong command lines and input: one line that says what would be right, and exit code 2."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prewarm import __version__
from prewarm.cli.app import app, execute
from prewarm.cli.errors import ExitCode

SHOP = "deployment/shop/web"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "--replicas", "3"], "--workload KIND/NAMESPACE/NAME"),
        (["plan", "--workload", "web"], "such as deployment/shop/web"),
        (["plan", "--workload", "deployment/shop/web/extra"], "such as deployment/shop/web"),
        (["plan", "--workload", "service/shop/web"], "deployment, statefulset, daemonset, cloneset"),
        (["plan", "--workload", SHOP, "--set-image", "web"], "CONTAINER=IMAGE"),
        (["plan", "--workload", SHOP, "--set-image", "web=UPPER"], "'UPPER' is not an image reference"),
        (["plan", "--workload", SHOP, "--set-image", "a=b:1", "--set-image", "a=b:2"], "twice"),
        (["plan", "--output", "xml"], "'table', 'json', 'yaml'"),
        (["plan", "--snapshot", "/does/not/exist"], "/does/not/exist: No such file"),
        (["warm"], "Name a workload"),
        (["warm", SHOP, "--image", "b:1"], "not both"),
        (["warm", SHOP, "--timeout", "soon"], "such as 90s"),
        (["warm", SHOP, "--timeout", "-5s"], "such as 90s"),
        (["warm", "--image", "bad image"], "not an image reference"),
        (["warm", "--image", "b:1", "--replicas", "2"], "need the workload"),
        (["warm", "--image", "b:1", "--node-selector", "pool"], "LABEL=VALUE"),
        (["warm", SHOP, "--coverage", "1.5"], "--coverage"),
        (["status", "one"], "node/NAME"),
        (["status", "a/b", "--namespace", "c"], "not both"),
        (["policies", "nope"], "there are: conservative"),
        (["open-gates", "--expired", "--until-quiet"], "leaves the others held"),
        (["bogus"], "bogus"),
        (["plan", "--bogus"], "--bogus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("prewarm: ")
    assert says in told.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"{", "no JSON list"),
        (b"[]", "no JSON list"),
        (json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {}}).encode(), "holds Pod, not a List"),
    ],
)
def test_a_snapshot_that_is_none_says_what_is_expected(
    content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "snapshot.json"
    file.write_bytes(content)
    assert execute(["plan", "--snapshot", str(file)]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert says in told
    assert str(file) in told


def test_no_cluster_has_an_exit_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["status", "--kubeconfig", str(tmp_path / "none")]) == ExitCode.NO_CLUSTER
    assert "does not exist" in capsys.readouterr().err


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--debug", "plan", "--workload", "web"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.splitlines()[-1].startswith("prewarm: ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out == f"prewarm {__version__}\n"


@pytest.mark.parametrize("command", [[], ["plan"], ["warm"], ["status"], ["run"], ["crds"], ["policies"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_settings_of_the_controller_are_named_by_their_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREWARM_NODE_PULLS", "many")
    assert execute(["run"]) == ExitCode.USAGE
    assert "PREWARM_NODE_PULLS" in capsys.readouterr().err
