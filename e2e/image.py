"""Plays the steps of the Dockerfile in an empty folder, and runs what comes of it, where there is no container engine.

Copied, built and installed is what the file says, by the commands that it says; the base image, its Python and its
layers are left out. The program then runs as the file's user, without any right, on a root file system that nobody can
write to. Linux only, with user namespaces.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from e2e.manifests import PROJECT
from prewarm import __version__

PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
"""For which the image is built; the base image's C library is newer."""
_BASE = re.compile(r"^FROM python:(\d+\.\d+)-slim$", re.MULTILINE)
_CONTINUED = re.compile(r"\\\n")
_READ_ONLY = (
    "mount --make-rprivate / && mount -o remount,bind,ro / && "
    'user=$1 && shift && exec unshare --user --map-user="$user" --map-group="$user" -- "$@"'
)
"""Arguments are handed over as such: the user's number, then the command."""


class Step(Struct, frozen=True):
    """One instruction of a Dockerfile."""

    word: str
    rest: str


class ImageError(Exception):
    """What would come of the Dockerfile does not work; the message says how."""


def stages(text: str) -> list[list[Step]]:
    """Instructions by stage."""
    found: list[list[Step]] = []
    for line in _CONTINUED.sub(" ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        elif word:
            found[-1].append(Step(word, rest.strip()))
    return found


def environment(steps: Sequence[Step], folder: Path) -> dict[str, str]:
    """What ENV instructions set; /app stands for the folder."""
    found: dict[str, str] = {}
    for step in steps:
        if step.word == "ENV":
            pairs = (pair.partition("=") for pair in shlex.split(step.rest))
            found.update({name: value.replace("/app", str(folder)) for name, _, value in pairs})
    return found


def build(steps: Sequence[Step], folder: Path) -> None:
    """Copy the files and run the commands of the build stage; `folder` is its working directory.

    Raises:
        ImageError: if a file is missing or a command fails.
    """
    settings = {**os.environ, **environment(steps, folder), "UV_PYTHON": sys.executable}
    settings.pop("VIRTUAL_ENV", None)
    for step in steps:
        match step.word:
            case "COPY" if not step.rest.startswith("--from"):
                *sources, target = shlex.split(step.rest)
                for source in sources:
                    _copy(PROJECT / source, folder / target / (Path(source).name if target.endswith("/") else ""))
            case "RUN":
                words = shlex.split(step.rest)
                for mount in (word for word in words if word.startswith("--mount=type=bind")):
                    fields = dict(pair.split("=", 1) for pair in mount.removeprefix("--mount=").split(","))
                    _copy(PROJECT / fields["source"], folder / fields["target"])
                _run([word for word in words if not word.startswith("--mount")], folder, settings)
            case _:
                pass


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.is_file():
        shutil.copy2(source, target)
    else:
        raise ImageError(f"COPY {source.name}: there is no such file")


def _run(command: Sequence[str], folder: Path, settings: Mapping[str, str]) -> None:
    print(f"  $ {shlex.join(command)}", flush=True)
    ended = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ImageError(f"{shlex.join(command)}: {ended.stderr.strip()[-2000:]}")


def check_wheels(python: str) -> None:
    """Nothing has to be compiled, on either architecture: the base image has no compiler.

    Raises:
        ImageError: if a locked dependency has no wheel for a platform.
    """
    settings = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="prewarm-wheels-") as folder:
        target = Path(folder)
        export = ("uv", "export", "--quiet", "--locked", "--no-default-groups", "--no-emit-project")
        _run([*export, "--output-file", str(target / "requirements.txt")], PROJECT, settings)
        for platform in PLATFORMS:
            where = ("--python-platform", platform, "--python-version", python, "--target", str(target / platform))
            what = ("--only-binary", ":all:", "--no-deps", "--requirements", "requirements.txt")
            _run(["uv", "pip", "install", "--dry-run", *where, *what], target, settings)


class Image:
    """What the last stage starts."""

    def __init__(self, steps: Sequence[Step], folder: Path) -> None:
        self._folder = folder
        self._settings = environment(steps, folder)
        self._settings["PATH"] = self._settings["PATH"].replace("$PATH", os.environ["PATH"])
        last = {step.word: step.rest for step in steps}
        self._user = last["USER"].partition(":")[0]
        self._entry_point = _list(last["ENTRYPOINT"])
        self.command = _list(last["CMD"])

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Start it with arguments, as a container would that can write nothing and is nobody."""
        inner = ["bash", "-c", _READ_ONLY, "bash", self._user, *self._entry_point, *arguments]
        return subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", *inner],
            cwd="/",
            env={**self._settings, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def _list(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


def check(image: Image) -> None:
    """Run what a cluster runs.

    Raises:
        ImageError: if anything does not answer as it should.
    """
    version = f"prewarm {__version__}"
    expected = (
        (("--version",), 0, version),
        (("--help",), 0, "Exit codes"),
        (("crds",), 0, "kind: CustomResourceDefinition"),
        (("policies", "default"), 0, "kind: PrewarmPolicy"),
        (("remove-images", "--help"), 0, "container runtime"),
        # There is no cluster here, and it says so; its modules are all there.
        (tuple(image.command), 4, ""),
    )
    for arguments, code, words in expected:
        ended = image.run(*arguments, PREWARM_KUBECONFIG="/nonexistent/kubeconfig", HOME="/nonexistent")
        print(f"  $ prewarm {shlex.join(arguments)}  -> {ended.returncode}", flush=True)
        if ended.returncode != code or words not in ended.stdout:
            said = (ended.stdout + ended.stderr).strip()[-2000:]
            raise ImageError(f"prewarm {shlex.join(arguments)} ended with {ended.returncode}, not {code}: {said}")


def main() -> int:
    """Play everything; exit code 1 if it does not work."""
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    built, final = stages(text)
    with tempfile.TemporaryDirectory(prefix="prewarm-image-") as temporary:
        folder = Path(temporary) / "app"
        folder.mkdir()
        Path(temporary).chmod(0o755)
        try:
            print("wheels for amd64 and arm64", flush=True)
            check_wheels(_BASE.findall(text)[-1])
            print("build", flush=True)
            build(built, folder)
            # The source tree is not in the image: only the environment is copied from the build.
            for path in folder.iterdir():
                if path.name != ".venv":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            print("run, as another user on a read-only root", flush=True)
            check(Image(final, folder))
        except ImageError as error:
            print(f"prewarm: {error}", file=sys.stderr)
            return 1
    print("the image works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
