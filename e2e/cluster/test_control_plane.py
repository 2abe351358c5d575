import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.components import Component, ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.processes import ProcessError, wait_until
from e2e.cluster.selection import Cluster

ROOT = Path(__file__).parents[2]
PARENT = """
import asyncio, sys
from pathlib import Path
from e2e.cluster.components import ControlPlaneOptions
from e2e.cluster.control_plane import ControlPlane
async def main():
    async with ControlPlane.start(ControlPlaneOptions(directory=Path(sys.argv[1]))):
        print("running", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""

pytestmark = pytest.mark.usefixtures("control_plane_binaries")
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of living processes that name a run's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"{directory}/" in line:
            found.append(line)
    return found


@pytest.fixture
def kubectl(control_plane_binaries: ControlPlaneBinaries) -> Kubectl:
    def run(kubeconfig: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [control_plane_binaries.kubectl, "--kubeconfig", kubeconfig, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


async def test_a_control_plane_is_ready_inside_the_block_and_gone_after_it(tmp_path: Path, kubectl: Kubectl) -> None:
    directory = tmp_path / "run"
    async with ControlPlane.start(ControlPlaneOptions(directory=directory)) as plane:
        assert len(processes_of(directory)) == len(Component)
        ready = await asyncio.to_thread(kubectl, plane.kubeconfig, "get", "--raw", "/readyz")
        assert (ready.returncode, ready.stdout) == (0, "ok"), ready.stderr
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=plane.ssl_context())) as session,
            session.get(f"{plane.server}/version") as answer,
        ):
            assert (await answer.json())["gitVersion"] == plane.kubernetes_version
    assert processes_of(directory) == []
    assert not (directory / "etcd-data").exists()
    assert {log.stem for log in plane.logs.iterdir()} == set(Component)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_an_interrupted_or_killed_parent(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, directory],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"running\n"
        assert len(processes_of(directory)) == len(Component)
        parent.send_signal(number)
        parent.wait()
        asyncio.run(wait_until(lambda: not processes_of(directory), timeout_seconds=10))


async def test_two_control_planes_start_at_once(tmp_path: Path) -> None:
    async def one(name: str) -> str:
        async with ControlPlane.start(ControlPlaneOptions(directory=tmp_path / name, kwok=False)) as plane:
            plane.check()
            return plane.server

    assert len(set(await asyncio.gather(one("first"), one("second")))) == 2


async def test_a_component_that_dies_at_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    flags = {Component.KUBE_SCHEDULER: ["--no-such-flag"]}
    directory = tmp_path / "run"
    with pytest.raises(ProcessError, match=r"(?s)^kube-scheduler ended with exit code 1 .*unknown flag: --no-such"):
        async with ControlPlane.start(ControlPlaneOptions(directory=directory, extra_flags=flags)):
            pytest.fail("the control plane counts as started")
    assert processes_of(directory) == []


async def test_a_component_that_never_gets_ready_is_reported(tmp_path: Path) -> None:
    flags = {Component.KUBE_CONTROLLER_MANAGER: ["--controllers=-serviceaccount-controller"]}
    options = ControlPlaneOptions(directory=tmp_path / "run", extra_flags=flags, start_timeout_seconds=15)
    with pytest.raises(ProcessError, match=r"kube-controller-manager was not ready after 15 s .*HTTP 404"):
        async with ControlPlane.start(options):
            pytest.fail("the control plane counts as started")


async def test_components_are_stopped_started_and_found_dead(tmp_path: Path) -> None:
    async with ControlPlane.start(ControlPlaneOptions(directory=tmp_path / "run", kwok=False)) as plane:
        for component in (Component.KUBE_SCHEDULER, Component.KUBE_APISERVER):
            await plane.stop_component(component)
            plane.check()
            await plane.start_component(component)
        os.kill(plane.pid(Component.KUBE_SCHEDULER), signal.SIGKILL)
        with pytest.raises(ProcessError, match="kube-scheduler was ended by SIGKILL"):
            await wait_until(lambda: bool(plane.check()), timeout_seconds=10)  # type: ignore[func-returns-value]


async def test_options_reach_the_components(tmp_path: Path, kubectl: Kubectl) -> None:
    scheduler = tmp_path / "scheduler.yaml"
    scheduler.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
        "profiles:\n- schedulerName: packing\n"
    )
    options = ControlPlaneOptions(
        directory=tmp_path / "run",
        kwok=False,
        scheduler_configuration=scheduler,
        feature_gates={"ContainerCheckpoint": False},
        runtime_config={"autoscaling/v2": False},
    )
    async with ControlPlane.start(options) as plane:
        gates = (await asyncio.to_thread(kubectl, plane.kubeconfig, "get", "--raw", "/metrics")).stdout
        assert re.search(r'kubernetes_feature_enabled\{name="ContainerCheckpoint",stage="\w*"\} 0', gates)
        groups = (await asyncio.to_thread(kubectl, plane.kubeconfig, "api-versions")).stdout
        assert "autoscaling/v1" in groups
        assert "autoscaling/v2" not in groups
        assert "packing" in (plane.directory / "kube-scheduler.json").read_text()


async def test_a_scheduler_configuration_of_another_kind_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: Deployment\n")
    options = ControlPlaneOptions(directory=tmp_path / "run", kwok=False, scheduler_configuration=wrong)
    with pytest.raises(ValueError, match=r"wrong\.yaml: expected one KubeSchedulerConfiguration"):
        async with ControlPlane.start(options):
            pytest.fail("the control plane counts as started")


def local(cluster: Cluster) -> ControlPlane:
    if cluster.control_plane is None:
        pytest.skip("needs the local control plane")
    return cluster.control_plane


async def test_users_may_do_what_rbac_says(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    plane = local(cluster)
    cluster.kubectl("create", "rolebinding", "view", "--clusterrole=view", "--group=readers", "--namespace", namespace)
    cluster.kubectl(
        "create", "rolebinding", "sa", "--clusterrole=view", f"--serviceaccount={namespace}:default", "-n", namespace
    )
    reader = plane.user_kubeconfig("jane", ("readers",))
    stranger = plane.user_kubeconfig("joe")
    robot = await plane.service_account_kubeconfig(namespace, "default")
    for kubeconfig, allowed in ((reader, True), (stranger, False), (robot, True)):
        assert (kubectl(kubeconfig, "get", "pods", "-n", namespace).returncode == 0) is allowed
        assert kubectl(kubeconfig, "create", "namespace", "no").returncode != 0


def test_kwok_makes_a_node_ready_and_a_pod_is_scheduled_but_not_run(cluster: Cluster, namespace: str) -> None:
    local(cluster)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": namespace}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "waiting", "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": "example.org/app:1"}], "nodeSelector": {"only": namespace}},
    }
    cluster.kubectl("create", "-f", "-", manifest=json.dumps(node))
    try:
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{namespace}", "--timeout=60s")
        cluster.kubectl("label", "node", namespace, f"only={namespace}")
        cluster.kubectl("create", "-f", "-", manifest=json.dumps(pod))
        cluster.kubectl("wait", "--for=condition=PodScheduled", "pod/waiting", "-n", namespace, "--timeout=60s")
        phase = cluster.kubectl("get", "pod", "waiting", "-n", namespace, "-o", "jsonpath={.status.phase}")
        assert phase == "Pending"
    finally:
        cluster.kubectl("delete", "node", namespace)
