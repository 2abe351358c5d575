"""What is seen of many rollouts at once: when each changed and was reacted to, how pulls and pods went."""

import asyncio
import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from e2e.bench.budgets import Peaks
from e2e.demo.recorder import Recorder
from e2e.emulator.writer import KubeletClient
from prewarm.api.names import LABEL_PULLER, TRUE
from prewarm.cluster.client import WatchOptions
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.intents import DEPLOYMENTS, IMAGE_CACHES, NAMESPACES, PODS

NAMESPACE = "bench"
_WATCH_SECONDS = 1800.0
_ASK_SECONDS = 0.1
_PLANNED = "planned"
"""The log line for each demand whose plan changed."""


class Team(Struct, frozen=True):
    """One of the Deployments."""

    name: str
    replicas: int
    registry: str
    pool: str = ""
    """Value of the pool's label on its nodes; "" for all nodes."""

    def image(self, version: str) -> str:
        """Its image."""
        return f"{self.registry}/{self.name}:{version}"


class Reaction(Struct):
    """When what was seen of one change, on the monotonic clock."""

    sent: float | None = None
    """The request that changes the Deployment."""
    changed: float | None = None
    """The change, on a watch."""
    ordered: float | None = None
    """The ImageCache with the new image."""
    pulling: float | None = None
    """The first puller pod."""


class FirstPlan(Struct, frozen=True):
    """What the controller said of a rollout when it had seen the change."""

    to_pull: int
    skipped: dict[str, int]
    """Nodes and pods for which nothing was ordered, by reason."""


class _Planned(Struct):
    """A log line about a plan; other lines lack these fields."""

    event: str = ""
    images: list[str] = []
    to_pull: int = 0
    skipped: dict[str, int] = {}


def first_plans(log: Path, images: Collection[str]) -> dict[str, FirstPlan]:
    """What a controller's log says of the first plan with each of these images."""
    found: dict[str, FirstPlan] = {}
    for line in log.read_bytes().splitlines() if log.exists() else ():
        if b'"planned"' not in line:
            continue
        try:
            said = msgspec.json.decode(line, type=_Planned)
        except msgspec.DecodeError:  # a line that is being written
            continue
        if said.event == _PLANNED:
            for image in said.images:
                if image in images and image not in found:
                    found[image] = FirstPlan(said.to_pull, said.skipped)
    return found


class Watcher:
    """Follows Deployments, ImageCaches and pods of the namespace."""

    def __init__(self, client: KubeletClient, teams: Sequence[Team], version: str) -> None:
        self._client = client
        self._by_image = {team.image(version): team.name for team in teams}
        self.reactions = {team.name: Reaction() for team in teams}
        self.recorders = {team.name: Recorder(team.image(version)) for team in teams}
        self.peaks = Peaks()
        self.synced = [asyncio.Event() for _ in range(3)]
        self.answers: list[tuple[float, float]] = []
        """When the server was asked for something small, and how long the answer took."""

    async def deployments(self) -> None:
        """Note when each Deployment has its new image."""
        kind = Kinds().deployments
        async for lines in self._client.watch(DEPLOYMENTS, self._options()):
            now = time.monotonic()
            for line in lines:
                change = kind.change(line)
                self._sync(0, change.initial_end)
                for image in change.object.value.template.shape.images if change.object.value else ():
                    if image in self._by_image:
                        reaction = self.reactions[self._by_image[image]]
                        reaction.changed = reaction.changed or now

    async def image_caches(self) -> None:
        """Note when each new image is asked for."""
        kind = Kinds().image_caches
        async for lines in self._client.watch(IMAGE_CACHES, self._options()):
            now = time.monotonic()
            for line in lines:
                change = kind.change(line)
                self._sync(1, change.initial_end)
                for entry in change.object.value.lists if change.object.value else ():
                    for image in entry.images:
                        if entry.node_names and image in self._by_image:
                            reaction = self.reactions[self._by_image[image]]
                            reaction.ordered = reaction.ordered or now

    async def pods(self) -> None:
        """Follow puller pods and those of the Deployments."""
        kind = Kinds().pods
        async for lines in self._client.watch(PODS, self._options()):
            now = time.monotonic()
            for line in lines:
                change = kind.change(line)
                self._sync(2, change.initial_end)
                pod = change.object.value
                if pod is None:
                    continue
                names = {self._by_image[image] for image in pod.shape.images if image in self._by_image}
                if pod.labels.get(LABEL_PULLER) == TRUE:
                    self.peaks.gone(pod.uid) if change.type == "DELETED" else self.peaks.seen(pod)
                    for name in names:
                        self.reactions[name].pulling = self.reactions[name].pulling or now
                elif change.type != "DELETED":
                    for name in names:
                        self.recorders[name].observe(pod, now)

    async def server(self) -> None:
        """Ask the server for something small now and then: nobody's reaction is quicker than its answers."""
        while True:
            asked = time.monotonic()
            await self._client.get(NAMESPACES, "", NAMESPACE)
            self.answers.append((asked, time.monotonic() - asked))
            await asyncio.sleep(_ASK_SECONDS)

    def answers_meanwhile(self) -> list[float]:
        """Seconds that the server took for answers while first pulls were awaited."""
        seen = [one.changed for one in self.reactions.values() if one.changed is not None]
        pulling = [one.pulling for one in self.reactions.values() if one.pulling is not None]
        from_, until = min(seen, default=math.inf), max(pulling, default=-math.inf)
        return [took for asked, took in self.answers if from_ <= asked <= until]

    def _options(self) -> WatchOptions:
        return WatchOptions(initial_events=True, namespace=NAMESPACE, server_timeout=_WATCH_SECONDS)

    def _sync(self, which: int, initial_end: bool) -> None:
        if initial_end:
            self.synced[which].set()
