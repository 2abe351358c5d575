"""What an operator can set, from environment variables with the prefix PREWARM_."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from prewarm.api.image_cache import CachePullPolicy
from prewarm.model.image_caches import PodRetention, PullerForm
from prewarm.model.images import MAX_REFERENCE_LENGTH

Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]

_NOT_OURS = frozenset({"PREWARM_REMOVE"})
"""Read by another command of the same image."""
_SERVICE = re.compile(r"(PREWARM(?:_\w+)?)_SERVICE_HOST", re.ASCII)


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    """Console on a terminal, JSON otherwise."""
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least severe lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(BaseSettings):
    """Settings of the controller; durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="PREWARM_", extra="forbid", frozen=True, use_attribute_docstrings=True)

    kubeconfig: Path | None = None
    """File to connect with. Without it: the pod's service account, else KUBECONFIG, else ~/.kube/config."""
    context: str | None = None
    """Context of the kubeconfig. Without it: its current one."""
    namespace: Name = "prewarm-system"
    """Namespace of the lease and of the ConfigMaps that keep what was learnt."""
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside of the pod
    """Address that /metrics, /healthz and /readyz are served on."""
    http_port: Port = 8080
    """Port of the above; 0 takes a free one and logs it."""
    log_format: LogFormat = LogFormat.AUTO
    """JSON for collectors, console for people."""
    log_level: LogLevel = LogLevel.INFO
    """One line for each decision is written at info."""
    identity: str = Field(default="", max_length=253)
    """Name in the lease; without it the host name and a random part. The downward API's pod name reads best."""
    lease_name: Name = "prewarm"
    """Lease that the one active instance holds."""
    lease_duration_seconds: float = Field(default=15.0, ge=2.0, le=300.0)
    """After this long without renewal another instance takes over; client-go's default."""
    batch_idle_seconds: float = Field(default=0.005, ge=0.0, le=5.0)
    """A cycle starts once nothing has changed for this long: one rollout step is many events."""
    batch_max_seconds: float = Field(default=0.025, ge=0.0, le=30.0)
    """A cycle starts at the latest this long after the first change, however busy the cluster is."""
    resync_seconds: float = Field(default=300.0, ge=10.0, le=86400.0)
    """Everything is planned anew this often, whether it changed or not: a net under the changes."""
    persist_seconds: float = Field(default=5.0, ge=0.5, le=600.0)
    """What was judged and learnt is written at most this often; etcd keeps each version for a while."""
    stall_seconds: float = Field(default=300.0, ge=5.0, le=3600.0)
    """/healthz fails if one cycle lasts longer; an API server that does not answer must not restart us."""
    shutdown_seconds: float = Field(default=10.0, ge=1.0, le=120.0)
    """Longest orderly stop; keep it below terminationGracePeriodSeconds."""
    workload_metrics: bool = False
    """Whether container starts carry namespace and workload as labels: one series for each workload and outcome."""
    cluster_pulls: int = Field(default=100, ge=1, le=10000)
    """Pulls at once in the whole cluster."""
    node_pulls: int = Field(default=1, ge=1, le=50)
    """Pulls at once on one node: kubelets pull one after the other unless told otherwise."""
    registry_pulls: int = Field(default=100, ge=1, le=10000)
    """Pulls at once from one registry."""
    hold_limit: int = Field(default=1000, ge=0, le=10000)
    """Finished pods at once that hold images (spec.hold), far below kube-controller-manager's 12,500."""
    helper_image: str = Field(
        default="docker.io/library/busybox:1.37.0-musl", min_length=1, max_length=MAX_REFERENCE_LENGTH
    )
    """Image that puller pods take their static binary from; it has to hold a static /bin/busybox."""
    puller_priority_class: str = Field(default="", max_length=253)
    """priorityClassName of puller pods; "" takes the cluster's default. An ImageCache may name another one."""
    puller_service_account: str = Field(default="", max_length=253)
    """ServiceAccount of puller pods where the ImageCache names none; "" takes the namespace's own `default`."""
    puller_form: PullerForm = PullerForm.CONTAINER
    """How puller pods pull where neither the ImageCache nor a PrewarmPolicy says it."""
    pull_policy: CachePullPolicy = CachePullPolicy.IF_NOT_PRESENT
    """imagePullPolicy where the ImageCache says nothing: Always has every node ask the registry at every refresh."""
    attempt_timeout_seconds: int = Field(default=600, ge=10, le=86_400)
    """After this long a pull counts as failed, where the ImageCache says nothing."""
    refresh_seconds: float = Field(default=900.0, ge=0.0, le=2_592_000.0)
    """Between two refreshes of an ImageCache that gives neither interval nor schedule; 0 for none, else at least 10."""
    pod_retention: PodRetention = PodRetention.NEVER
    """Which finished puller pods are kept to look at, at most 100; an ImageCache's prewarm.dev/keep-pods goes first."""
    pod_retention_seconds: float = Field(default=600.0, ge=1.0, le=86_400.0)
    """How long those are kept."""
    steer: bool = False
    """Whether pods are steered where a PrewarmPolicy says so (placement.steer): nodes are labelled then."""
    purge: bool = False
    """Whether images may be removed from nodes; it takes pods that are root at the container runtime's socket."""
    purge_image: str = Field(default="", max_length=MAX_REFERENCE_LENGTH)
    """Image of the pods that remove images: the controller's own. Needed where PREWARM_PURGE is true."""
    purge_pull_secrets: tuple[Name, ...] = ()
    """Secrets in the controller's namespace with which that image is pulled, as a JSON list."""
    purge_socket: str = Field(default="", max_length=253, pattern=r"^(/[^\s]+)?$")
    """The runtime's socket on every node; "" tries those of the node's runtime: containerd, k3s, CRI-O, cri-dockerd."""
    purge_host_network: bool = False
    """Whether those pods use their node's network, for nodes where pods get none of their own."""
    purge_nodes: int = Field(default=20, ge=1, le=1000)
    """Nodes from which images are removed at once."""

    @model_validator(mode="after")
    def _has_what_purging_takes(self) -> "Settings":
        if self.purge and not self.purge_image:
            raise ValueError("PREWARM_PURGE needs PREWARM_PURGE_IMAGE, the controller's own image")
        return self


def unknown_variables(names: Iterable[str]) -> tuple[str, ...]:
    """A line for each environment variable that looks like a setting and is none, with the nearest one that is.

    Kubernetes' own variables for a Service named prewarm are left out: PREWARM_SERVICE_HOST, PREWARM_PORT_8080_TCP.
    """
    prefix = str(Settings.model_config.get("env_prefix", ""))
    known = {name.upper() for name in Settings.model_fields}
    ordered = sorted(names)
    services = [found[1] for name in ordered if (found := _SERVICE.fullmatch(name))]
    of_services = tuple(f"{service}_{part}" for service in services for part in ("SERVICE_", "PORT"))
    lines = []
    for name in ordered:
        wanted = name.upper().removeprefix(prefix)
        if not name.upper().startswith(prefix) or wanted in known or name in _NOT_OURS or name.startswith(of_services):
            continue
        nearest = get_close_matches(wanted, sorted(known), n=1)
        hint = f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
        lines.append(f"{name} is no setting and changes nothing{hint}")
    return tuple(lines)
