"""`prewarm convert` from files, folders and standard input to a stream that kubectl takes."""

import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from prewarm.api.image_cache import decode_image_cache
from prewarm.cli.app import execute
from prewarm.cli.errors import ExitCode

DATA = Path(__file__).parents[2] / "data" / "foreign"
JOB = "apiVersion: apps.kruise.io/v1beta1\nkind: ImagePullJob\nmetadata: {name: NAME}\nspec: {image: IMAGE}\n"


def job(name: str, image: str = "registry.example/web:v1") -> str:
    return JOB.replace("NAME", name).replace("IMAGE", image)


def names(printed: str) -> list[str]:
    return [document["metadata"]["name"] for document in yaml.safe_load_all(printed)]


def test_a_folder_of_everything_becomes_one_stream(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("kube-fledged-sample.yaml", "openkruise-patterns.yaml", "openkruise-get.yaml"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    (tmp_path / "notes.txt").write_text("no manifest")
    assert execute(["convert", "-f", str(tmp_path)]) == ExitCode.DONE
    printed = capsys.readouterr()
    made = list(yaml.safe_load_all(printed.out))
    assert [document["metadata"]["name"] for document in made] == [
        "imagecache1",
        "warm-web",
        "base-images",
        "base-image-job",
        "sidecar-image-job",
        "serverless-job",
    ]
    assert {decode_image_cache(document).error for document in made} == {""}
    assert all(line.startswith("prewarm: ") for line in printed.err.splitlines())
    assert f"{tmp_path}/openkruise-get.yaml:62: ImagePullJob shop/base-images-x2v7n: skipped: " in printed.err


def test_json_is_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["convert", "-f", str(DATA / "openkruise-patterns.yaml"), "-o", "json"]) == ExitCode.DONE
    printed = json.loads(capsys.readouterr().out)
    assert (printed["kind"], len(printed["items"])) == ("List", 3)


def test_standard_input_and_several_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(job("first").encode())))
    file = tmp_path / "b.yaml"
    file.write_text(job("second"))
    assert execute(["convert", "-f", "-", "-f", str(file)]) == ExitCode.DONE
    assert names(capsys.readouterr().out) == ["first", "second"]


def test_folders_within_folders_on_demand(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.yaml").write_text(job("a"))
    (tmp_path / "deep" / "b.json").write_text(json.dumps(yaml.safe_load(job("b"))))
    assert execute(["convert", "-f", str(tmp_path)]) == ExitCode.DONE
    assert names(capsys.readouterr().out) == ["a"]
    assert execute(["convert", "-f", str(tmp_path), "-R"]) == ExitCode.DONE
    assert names(capsys.readouterr().out) == ["a", "b"]


def test_other_kinds_do_not_stop_the_rest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(f"apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n---\n{job('a')}")
    assert execute(["convert", "-f", str(file)]) == ExitCode.DONE
    printed = capsys.readouterr()
    assert names(printed.out) == ["a"]
    assert printed.err.splitlines() == [
        f"prewarm: {file}:1: Service web: skipped: v1 Service is no list of images of kube-fledged or OpenKruise"
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{job('a')}---\n{job('b', 'Not An Image')}", "all.yaml:6: ImagePullJob b: spec.image: "),
        (f"{job('a')}---\nspec: [\n", "all.yaml:7: "),
        (f"{job('a')}---\n{job('a')}", "all.yaml:6: ImagePullJob a: becomes the same ImageCache as "),
        ("apiVersion: v1\nkind: Service\n", "nothing to convert"),
        ("", "nothing to convert"),
        ("kind: \xff", "all.yaml:1: is no text in UTF-8"),
    ],
)
def test_nothing_is_printed_for_kubectl_if_anything_is_wrong(
    content: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(content, encoding="latin-1")
    assert execute(["convert", "-f", str(file)]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err


def test_every_wrong_manifest_is_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("a", "A"))
    (tmp_path / "b.yaml").write_text("spec: [")
    assert execute(["convert", "-f", str(tmp_path)]) == ExitCode.USAGE
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in told] == [
        f"{tmp_path}/a.yaml",
        f"{tmp_path}/b.yaml",
        "2 wrong manifests, nothing printed",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["convert"], "--filename"),
        (["convert", "-f", "/does/not/exist"], "/does/not/exist: No such file"),
        (["convert", "-f", "-", "-o", "table"], "'yaml', 'json'"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(arguments) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert says in told
    assert len(told.splitlines()) == 1


def test_a_folder_without_manifests_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert execute(["convert", "-f", str(tmp_path)]) == ExitCode.USAGE
    assert "no .yaml, .yml or .json file" in capsys.readouterr().err
