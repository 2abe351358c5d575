"""Starts and stops a Kubernetes control plane of its own: real components, emulated nodes, loopback only."""

import asyncio
import os
import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from signal import Signals
from typing import Self

import aiohttp

from e2e.cluster import binaries as tools
from e2e.cluster.certificates import CertificateAuthority, KeyPair, signing_key
from e2e.cluster.components import SERVICE_ADDRESS, Component, ControlPlaneOptions, Layout, Ports, command
from e2e.cluster.gomodules import ToolError
from e2e.cluster.kubeconfig import Endpoint, write_kubeconfig
from e2e.cluster.processes import GuardedProcess, ProcessError, in_daemon_thread, log_tail
from e2e.cluster.runs import RunDirectory, new_run

_CONTEXT = "prewarm-local"
_POLL_SECONDS = 0.1
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=2)
_STOP_SECONDS = 5.0
_PORT_ATTEMPTS = 5
_CLIENTS: dict[Component, tuple[str, tuple[str, ...]]] = {
    Component.KUBE_CONTROLLER_MANAGER: ("system:kube-controller-manager", ()),
    Component.KUBE_SCHEDULER: ("system:kube-scheduler", ()),
    Component.KWOK: ("kwok", ("system:masters",)),
}


class ControlPlane:
    """A running control plane. Made by `ControlPlane.start` or `running_control_plane`.

    Attributes:
        binaries: the programs that it runs, kubectl among them.
        directory: the run's folder; it stays afterwards, without etcd's data.
        server: address of the API server.
        kubeconfig: of a cluster administrator, everything inline.
        context: the only context in it.
        authority: certificate of the authority that signed the server's certificate (`pki/ca.crt`).
        client_certificate: the administrator's certificate (PEM file).
        client_key: the administrator's key (PEM file).
        logs: folder with one log a component.
    """

    def __init__(self, options: ControlPlaneOptions, binaries: tools.ControlPlaneBinaries, run: RunDirectory) -> None:
        self.options = options
        self.binaries = binaries
        self._run = run
        self._layout = Layout(run.path)
        self._authority = CertificateAuthority()
        self._ports = Ports.free()
        self._lines: dict[Component, list[str | Path]] = {}
        self._processes: dict[Component, GuardedProcess] = {}
        self._layout.pki.mkdir(exist_ok=True, mode=0o700)
        self._layout.logs.mkdir(exist_ok=True)
        self.directory = run.path
        self.context = _CONTEXT
        self.logs = self._layout.logs
        self.kubeconfig = self._layout.kubeconfig("admin")
        self.authority = self._layout.pki / "ca.crt"
        self._write_keys()
        self._admin = self._authority.client("kubernetes-admin", ("system:masters",))
        self.client_certificate, self.client_key = self._admin.write(self._layout.pki, "admin")

    @classmethod
    @asynccontextmanager
    async def start(cls, options: ControlPlaneOptions | None = None) -> AsyncIterator["ControlPlane"]:
        """Run a control plane for the length of the block; building its programs first may take minutes.

        Raises:
            ToolError: the programs cannot be had here.
            ProcessError: a component ended early or did not become ready; the message holds the end of its log.
        """
        if not sys.platform.startswith("linux"):
            raise ToolError(f"the local control plane runs on Linux only, this is {sys.platform}")
        options = options or ControlPlaneOptions()
        programs = await in_daemon_thread(partial(tools.control_plane, options.kubernetes_version))
        run = RunDirectory(options.directory) if options.directory else new_run(tools.cache_directory() / "runs")
        async with cls(options, programs, run) as plane:
            yield plane

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def server(self) -> str:
        """Address of the API server."""
        return f"https://127.0.0.1:{self._ports.apiserver}"

    @property
    def etcd(self) -> str:
        """Address of etcd's client port, which serves its metrics, too."""
        return f"http://127.0.0.1:{self._ports.etcd_client}"

    @property
    def kubernetes_version(self) -> str:
        """Version of the Kubernetes components, as `v1.36.3`."""
        return self.binaries.kubernetes_version

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the server and presents the administrator's certificate."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.client_certificate, self.client_key)
        return context

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig for a user with a fresh client certificate: what they may do is up to RBAC."""
        return self._write_kubeconfig(f"user-{_file_name(user)}", self._authority.client(user, groups))

    async def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig with a token (one hour) of an existing service account, by a TokenRequest.

        Raises:
            ProcessError: the API server refused.
        """
        url = f"{self.server}/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        async with self._session() as session, session.post(url, json=body) as answer:
            if answer.status != HTTPStatus.CREATED:
                raise ProcessError(f"token of {namespace}/{name}: HTTP {answer.status}: {await answer.text()}")
            token = str((await answer.json())["status"]["token"])
        return self._write_kubeconfig(f"serviceaccount-{namespace}-{name}", token)

    def check(self) -> None:
        """Do nothing while everything runs that was not stopped on purpose.

        Raises:
            ProcessError: a component ended by itself; the message holds the end of its log.
        """
        for process in self._processes.values():
            if not process.expected_to_end:
                process.check()

    def pid(self, component: Component) -> int:
        """Return the process id of a component, for measuring it."""
        return self._processes[component].pid

    def signal_component(self, component: Component, number: Signals) -> None:
        """Send a signal to a component, such as SIGSTOP and SIGCONT to let it stall."""
        self._processes[component].signal(number)

    async def stop_component(self, component: Component) -> None:
        """Stop one component and wait until it is gone."""
        await self._processes[component].stop(grace_seconds=_STOP_SECONDS)

    def kill_component(self, component: Component) -> None:
        """End one component with SIGKILL."""
        self._processes[component].kill()

    async def start_component(self, component: Component) -> None:
        """Start a component that was stopped, on the same ports, and wait until it is ready.

        Raises:
            ProcessError: it still runs, ended early or did not become ready.
        """
        if self._processes[component].running:
            raise ProcessError(f"{component} is running already")
        self._spawn(component)
        await self._ready(component)

    async def _start(self) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                await self._start_components()
                return
            except ProcessError as error:
                # Another program may have taken a port since it was found free.
                if "address already in use" not in str(error) or attempt == _PORT_ATTEMPTS:
                    raise
                await self._stop_processes()

    async def _start_components(self) -> None:
        """Start etcd, then the API server, then all others at once, each awaited."""
        self._ports = Ports.free()
        self._write_kubeconfig("admin", self._admin)
        for component, (user, groups) in _CLIENTS.items():
            self._write_kubeconfig(component, self._authority.client(user, groups))
        components = self.options.components()
        self._lines = {
            component: command(component, self.binaries, self.options, self._layout, self._ports)
            for component in components
        }
        clients = [component for component in components if component in _CLIENTS]
        for together in ([Component.ETCD], [Component.KUBE_APISERVER], clients):
            for component in together:
                self._spawn(component)
            for component in together:
                await self._ready(component)

    def _spawn(self, component: Component) -> None:
        log = self.logs / f"{component}.log"
        environment = {**os.environ, **self.options.environment.get(component, {})}
        self._processes[component] = GuardedProcess.start(component, self._lines[component], log, environment)
        self._run.record(self._processes.values())

    async def _ready(self, component: Component) -> None:
        """Wait until a component says that it is ready.

        Raises:
            ProcessError: a component ended, or this one was not ready in time.
        """
        pending, last = self._readiness_urls(component), "no answer"
        try:
            async with asyncio.timeout(self.options.start_timeout_seconds), self._session() as session:
                while pending:
                    self.check()
                    last = await _probe(session, pending[0])
                    if not last:
                        pending = pending[1:]
                        continue
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            process = self._processes[component]
            raise ProcessError(
                f"{component} was not ready after {self.options.start_timeout_seconds:.0f} s ({pending[0]}: {last}); "
                f"the end of {process.log}:\n{log_tail(process.log)}"
            ) from None

    def _readiness_urls(self, component: Component) -> tuple[str, ...]:
        match component:
            case Component.ETCD:
                return (f"http://127.0.0.1:{self._ports.etcd_client}/readyz",)
            case Component.KUBE_APISERVER:
                return (f"{self.server}/readyz",)
            case Component.KUBE_CONTROLLER_MANAGER:
                # The account is made by the service account controller; before, no pod is admitted to the namespace.
                account = f"{self.server}/api/v1/namespaces/default/serviceaccounts/default"
                return (f"https://127.0.0.1:{self._ports.controller_manager}/healthz", account)
            case Component.KUBE_SCHEDULER:
                return (f"https://127.0.0.1:{self._ports.scheduler}/readyz",)
            case Component.KWOK:
                return (f"http://127.0.0.1:{self._ports.kwok}/readyz",)

    async def _stop(self) -> None:
        try:
            await self._stop_processes()
        finally:
            for process in self._processes.values():
                process.kill()
            self._run.release()

    async def _stop_processes(self) -> None:
        """Stop the clients of the API server first, then the server, then etcd, whose data is thrown away."""
        running = [process for component, process in self._processes.items() if component in _CLIENTS]
        await asyncio.gather(*(process.stop(grace_seconds=_STOP_SECONDS) for process in running))
        for component in (Component.KUBE_APISERVER, Component.ETCD):
            if component in self._processes:
                await self._processes[component].stop(grace_seconds=_STOP_SECONDS)
        shutil.rmtree(self._layout.data, ignore_errors=True)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.ssl_context()), timeout=aiohttp.ClientTimeout(total=10)
        )

    def _write_keys(self) -> None:
        pki = self._layout.pki
        self.authority.write_bytes(self._authority.certificate)
        service = "kubernetes.default.svc"
        names = ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.cluster.local")
        self._authority.server("kube-apiserver", names, ("127.0.0.1", SERVICE_ADDRESS)).write(pki, "apiserver")
        private, public = signing_key()
        (pki / "service-account.pub").write_bytes(public)
        key = pki / "service-account.key"
        key.touch(mode=0o600)
        key.write_bytes(private)

    def _write_kubeconfig(self, user: str, credentials: KeyPair | str) -> Path:
        endpoint = Endpoint(self.server, self._authority.certificate)
        return write_kubeconfig(self._layout.kubeconfig(user), endpoint, credentials, _CONTEXT)


@contextmanager
def running_control_plane(options: ControlPlaneOptions | None = None) -> Iterator[ControlPlane]:
    """Run a control plane for the length of the block, for callers without an event loop.

    Raises:
        ToolError: the programs cannot be had here.
        ProcessError: a component ended early or did not become ready; the message holds the end of its log.
    """
    with asyncio.Runner() as runner:
        starting = ControlPlane.start(options)
        plane = runner.run(starting.__aenter__())
        try:
            yield plane
        finally:
            runner.run(starting.__aexit__(None, None, None))


async def _probe(session: aiohttp.ClientSession, url: str) -> str:
    """Return what stands against readiness; nothing if the answer is 200."""
    try:
        async with session.get(url, timeout=_PROBE_TIMEOUT) as answer:
            return "" if answer.status == HTTPStatus.OK else f"HTTP {answer.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return str(error) or "no answer"


def _file_name(user: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", user)
