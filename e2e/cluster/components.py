"""The command lines of a control plane's components."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Self

import yaml

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.processes import free_port

SERVICE_NETWORK = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"


class Component(StrEnum):
    """A program of the control plane; the value is its binary's name."""

    ETCD = "etcd"
    KUBE_APISERVER = "kube-apiserver"
    KUBE_CONTROLLER_MANAGER = "kube-controller-manager"
    KUBE_SCHEDULER = "kube-scheduler"
    KWOK = "kwok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneOptions:
    """How to run a control plane.

    Attributes:
        directory: the run's folder, created; by default a new one below the user's cache folder.
        kubernetes_version: such as `1.35`; by default the pinned one (see `binaries.control_plane`).
        kwok: whether KWOK keeps nodes Ready and renews their leases. It never touches pods: no pod stage is loaded.
        kwok_node_selector: label selector of the nodes that KWOK manages; all nodes if None.
        node_lease_seconds: duration of a node's lease; KWOK renews after a quarter of it.
        scheduler_configuration: a KubeSchedulerConfiguration file; client connection and leader election are ours.
        feature_gates: for all four Kubernetes components.
        runtime_config: API groups and versions to switch on or off in kube-apiserver.
        extra_flags: appended to a component's command line; the last of two equal flags wins.
        environment: environment variables of a component, beside those of this process.
        start_timeout_seconds: how long one component may take to be ready; generous for the slow machines of public CI.
    """

    directory: Path | None = None
    kubernetes_version: str | None = None
    kwok: bool = True
    kwok_node_selector: str | None = None
    node_lease_seconds: int = 100
    scheduler_configuration: Path | None = None
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    runtime_config: Mapping[str, bool] = field(default_factory=dict)
    extra_flags: Mapping[Component, Sequence[str]] = field(default_factory=dict)
    environment: Mapping[Component, Mapping[str, str]] = field(default_factory=dict)
    start_timeout_seconds: float = 120.0

    def components(self) -> tuple[Component, ...]:
        """Return what runs, in the order of starting."""
        return tuple(component for component in Component if self.kwok or component is not Component.KWOK)


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of one start."""

    etcd_client: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int
    kwok: int

    @classmethod
    def free(cls) -> Self:
        """Return ports that nothing listened on a moment ago."""
        return cls(*(free_port() for _ in fields(cls)))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of one run are."""

    directory: Path

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.directory / "pki"

    @property
    def logs(self) -> Path:
        """One log file a component."""
        return self.directory / "logs"

    @property
    def data(self) -> Path:
        """Etcd's data; removed at the end."""
        return self.directory / "etcd-data"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of a user."""
        return self.directory / f"{user}.kubeconfig"


def command(
    component: Component, binaries: ControlPlaneBinaries, options: ControlPlaneOptions, layout: Layout, ports: Ports
) -> list[str | Path]:
    """Return the command line of a component.

    Raises:
        ValueError: the scheduler's configuration file is no KubeSchedulerConfiguration.
    """
    line: list[str | Path]
    match component:
        case Component.ETCD:
            line = [binaries.etcd, *_etcd(layout, ports)]
        case Component.KUBE_APISERVER:
            line = [binaries.kube_apiserver, *_apiserver(layout, ports, options), *_gates(options)]
        case Component.KUBE_CONTROLLER_MANAGER:
            line = [binaries.kube_controller_manager, *_controller_manager(layout, ports), *_gates(options)]
        case Component.KUBE_SCHEDULER:
            configuration = _scheduler_configuration(layout, options.scheduler_configuration)
            serving = _serving(layout, ports.scheduler, component)
            line = [binaries.kube_scheduler, f"--config={configuration}", *serving, *_gates(options)]
        case Component.KWOK:
            line = [binaries.kwok, *_kwok(binaries, options, layout, ports)]
    return [*line, *options.extra_flags.get(component, ())]


def _etcd(layout: Layout, ports: Ports) -> list[str]:
    client, peer = f"http://127.0.0.1:{ports.etcd_client}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        f"--data-dir={layout.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=5m",
        "--log-level=warn",
    ]


def _apiserver(layout: Layout, ports: Ports, options: ControlPlaneOptions) -> list[str]:
    pki = layout.pki
    flags = [
        f"--etcd-servers=http://127.0.0.1:{ports.etcd_client}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.apiserver}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # No address but loopback is served, so there is none to publish behind the `kubernetes` Service.
        "--endpoint-reconciler-type=none",
        # Hundreds of emulated kubelets and a rollout's pods come from one machine at once.
        "--max-requests-inflight=3000",
        "--max-mutating-requests-inflight=1500",
        "--profiling=false",
    ]
    if options.runtime_config:
        flags.append("--runtime-config=" + _pairs(options.runtime_config))
    return flags


def _controller_manager(layout: Layout, ports: Ports) -> list[str]:
    return [
        *_serving(layout, ports.controller_manager, Component.KUBE_CONTROLLER_MANAGER),
        f"--kubeconfig={layout.kubeconfig(Component.KUBE_CONTROLLER_MANAGER)}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        # The default of 20 requests a second creates 5,000 pods in four minutes.
        "--kube-api-qps=2000",
        "--kube-api-burst=4000",
        "--concurrent-gc-syncs=50",
        "--concurrent-namespace-syncs=20",
    ]


def _serving(layout: Layout, port: int, component: Component) -> list[str]:
    """Return the flags that serve health and metrics; metrics ask for a client that RBAC allows them."""
    kubeconfig = layout.kubeconfig(component)
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={layout.pki / 'apiserver.crt'}",
        f"--tls-private-key-file={layout.pki / 'apiserver.key'}",
        f"--client-ca-file={layout.pki / 'ca.crt'}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # The front-proxy configuration that it would look up does not exist here.
        "--authentication-skip-lookup",
    ]


def _scheduler_configuration(layout: Layout, base: Path | None) -> Path:
    """Write the scheduler's configuration; with a file, kube-scheduler ignores the flags for these settings."""
    kind = "KubeSchedulerConfiguration"
    document: object = {} if base is None else yaml.safe_load(base.read_text())
    if not isinstance(document, dict) or document.get("kind", kind) != kind:
        raise ValueError(f"{base}: expected one {kind} document")
    document |= {
        "apiVersion": document.get("apiVersion", "kubescheduler.config.k8s.io/v1"),
        "kind": kind,
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(layout.kubeconfig(Component.KUBE_SCHEDULER)),
            "qps": 1000,
            "burst": 2000,
        },
    }
    path = layout.directory / "kube-scheduler.json"
    path.write_text(json.dumps(document, indent=2))
    return path


def _kwok(binaries: ControlPlaneBinaries, options: ControlPlaneOptions, layout: Layout, ports: Ports) -> list[str]:
    nodes = (
        "--manage-all-nodes"
        if options.kwok_node_selector is None
        else f"--manage-nodes-with-label-selector={options.kwok_node_selector}"
    )
    return [
        f"--kubeconfig={layout.kubeconfig(Component.KWOK)}",
        nodes,
        f"--server-address=127.0.0.1:{ports.kwok}",
        f"--node-lease-duration-seconds={options.node_lease_seconds}",
        *(f"--config={stage}" for stage in binaries.kwok_stages),
    ]


def _gates(options: ControlPlaneOptions) -> list[str]:
    return ["--feature-gates=" + _pairs(options.feature_gates)] if options.feature_gates else []


def _pairs(switches: Mapping[str, bool]) -> str:
    return ",".join(f"{name}={str(value).lower()}" for name, value in sorted(switches.items()))
