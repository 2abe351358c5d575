"""Fixtures of the lanes that need a cluster.

The cluster is the local control plane, kind (PREWARM_TEST_CLUSTER=kind) or an existing one
(PREWARM_TEST_KUBECONFIG=path, PREWARM_TEST_CONTEXT=name). Where none can be had, tests that need one are skipped, or
fail if PREWARM_TEST_REQUIRE_CLUSTER is set.
"""

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn, cast

import pytest

from e2e import parameters, steer
from e2e.cluster import binaries
from e2e.cluster.binaries import ArgoRollouts, ControlPlaneBinaries
from e2e.cluster.gomodules import ToolError
from e2e.cluster.selection import Cluster, Lane, Selection, SelectionError, running_cluster, select

_numbers = count(1)
_PROGRAMS: dict[str, Callable[[], object]] = {
    "control_plane_binaries": binaries.control_plane,
    "helm": binaries.helm,
    "prometheus": binaries.prometheus,
    "argo_rollouts": binaries.argo_rollouts,
}
_BUILT = pytest.StashKey[dict[str, object]]()
_SELECTION = pytest.StashKey[Selection]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored, which children inherit: here they have to heed it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Many TLS connections are closed at the end of a loop, and some are collected before the other side has answered.
    words = "Exception ignored in. <(socket|function _SelectorTransport|ssl)"
    config.addinivalue_line("filterwarnings", f"ignore:{words}:pytest.PytestUnraisableExceptionWarning")
    try:
        config.stash[_SELECTION] = select(os.environ)
    except SelectionError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _needs(item, "cluster", "control_plane_binaries"):
            item.add_marker("e2e")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the tests need before the first one: it takes minutes once, and belongs to no test's time."""
    config = session.config
    built = config.stash[_BUILT] = {}
    if config.option.collectonly:
        return
    local = config.stash[_SELECTION].lane is Lane.LOCAL
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        for name, build in _PROGRAMS.items():
            names = (name, "cluster") if local and name == "control_plane_binaries" else (name,)
            if any(_needs(item, *names) for item in session.items):
                try:
                    built[name] = build()
                except ToolError as error:
                    built[name] = error


@pytest.fixture(scope="session")
def control_plane_binaries(pytestconfig: pytest.Config) -> ControlPlaneBinaries:
    """The local control plane's programs."""
    built = _built(pytestconfig, "control_plane_binaries")
    assert isinstance(built, ControlPlaneBinaries)
    return built


@pytest.fixture(scope="session")
def helm(pytestconfig: pytest.Config) -> Path:
    """The helm program."""
    built = _built(pytestconfig, "helm")
    assert isinstance(built, Path)
    return built


@pytest.fixture(scope="session")
def argo_rollouts(pytestconfig: pytest.Config) -> ArgoRollouts:
    """The controller of Argo Rollouts and its CRDs."""
    built = _built(pytestconfig, "argo_rollouts")
    assert isinstance(built, ArgoRollouts)
    return built


@pytest.fixture(scope="session")
def prometheus(pytestconfig: pytest.Config) -> tuple[Path, Path]:
    """The prometheus and promtool programs."""
    server, tool = cast("tuple[Path, Path]", _built(pytestconfig, "prometheus"))
    return server, tool


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The cluster to test against, one for the whole session."""
    selection = pytestconfig.stash[_SELECTION]
    if selection.lane is Lane.LOCAL:
        request.getfixturevalue("control_plane_binaries")
    running = running_cluster(selection)
    try:
        chosen = running.__enter__()
    except ToolError as error:
        _unavailable(str(error))
    try:
        kept = parameters.keep(chosen)
        yield chosen
        if kept and chosen.lane is Lane.EXISTING:
            parameters.remove(chosen)
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def steering(cluster: Cluster) -> Iterator[str]:
    """The policy that steers pods, in force for the whole session; gives the namespace of its entries."""
    name = f"prewarm-steering-{os.getpid()}"
    steer.install(cluster, name)
    yield name
    steer.remove(cluster, name)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace with its default service account, deleted afterwards."""
    cluster.check()
    name = f"prewarm-test-{os.getpid()}-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=30s")
        yield name
    finally:
        # Without a kubelet nobody confirms a graceful end, and the namespace would stay.
        cluster.kubectl("delete", "pods", "--all", "--namespace", name, "--force", "--grace-period=0", "--wait=false")
        cluster.kubectl("delete", "namespace", name, "--wait=false")
    cluster.check()


def _needs(item: pytest.Item, *fixtures: str) -> bool:
    return bool(set(fixtures) & set(getattr(item, "fixturenames", ())))


def _built(config: pytest.Config, name: str) -> object:
    built = config.stash[_BUILT][name]
    if isinstance(built, ToolError):
        _unavailable(str(built))
    return built


def _unavailable(reason: str) -> NoReturn:
    line = f"no cluster to test against: {reason}"
    if os.environ.get("PREWARM_TEST_REQUIRE_CLUSTER"):
        pytest.fail(line, pytrace=False)
    pytest.skip(line)
