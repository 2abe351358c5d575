"""Which cluster the tests use: their own control plane, unless another one is asked for by name.

KUBECONFIG is never read: a cluster that people work with is touched only on purpose.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from e2e.cluster.control_plane import ControlPlane, running_control_plane
from e2e.cluster.gomodules import ToolError

KUBECONFIG_VARIABLE = "PREWARM_TEST_KUBECONFIG"
CONTEXT_VARIABLE = "PREWARM_TEST_CONTEXT"
CLUSTER_VARIABLE = "PREWARM_TEST_CLUSTER"
_COMMAND_TIMEOUT_SECONDS = 240


class SelectionError(ValueError):
    """The environment asks for a cluster that cannot be meant."""


class Lane(StrEnum):
    """Where the tests' cluster comes from."""

    LOCAL = "local"
    KIND = "kind"
    EXISTING = "existing"


@dataclass(frozen=True, slots=True)
class Selection:
    """The cluster that the environment asks for; `kubeconfig` and `context` belong to an existing one."""

    lane: Lane
    kubeconfig: Path | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to test against.

    Attributes:
        lane: where it comes from.
        kubeconfig: of a cluster administrator.
        context: the context to use in it.
        kubectl_binary: a kubectl.
        control_plane: the local control plane, for tests that stop its components; None in the other lanes.
    """

    lane: Lane
    kubeconfig: Path
    context: str
    kubectl_binary: Path
    control_plane: ControlPlane | None = None

    def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        """Run kubectl as administrator and return what it printed; `manifest` goes to its standard input.

        Raises:
            RuntimeError: it failed; the message is kubectl's own.
        """
        done = subprocess.run(
            [self.kubectl_binary, "--kubeconfig", self.kubeconfig, "--context", self.context, *arguments],
            input=manifest,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def check(self) -> None:
        """Do nothing while the cluster is whole.

        Raises:
            ProcessError: a component of the local control plane ended by itself.
        """
        if self.control_plane is not None:
            self.control_plane.check()


def select(environment: Mapping[str, str]) -> Selection:
    """Return which cluster the environment asks for.

    Raises:
        SelectionError: the variables contradict each other, or name a file or context that does not exist.
    """
    kubeconfig = environment.get(KUBECONFIG_VARIABLE, "")
    context = environment.get(CONTEXT_VARIABLE, "")
    asked = environment.get(CLUSTER_VARIABLE, "")
    if asked not in ("", Lane.LOCAL, Lane.KIND):
        raise SelectionError(f"{CLUSTER_VARIABLE}={asked!r}: expected local or kind")
    if kubeconfig and asked:
        raise SelectionError(f"{KUBECONFIG_VARIABLE} and {CLUSTER_VARIABLE} are both set: unset one")
    if context and not kubeconfig:
        raise SelectionError(f"{CONTEXT_VARIABLE} is set without {KUBECONFIG_VARIABLE}")
    if kubeconfig:
        path = Path(kubeconfig)
        return Selection(Lane.EXISTING, path, _context(path, context))
    return Selection(Lane(asked or Lane.LOCAL))


@contextmanager
def running_cluster(selection: Selection) -> Iterator[Cluster]:
    """Give the selected cluster for the length of the block; what was started for it is stopped afterwards.

    Raises:
        ToolError: the cluster cannot be had on this machine; the message says why.
        ProcessError: the local control plane did not start.
    """
    match selection.lane:
        case Lane.LOCAL:
            with running_control_plane() as plane:
                yield cluster_of(plane)
        case Lane.KIND:
            with _kind() as cluster:
                yield cluster
        case Lane.EXISTING:
            if selection.kubeconfig is None or selection.context is None:
                raise SelectionError("an existing cluster needs a kubeconfig and a context")
            yield Cluster(Lane.EXISTING, selection.kubeconfig, selection.context, _program("kubectl"))


def cluster_of(plane: ControlPlane) -> Cluster:
    """A control plane of one's own as a cluster to test against."""
    return Cluster(Lane.LOCAL, plane.kubeconfig, plane.context, plane.binaries.kubectl, plane)


@contextmanager
def _kind() -> Iterator[Cluster]:
    from pytest_kind import KindCluster

    kind, kubectl, docker = _program("kind"), _program("kubectl"), _program("docker")
    answer = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=_COMMAND_TIMEOUT_SECONDS)
    if answer.returncode != 0:
        raise ToolError("kind needs a container engine, and `docker info` fails")
    name = f"prewarm-{os.getpid()}"
    # With both paths given, pytest-kind downloads nothing.
    cluster = KindCluster(name, kind_path=kind, kubectl_path=kubectl)
    try:
        cluster.create()
        yield Cluster(Lane.KIND, Path(cluster.kubeconfig_path), f"kind-{name}", kubectl)
    finally:
        cluster.delete()


def _context(path: Path, wanted: str) -> str:
    """Return the context to use of a kubeconfig file.

    Raises:
        SelectionError: there is no such file or context.
    """
    try:
        document: object = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SelectionError(f"{KUBECONFIG_VARIABLE}={path}: {error.strerror}") from None
    except yaml.YAMLError:
        raise SelectionError(f"{KUBECONFIG_VARIABLE}={path}: no YAML") from None
    if not isinstance(document, dict):
        raise SelectionError(f"{KUBECONFIG_VARIABLE}={path}: no kubeconfig")
    listed = document.get("contexts") or []
    names = [str(entry["name"]) for entry in listed if isinstance(entry, dict) and "name" in entry]
    context = wanted or str(document.get("current-context") or "")
    if context not in names:
        known = ", ".join(names) or "none"
        raise SelectionError(f"{KUBECONFIG_VARIABLE}={path}: no context {context!r}; it has: {known}")
    return context


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is not on the PATH")
    return Path(found)
