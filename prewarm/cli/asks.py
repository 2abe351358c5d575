"""What `prewarm warm` can be asked for."""

from msgspec import Struct

from prewarm.model.workloads import WorkloadKey


class WorkloadAhead(Struct, frozen=True):
    """The next images (or replicas) of a workload."""

    workload: WorkloadKey
    images: dict[str, str]
    """New image by container."""
    replicas: int | None
    coverage: float
    name: str = ""


class ImagesOnNodes(Struct, frozen=True):
    """Plain images; without node names and selector on every node that takes ordinary pods."""

    namespace: str
    images: tuple[str, ...]
    node_names: tuple[str, ...] | None
    node_selector: tuple[tuple[str, str], ...]
    pull_secrets: tuple[str, ...]
    service_account: str
    name: str = ""
