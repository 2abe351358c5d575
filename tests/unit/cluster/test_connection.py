"""Where the server is and who we are, from the files that people and kubelets write."""

import base64
import stat
import sys
from pathlib import Path

import pytest
import yaml

from prewarm.cluster.connection import Connection
from prewarm.cluster.credentials import TOKEN_LIFETIME_SECONDS, TokenFile
from prewarm.cluster.errors import ConfigurationError, decode_status


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def kubeconfig(folder: Path, user: object, name: str = "config", **cluster: object) -> Path:
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://server.example:6443/", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / name
    path.write_text(yaml.safe_dump(value))
    return path


async def test_a_static_token(tmp_path: Path) -> None:
    connection = Connection.load(kubeconfig(tmp_path, {"token": "secret"}))
    assert (connection.server, connection.namespace) == ("https://server.example:6443", "shop")
    assert (connection.context, await connection.authorization()) == ("here", "Bearer secret")


async def test_user_and_password(tmp_path: Path) -> None:
    connection = Connection.load(kubeconfig(tmp_path, {"username": "me", "password": "x"}))
    assert await connection.authorization() == "Basic " + base64.b64encode(b"me:x").decode()


async def test_a_token_file_beside_the_kubeconfig_is_read_again_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    now = 0.0
    tokens = TokenFile(tmp_path / "token", clock=lambda: now)
    assert await tokens.authorization() == "Bearer first"
    (tmp_path / "token").write_text("second")
    assert await tokens.authorization() == "Bearer first"
    now = TOKEN_LIFETIME_SECONDS
    assert await tokens.authorization() == "Bearer second"
    (tmp_path / "token").unlink()
    await tokens.renew()
    assert await tokens.authorization() == "Bearer second"


async def test_a_relative_token_file_is_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    connection = Connection.load(kubeconfig(tmp_path, {"tokenFile": "token"}))
    assert await connection.authorization() == "Bearer mine"


async def test_an_exec_plugin_is_asked(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import json\n"
        'status = {"token": "from-plugin"}\n'
        'version = "client.authentication.k8s.io/v1"\n'
        'print(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))\n'
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(plugin)],
            "interactiveMode": "Never",
        }
    }
    connection = Connection.load(kubeconfig(tmp_path, user))
    assert await connection.authorization() == "Bearer from-plugin"
    await connection.reload()
    assert await connection.authorization() == "Bearer from-plugin"
    assert connection.namespace == "shop"


async def test_several_files_of_the_environment_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kubeconfig(tmp_path, {"token": "first"}, "first")
    second = kubeconfig(tmp_path, {"token": "second"}, "second")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    connection = Connection.load()
    assert await connection.authorization() == "Bearer first"


async def test_a_pods_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("mounted")
    (tmp_path / "namespace").write_text("prewarm-system")
    connection = Connection.in_cluster(tmp_path)
    assert connection.server == "https://[fd00::1]:443"
    assert connection.namespace == "prewarm-system"
    assert await connection.authorization() == "Bearer mounted"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("current-context: gone\ncontexts: [{name: here, context: {}}]", "no context 'gone'; it has: here"),
        ("contexts: []", "no current-context"),
        ("current-context: here\ncontexts: [{name: here, context: {cluster: c}}]", "names no cluster with a server"),
        ("a: [", "is malformed"),
        ("- a", "is malformed"),
    ],
)
def test_a_kubeconfig_that_makes_no_sense_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as raised:
        Connection.load(path)
    assert "\n" not in str(raised.value)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere does not exist"):
        Connection.load(tmp_path / "nowhere")


def test_no_cluster_anywhere_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="--kubeconfig"):
        Connection.load()


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"certificate-authority-data": "%%%"}, "is not base64"),
        ({"certificate-authority-data": base64.b64encode(b"x").decode()}, "is not a PEM certificate"),
        ({"certificate-authority": "missing.pem"}, "missing.pem cannot be read"),
    ],
)
def test_certificates_that_do_not_load_are_named(tmp_path: Path, cluster: dict[str, str], words: str) -> None:
    connection = Connection.load(kubeconfig(tmp_path, {"token": "x"}, **cluster))
    with pytest.raises(ConfigurationError, match=words):
        assert connection.ssl


def test_an_answer_that_is_no_status_is_shown_by_its_first_words() -> None:
    """A proxy's page, or an object that has status where a Status has a word."""
    error = decode_status(b"<html>" + b"x" * 5000, 502, request="GET /version")
    assert str(error).startswith("GET /version: 502 : <html>xxx")
    assert len(str(error)) < 300
    assert decode_status(b'{"message": 7}', 500).code == 500
