"""What happened in a case, recorded or emulated, in one form: without what differs from run to run."""

import re
from dataclasses import dataclass, field

from prewarm.model.pods import ContainerPhase, ContainerStatus, PodPhase
from prewarm.simulation.outputs import (
    ImageRemoved,
    Output,
    PodStatus,
    PullFinished,
)

Json = dict[str, object]


@dataclass(frozen=True)
class EventSeen:
    """One occurrence of an event, without what differs from run to run."""

    t: float
    type: str
    reason: str
    field_path: str
    message: str
    count: int

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return (self.type, self.reason, self.field_path, self.message, self.count)


@dataclass(frozen=True)
class StatusSeen:
    """One pod status."""

    t: float
    value: tuple[object, ...]


@dataclass
class Account:
    """What happened to the pods and the node of a case."""

    events: dict[str, list[EventSeen]] = field(default_factory=dict)
    statuses: dict[str, list[StatusSeen]] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    images: list[tuple[float, list[tuple[str, ...]], list[int]]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    pulls: list[PullFinished] = field(default_factory=list)
    removed: list[ImageRemoved] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)


def normal(text: str) -> str:
    """A message without durations, container ids and uids."""
    text = re.sub(r"in [0-9.hms]+ \([0-9.hms]+ including waiting\)", "in D (D including waiting)", text)
    text = re.sub(r'container "[0-9a-f]{64}"', 'container "ID"', text)
    text = re.sub(r"Threshold quantity: \d+, available: \w+", "Threshold quantity: N, available: N", text)
    return re.sub(r"\([0-9a-f]{8}-[0-9a-f-]{27}\)", "(UID)", text)


def recorded_status(status: Json) -> tuple[object, ...]:
    """A recorded status in the form that both accounts share."""
    conditions = tuple(
        sorted(
            (
                c["type"],
                c["status"] == "True",
                c.get("reason", ""),
                c.get("message", "") if c["type"] != "DisruptionTarget" else "",
            )
            for c in status.get("conditions", [])  # type: ignore[attr-defined]
            if c["type"] != "PodScheduled"
        )
    )
    containers = [
        _recorded_container(c)
        for name in ("initContainerStatuses", "containerStatuses")
        for c in status.get(name, [])  # type: ignore[attr-defined]
    ]
    return (status["phase"], status.get("reason", ""), _address(status), conditions, *containers)


def _address(status: Json) -> bool:
    """Whether there is an address; ended pods keep it or not, which nothing depends on."""
    return bool(status.get("podIP")) and status["phase"] not in {"Succeeded", "Failed"}


def _recorded_container(c: Json) -> tuple[object, ...]:
    ((kind, state),) = c["state"].items()  # type: ignore[attr-defined]
    reason = "" if kind == "running" else state.get("reason", "")
    return (
        c["name"],
        kind,
        reason,
        normal(state.get("message", "")) if kind != "running" else "",
        state.get("exitCode"),
        c["ready"],
        c["started"],
        c["restartCount"],
        c["imageID"],
    )


def emulated_status(status: PodStatus) -> tuple[object, ...]:
    """An emulated status in the form that both accounts share."""
    conditions = tuple(
        sorted(
            (c.type.value, c.status, c.reason, c.message if c.type.value != "DisruptionTarget" else "")
            for c in status.conditions
        )
    )
    containers = [_emulated_container(c) for c in (*status.init_containers, *status.containers)]
    address = bool(status.pod_ip) and status.phase not in {PodPhase.SUCCEEDED, PodPhase.FAILED}
    return (status.phase.value, status.reason, address, conditions, *containers)


def _emulated_container(c: ContainerStatus) -> tuple[object, ...]:
    kind = {
        ContainerPhase.WAITING: "waiting",
        ContainerPhase.RUNNING: "running",
        ContainerPhase.TERMINATED: "terminated",
    }[c.phase]
    return (
        c.name,
        kind,
        c.reason,
        normal(c.message),
        c.exit_code,
        c.ready,
        c.phase is ContainerPhase.RUNNING,
        c.restart_count,
        c.image_id,
    )


def note_status(seen: list[StatusSeen], t: float, value: tuple[object, ...]) -> None:
    """Add a status if it differs from the one before."""
    if not seen or seen[-1].value != value:
        seen.append(StatusSeen(t, value))


def counters(values: dict[str, float]) -> dict[str, float]:
    """Requests for images by label, and pulls; zeros left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if name.startswith("image_manager_ensure_image_requests_total"):
            found[",".join(sorted(name.partition("{")[2].rstrip("}").split(",")))] = value
        elif name.startswith("image_pull_duration_seconds_count"):
            found["pulls"] = found.get("pulls", 0) + value
    return {name: value for name, value in found.items() if value}
