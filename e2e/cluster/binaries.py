"""Builds the programs of the test cluster from their Go modules, once, into the user's cache folder.

`python -m e2e.cluster.binaries [all|control-plane|prometheus|helm|containerd|argo-rollouts]`; the tests and the demo
call the functions. A folder is keyed by the checksum of go.mod and go.sum, the linker flags and the Go version, and
appears only complete.
"""

import argparse
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from e2e.cluster.gobuild import Build, exclusive
from e2e.cluster.gomodules import KUBERNETES, GoModule, ToolError, generate_wrapper, run_go

TOOLS = Path(__file__).parents[1] / "tools"
VERSION_VARIABLE = "PREWARM_KUBERNETES_VERSION"
_KEPT_SECONDS = 30 * 24 * 3600
_KWOK_STAGES = (
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/*-lease.yaml",
)
_ARGO_DEFINITIONS = ("manifests/crds/*-crd.yaml",)


class Family(StrEnum):
    """Programs that come from one Go module."""

    KUBERNETES = "kubernetes"
    ETCD = "etcd"
    KWOK = "kwok"
    PROMETHEUS = "prometheus"
    HELM = "helm"
    CONTAINERD = "containerd"
    ARGO_ROLLOUTS = "argo-rollouts"


CONTROL_PLANE = (Family.KUBERNETES, Family.ETCD, Family.KWOK)


@dataclass(frozen=True, slots=True)
class ControlPlaneBinaries:
    """Paths of everything that a control plane runs."""

    kubernetes_version: str
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path
    etcd: Path
    kwok: Path
    kwok_stages: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ContainerdBinaries:
    """Paths of a container runtime and of what brings images to it."""

    containerd: Path
    ctr: Path
    registry: Path
    crane: Path


@dataclass(frozen=True, slots=True)
class ArgoRollouts:
    """The controller of Argo Rollouts, and the CRDs that its module holds."""

    controller: Path
    definitions: tuple[Path, ...]


def cache_directory() -> Path:
    """Return the folder below the user's cache folder (XDG base directory specification) that holds all of ours."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "prewarm"


def control_plane(version: str | None = None) -> ControlPlaneBinaries:
    """Return the control plane's programs, built first if need be (about six minutes from nothing on two cores).

    Args:
        version: Kubernetes version such as `1.35` or `v1.35.2`; by default the environment variable
            PREWARM_KUBERNETES_VERSION, then what `e2e/tools/kubernetes/go.mod` requires.

    Raises:
        ToolError: they cannot be built here; the message says why.
    """
    module = kubernetes_module(version)
    kubernetes = ensure(Family.KUBERNETES, module)
    kwok = ensure(Family.KWOK)
    return ControlPlaneBinaries(
        kubernetes_version=module.required(KUBERNETES),
        kube_apiserver=kubernetes / "kube-apiserver",
        kube_controller_manager=kubernetes / "kube-controller-manager",
        kube_scheduler=kubernetes / "kube-scheduler",
        kubectl=kubernetes / "kubectl",
        etcd=ensure(Family.ETCD) / "etcd",
        kwok=kwok / "kwok",
        kwok_stages=tuple(sorted((kwok / "stages").iterdir())),
    )


def helm() -> Path:
    """Return helm from the PATH, else built.

    Raises:
        ToolError: it is neither on the PATH nor can it be built here.
    """
    return _on_path("helm") or ensure(Family.HELM) / "helm"


def prometheus() -> tuple[Path, Path]:
    """Return prometheus and promtool from the PATH, else built.

    Raises:
        ToolError: they are neither on the PATH nor can they be built here.
    """
    server, tool = _on_path("prometheus"), _on_path("promtool")
    if server and tool:
        return server, tool
    directory = ensure(Family.PROMETHEUS)
    return directory / "prometheus", directory / "promtool"


def containerd() -> ContainerdBinaries:
    """Return containerd, its client, and a registry with its client, built first if need be (two minutes or so).

    Raises:
        ToolError: they cannot be built here; the message says why.
    """
    directory = ensure(Family.CONTAINERD)
    return ContainerdBinaries(
        containerd=directory / "containerd",
        ctr=directory / "ctr",
        registry=directory / "registry",
        crane=directory / "crane",
    )


def argo_rollouts() -> ArgoRollouts:
    """Return the controller of Argo Rollouts and its CRDs, built first if need be (three minutes or so).

    Raises:
        ToolError: it cannot be built here; the message says why.
    """
    directory = ensure(Family.ARGO_ROLLOUTS)
    definitions = tuple(sorted((directory / "crds").iterdir()))
    return ArgoRollouts(controller=directory / "rollouts-controller", definitions=definitions)


def kubernetes_module(version: str | None = None) -> GoModule:
    """Return the module that builds Kubernetes at `version`: the committed one, or one generated in the cache.

    Raises:
        ToolError: the version does not exist, or resolving it needs a Go that is not there.
    """
    pinned = GoModule(TOOLS / Family.KUBERNETES)
    wanted = version or os.environ.get(VERSION_VARIABLE) or None
    if wanted is None or "v" + wanted.removeprefix("v") == pinned.required(KUBERNETES):
        return pinned
    modules = cache_directory() / "modules"
    with exclusive(modules / ".lock"):
        return generate_wrapper(_go(), wanted, pinned.tools(), modules)


def ensure(family: Family, module: GoModule | None = None) -> Path:
    """Return the folder with a family's programs, built first if it is not in the cache.

    Raises:
        ToolError: it is not there and cannot be built.
    """
    module = module or GoModule(TOOLS / family)
    flags = linker_flags(family, module)
    root = cache_directory() / "bin"
    prefix = f"{family}-{cache_key(module, flags)}-"
    go = shutil.which("go")
    if go is None:
        built = sorted(root.glob(f"{prefix}go*"))
        if built:
            return built[-1]
        raise ToolError(f"{family} is not built yet and there is no Go on the PATH: install Go")
    target = root / (prefix + run_go(Path(go), ["env", "GOVERSION"], module.directory).strip())
    if not target.exists():
        with exclusive(root / f".{family}.lock"):
            if not target.exists():
                _build(Path(go), family, module, target)
            _prune(root, family)
    os.utime(target)
    return target


def _build(go: Path, family: Family, module: GoModule, target: Path) -> None:
    check_go(go, module)
    staging = target.with_name(f".building-{family}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    Build(go, module, linker_flags(family, module), staging).run()
    if family is Family.KWOK:
        _copy(go, module, "sigs.k8s.io/kwok", _KWOK_STAGES, staging / "stages")
    if family is Family.ARGO_ROLLOUTS:
        _copy(go, module, "github.com/argoproj/argo-rollouts", _ARGO_DEFINITIONS, staging / "crds")
    staging.rename(target)


def _prune(root: Path, family: Family) -> None:
    """Remove builds of a family that nobody used for a month."""
    oldest = time.time() - _KEPT_SECONDS
    for built in root.glob(f"{family}-*"):
        if built.stat().st_mtime < oldest:
            shutil.rmtree(built, ignore_errors=True)


def cache_key(module: GoModule, flags: str) -> str:
    """Return what names a build apart from the Go version: module checksum and linker flags, hashed."""
    return sha256(f"{module.checksum}\0{flags}".encode()).hexdigest()[:16]


def linker_flags(family: Family, module: GoModule) -> str:
    """Return the linker flags; Kubernetes reports v0.0.0-master, and gates features by it, unless told its version."""
    if family is not Family.KUBERNETES:
        return "-s -w"
    version = module.required(KUBERNETES)
    major, minor = version.removeprefix("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    return f"-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"


def check_go(go: Path, module: GoModule) -> None:
    """Do nothing if this Go builds `module`, perhaps after fetching a newer toolchain: GOTOOLCHAIN is respected.

    Raises:
        ToolError: this Go is too old and may not fetch a newer one.
    """
    try:
        run_go(go, ["list", "-m"], module.directory)
    except ToolError as error:
        needed = re.search(r"requires go >= (\S+) \(running go ([^;\s]+); GOTOOLCHAIN=(\w+)\)", str(error))
        if needed is None:
            raise
        raise ToolError(
            f"{module.directory.name} needs Go >= {needed[1]}, but {go} is {needed[2]} and GOTOOLCHAIN={needed[3]} "
            "forbids fetching another: install a newer Go"
        ) from None


def _copy(go: Path, module: GoModule, source: str, patterns: tuple[str, ...], target: Path) -> None:
    """Copy files of a module beside the binary: KWOK's stages that keep nodes Ready, or CRDs."""
    folder = Path(run_go(go, ["list", "-m", "-f", "{{.Dir}}", source], module.directory).strip())
    target.mkdir()
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if not found:
            raise ToolError(f"{folder}: no {pattern}; this version keeps its files elsewhere")
        for file in found:
            (target / file.name).write_bytes(file.read_bytes())


def _go() -> Path:
    found = shutil.which("go")
    if found is None:
        raise ToolError("another Kubernetes version needs Go on the PATH: install Go")
    return Path(found)


def _on_path(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found) if found else None


def main() -> int:
    """Build what is asked for and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster.binaries", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="control-plane",
        choices=["all", "control-plane", "prometheus", "helm", "containerd", "argo-rollouts"],
    )
    parser.add_argument("--if-possible", action="store_true", help="where it cannot be built, say why and succeed")
    arguments = parser.parse_args()
    try:
        if arguments.what in ("all", "control-plane"):
            planes = control_plane()
            print(f"kubernetes {planes.kubernetes_version}: {planes.kube_apiserver.parent}")
            print(f"etcd: {planes.etcd}\nkwok: {planes.kwok}")
        if arguments.what in ("all", "prometheus"):
            print("prometheus: {}\npromtool: {}".format(*prometheus()))
        if arguments.what in ("all", "helm"):
            print(f"helm: {helm()}")
        if arguments.what in ("all", "containerd"):
            print(
                "containerd: {0.containerd}\nctr: {0.ctr}\nregistry: {0.registry}\ncrane: {0.crane}".format(
                    containerd()
                )
            )
        if arguments.what in ("all", "argo-rollouts"):
            print(f"argo-rollouts: {argo_rollouts().controller}")
    except ToolError as error:
        print(f"cluster programs: {error}", file=sys.stderr)
        return 0 if arguments.if_possible else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
