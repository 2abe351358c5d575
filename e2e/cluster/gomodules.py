"""The Go modules that declare the cluster's programs, and the module for another Kubernetes version.

`e2e/tools/<family>/go.mod` names each program in a `tool` line. `k8s.io/kubernetes` requires its staging modules at
v0.0.0 and replaces them with folders of its own repository; a dependency's replace lines do not apply, so a wrapper
module has to replace each by its published version (facts of the Go modules reference, "replace directive").
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

KUBERNETES = "k8s.io/kubernetes"
_VERSION = re.compile(r"v?1\.\d{1,3}(\.\d{1,3}(-(alpha|beta|rc)\.\d{1,3})?)?")
_REQUIRE = re.compile(r"^(?:require\s+|\t)(?P<module>[^\s()]+) (?P<version>v\S+)(?:\s|$)", re.MULTILINE)
_STAGING = re.compile(r"^\s*(?:replace\s+)?(?P<module>k8s\.io/\S+) => \./staging/src/\S+$", re.MULTILINE)
_UNPUBLISHED = re.compile(r"^\s*(?:require\s+)?(?P<module>k8s\.io/\S+) v0\.0\.0$", re.MULTILINE)
_GO = re.compile(r"^go (?P<version>\d+\.\d+(?:\.\d+)?\S*)$", re.MULTILINE)
_TOOL_BLOCK = re.compile(r"^tool \(\n(?P<body>.*?)^\)$", re.MULTILINE | re.DOTALL)
_TOOL_LINE = re.compile(r"^tool (?P<package>[^\s(]+)$", re.MULTILINE)


class ToolError(RuntimeError):
    """A program of the test cluster cannot be had; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class GoModule:
    """A folder with go.mod (and go.sum) whose `tool` lines name programs."""

    directory: Path

    @property
    def text(self) -> str:
        """The text of go.mod."""
        return (self.directory / "go.mod").read_text()

    @property
    def checksum(self) -> str:
        """A short hash of go.mod and go.sum: the same checksum builds the same source."""
        digest = sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.directory / name).read_bytes() + b"\0")
        return digest.hexdigest()[:16]

    def tools(self) -> tuple[str, ...]:
        """Return the packages of the `tool` lines."""
        return parse_tools(self.text)

    def required(self, module: str) -> str:
        """Return the version at which go.mod requires `module`."""
        return parse_required(self.text, module)


def parse_tools(go_mod: str) -> tuple[str, ...]:
    """Return the packages that a go.mod declares in `tool` lines, in their order."""
    block = _TOOL_BLOCK.search(go_mod)
    listed = block["body"].split() if block else []
    return (*listed, *(line["package"] for line in _TOOL_LINE.finditer(go_mod)))


def parse_required(go_mod: str, module: str) -> str:
    """Return the version that a go.mod requires of `module`.

    Raises:
        ToolError: the module is not required.
    """
    for match in _REQUIRE.finditer(go_mod):
        if match["module"] == module:
            return match["version"]
    raise ToolError(f"go.mod requires no {module}")


def parse_go_version(go_mod: str) -> str:
    """Return the Go version that a go.mod asks for.

    Raises:
        ToolError: it has no `go` line.
    """
    match = _GO.search(go_mod)
    if match is None:
        raise ToolError("go.mod has no go line")
    return match["version"]


def staging_modules(kubernetes_go_mod: str) -> tuple[str, ...]:
    """Return the modules that a release of k8s.io/kubernetes keeps in its own `staging` folder."""
    found = {match["module"] for match in _STAGING.finditer(kubernetes_go_mod)}
    found |= {match["module"] for match in _UNPUBLISHED.finditer(kubernetes_go_mod)}
    return tuple(sorted(found))


def normalize_version(version: str) -> str:
    """Return a Kubernetes version as a Go module query: `1.35` and `v1.35` become `v1.35`.

    Raises:
        ToolError: it is no Kubernetes version; the value is not passed on to any command.
    """
    if not _VERSION.fullmatch(version):
        raise ToolError(f"Kubernetes version {version[:40]!r}: expected one like 1.35 or v1.35.2")
    return "v" + version.removeprefix("v")


def wrapper_go_mod(version: str, kubernetes_go_mod: str, tools: tuple[str, ...]) -> str:
    """Return the go.mod of a module that builds `tools` from k8s.io/kubernetes at `version`.

    Raises:
        ToolError: the release's go.mod names no staging module, so its layout is not the known one.
    """
    staging = staging_modules(kubernetes_go_mod)
    if not staging:
        raise ToolError(f"{KUBERNETES}@{version}: its go.mod names no staging module; this layout is not known")
    published = "v0." + version.removeprefix("v1.")
    lines = ["module prewarm.dev/e2e/tools/kubernetes", "", f"go {parse_go_version(kubernetes_go_mod)}", "", "tool ("]
    lines += [f"\t{tool}" for tool in tools]
    lines += [")", "", f"require {KUBERNETES} {version}", "", "replace ("]
    lines += [f"\t{module} => {module} {published}" for module in staging]
    return "\n".join([*lines, ")", ""])


def generate_wrapper(go: Path, version: str, tools: tuple[str, ...], parent: Path) -> GoModule:
    """Write the wrapper module for another Kubernetes version below `parent`, resolved and tidied.

    A version without patch number takes the newest patch release that the module proxy knows. A module generated
    before is used again, so that a complete version needs no network.

    Raises:
        ToolError: there is no such version, or Go cannot resolve it.
    """
    query = normalize_version(version)
    known = GoModule(parent / f"kubernetes-{query}")
    if (known.directory / "go.sum").exists():
        return known
    parent.mkdir(parents=True, exist_ok=True)
    downloaded = json.loads(run_go(go, ["mod", "download", "-json", f"{KUBERNETES}@{query}"], parent))
    resolved = str(downloaded["Version"])
    module = GoModule(parent / f"kubernetes-{resolved}")
    if not (module.directory / "go.sum").exists():
        module.directory.mkdir(exist_ok=True)
        text = wrapper_go_mod(resolved, Path(downloaded["GoMod"]).read_text(), tools)
        (module.directory / "go.mod").write_text(text)
        run_go(go, ["mod", "tidy"], module.directory)
    return module


def run_go(go: Path, arguments: list[str], directory: Path) -> str:
    """Run a go command and return what it printed.

    Raises:
        ToolError: it failed; the message is Go's own last line.
    """
    environment = os.environ | {"GOWORK": "off"}
    done = subprocess.run([go, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no output"]
        raise ToolError(f"go {' '.join(arguments)} in {directory}: {said[-1]}")
    return done.stdout
