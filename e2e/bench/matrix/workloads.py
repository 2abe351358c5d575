"""A cell's workload: created, changed and driven through its rollout, by its own controller or one that is played."""

import json
from typing import Protocol

from e2e.bench.matrix.cells import Cell, Strategy
from e2e.kruise import KruisePlayer
from e2e.lane import REPOSITORY, Lane, claim_template, local_volume, pod_template
from prewarm.api.names import ANNOTATION_ENABLED, ANNOTATION_GATE, ANNOTATION_POLICY, TRUE

NAME = "shop"
STEER_POLICY = "matrix-steer"
STARTUP_SECONDS = 4.0
"""From a container's start to its readiness."""
_GRACE_SECONDS = 30
"""As pods have it that do not say; they end sooner. Without any, their names go before their containers, and a kubelet
refuses what the scheduler puts in their room."""
_SELECTOR = {"matchLabels": {"app": NAME}}
_ROLLED_OUT_SECONDS = 180
_REPLICAS = {Strategy.STATEFUL_SET: 8, Strategy.DAEMON_SET: 16, Strategy.IN_PLACE: 16, Strategy.CANARY: 40}
_SCHEDULED_REPLICAS = 40
_TOGETHER = 2
_ROLLING = {
    Strategy.SURGE: {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
    Strategy.UNAVAILABLE: {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}},
    Strategy.RECREATE: {"type": "Recreate"},
}
_CANARY_STEPS = [
    {"setWeight": 20},
    {"pause": {"duration": "60s"}},
    {"setWeight": 60},
    {"pause": {"duration": "60s"}},
]


class Workload(Protocol):
    """What the measurement does with a workload."""

    @property
    def pods(self) -> int:
        """Pods of a revision."""

    async def create(self, tag: str) -> None:
        """Create it; return when all pods are ready."""

    async def change(self, tag: str) -> None:
        """Change the image, as a person does."""

    async def roll(self) -> None:
        """Do what the workload's controller does after a change, where it is played."""


def workload_of(cell: Cell, lane: Lane) -> Workload:
    """The workload of a cell, not created yet."""
    return _InPlace(cell, lane) if cell.strategy is Strategy.IN_PLACE else _OfApi(cell, lane)


def replicas(cell: Cell) -> int:
    """Pods of a revision."""
    return _REPLICAS.get(cell.strategy, _SCHEDULED_REPLICAS)


def annotations(cell: Cell) -> dict[str, str]:
    """What opts the workload in."""
    gate = {ANNOTATION_GATE: "5m"} if cell.mode.gated else {}
    steer = {ANNOTATION_POLICY: STEER_POLICY} if cell.mode.steered else {}
    return {ANNOTATION_ENABLED: TRUE, **gate, **steer}


def steer_policy() -> dict[str, object]:
    """A policy that steers."""
    return {
        "apiVersion": "prewarm.dev/v1alpha1",
        "kind": "PrewarmPolicy",
        "metadata": {"name": STEER_POLICY},
        "spec": {"placement": {"steer": "Prefer"}},
    }


def _template(tag: str, lane: Lane) -> dict[str, object]:
    return pod_template(
        tag, lane.plan, name=NAME, startup_seconds=STARTUP_SECONDS, terminationGracePeriodSeconds=_GRACE_SECONDS
    )


def manifest(cell: Cell, lane: Lane, tag: str) -> dict[str, object]:
    """A workload whose controller runs."""
    template = _template(tag, lane)
    spec: dict[str, object] = {"selector": _SELECTOR, "template": template}
    kind, api_version = "Deployment", "apps/v1"
    match cell.strategy:
        case Strategy.STATEFUL_SET:
            kind = "StatefulSet"
            spec |= {
                "serviceName": NAME,
                "podManagementPolicy": "Parallel",
                "volumeClaimTemplates": [claim_template("data")],
            }
        case Strategy.DAEMON_SET:
            kind = "DaemonSet"
            spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": _TOGETHER}}
        case Strategy.CANARY:
            kind, api_version = "Rollout", "argoproj.io/v1alpha1"
            spec["strategy"] = {"canary": {"steps": _CANARY_STEPS}}
        case _:
            spec["strategy"] = _ROLLING[cell.strategy]
    if kind != "DaemonSet":
        spec["replicas"] = replicas(cell)
    metadata = {"name": NAME, "annotations": annotations(cell)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


class _OfApi:
    """One whose controller runs."""

    def __init__(self, cell: Cell, lane: Lane) -> None:
        self._cell, self._lane = cell, lane
        self.pods = replicas(cell)

    async def create(self, tag: str) -> None:
        """Create it; return when all pods are ready."""
        if self._cell.strategy is Strategy.STATEFUL_SET:
            nodes = [profile.name for profile in self._lane.plan.node_plan.profiles()]
            for ordinal in range(self.pods):
                await self._lane.apply(local_volume(self._lane.namespace, f"data-{NAME}-{ordinal}", nodes[2 * ordinal]))
        found = manifest(self._cell, self._lane, tag)
        if self._cell.had_revisions:
            for earlier in (f"{tag}-before", tag):
                await self._roll_out(earlier)
        await self._lane.apply(found)
        if self._cell.strategy is Strategy.CANARY:
            ready = f"jsonpath={{.status.readyReplicas}}={self.pods}"
            options = (f"--for={ready}", f"--timeout={_ROLLED_OUT_SECONDS}s")
            await self._lane.kubectl("wait", f"rollouts.argoproj.io/{NAME}", *options)
            healthy = ("--for=jsonpath={.status.phase}=Healthy", f"--timeout={_ROLLED_OUT_SECONDS}s")
            await self._lane.kubectl("wait", f"rollouts.argoproj.io/{NAME}", *healthy)
        else:
            await self._lane.rolled_out(f"{str(found['kind']).lower()}/{NAME}", _ROLLED_OUT_SECONDS)

    async def _roll_out(self, tag: str) -> None:
        """A revision from before the workload was opted in: nothing holds, predicts or steers it."""
        await self._lane.apply({**manifest(self._cell, self._lane, tag), "metadata": {"name": NAME}})
        await self._lane.rolled_out(f"deployment/{NAME}", _ROLLED_OUT_SECONDS)

    async def change(self, tag: str) -> None:
        """Change the image, as a person does."""
        image = f"{REPOSITORY}:{tag}"
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
        kind = str(manifest(self._cell, self._lane, tag)["kind"]).lower()
        kind = "rollouts.argoproj.io" if kind == "rollout" else kind
        await self._lane.kubectl("patch", f"{kind}/{NAME}", "--type=json", "-p", json.dumps(patch))

    async def roll(self) -> None:
        """Nothing: the controller runs."""


class _InPlace:
    """A CloneSet."""

    def __init__(self, cell: Cell, lane: Lane) -> None:
        self.pods = replicas(cell)
        self._lane = lane
        self._player: KruisePlayer | None = None

    async def create(self, tag: str) -> None:
        """Create it with its pods; return when all are ready."""
        template = _template(tag, self._lane)
        strategy = {"type": "InPlaceIfPossible", "maxUnavailable": _TOGETHER}
        spec = {"replicas": self.pods, "selector": _SELECTOR, "template": template, "updateStrategy": strategy}
        self._player = KruisePlayer(self._lane, "CloneSet", spec)
        await self._player.create([{"name": f"{NAME}-{number}"} for number in range(self.pods)])

    async def change(self, tag: str) -> None:
        """Change the image; the player tells of it as OpenKruise does."""
        await self._playing.change(tag)

    async def roll(self) -> None:
        """Patch pod after pod."""
        await self._playing.update(lambda pods: pods, together=_TOGETHER)

    @property
    def _playing(self) -> KruisePlayer:
        if self._player is None:
            raise RuntimeError("the CloneSet was not created")
        return self._player
