"""Runs one rollout of the web Deployment and measures it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from e2e.controller import judged_starts
from e2e.demo.environment import Environment
from e2e.demo.recorder import Recorder
from e2e.demo.report import Bytes, RolloutResult
from e2e.demo.scenario import NAMESPACE, WEB, Scenario, image, web
from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.decoding.kinds import Kinds
from prewarm.model.images import canonical
from prewarm.model.intents import DEPLOYMENTS, PODS
from prewarm.model.outcomes import Outcome

_ROLLOUT_SECONDS = 180.0
_JUDGING_SECONDS = 20.0
_TICK_SECONDS = 0.25


@dataclass(frozen=True)
class State:
    """A rollout under way."""

    recorder: Recorder
    outcomes: dict[str, Outcome]
    """By pod uid; empty where prewarm is off."""
    warm_nodes: int
    """Nodes that have pulled the image, by the kubelets' account."""


Progress = Callable[[State], None]
"""Told about the rollout's state every quarter of a second."""


class Pull(Protocol):
    """What a kubelet says of one pull."""

    @property
    def node(self) -> str:
        """Where."""

    @property
    def uid(self) -> str:
        """The pod for which."""

    @property
    def image(self) -> str:
        """What."""

    @property
    def downloaded_bytes(self) -> int:
        """What came over the network."""


async def reset(environment: Environment, scenario: Scenario, *, opted_in: bool) -> None:
    """Bring the Deployment back to its first version on fresh pods, and wait until all are Ready."""
    if await environment.exists(DEPLOYMENTS, NAMESPACE, WEB):
        await environment.kubectl("delete", "deployment", WEB, "--namespace", NAMESPACE, "--cascade=foreground")
    await environment.apply(*web(scenario, "v1", opted_in=opted_in))
    await environment.kubectl(
        "rollout", "status", f"deployment/{WEB}", "--namespace", NAMESPACE, f"--timeout={_ROLLOUT_SECONDS:.0f}s"
    )


async def roll_out(
    environment: Environment, scenario: Scenario, title: str, version: str, *, opted_in: bool, progress: Progress
) -> RolloutResult:
    """Change the image and measure until every pod of the new version is Ready and judged."""
    recorder = Recorder(image(version))
    options = WatchOptions(initial_events=True, label_selector=f"app={WEB}", server_timeout=2 * _ROLLOUT_SECONDS)
    async with watching(environment.client, [recorder], options):
        await environment.apply(*web(scenario, version, opted_in=opted_in))
        async with asyncio.timeout(_ROLLOUT_SECONDS):
            while not _complete(recorder, scenario):
                environment.check()
                progress(_state(environment, recorder, opted_in=opted_in))
                await asyncio.sleep(_TICK_SECONDS)
    judged = await _all_judged(environment, recorder) if opted_in else {}
    return RolloutResult(title, recorder, judged, account(environment.pulls(), recorder))


def _state(environment: Environment, recorder: Recorder, *, opted_in: bool) -> State:
    wanted = canonical(recorder.image)
    warm = {pull.node for pull in environment.pulls() if not pull.error and canonical(pull.image) == wanted}
    return State(recorder, outcomes(environment, recorder) if opted_in else {}, len(warm))


def outcomes(environment: Environment, recorder: Recorder) -> dict[str, Outcome]:
    """What the controller said of the recorded pods, by pod uid."""
    judged = judged_starts(environment.controller_log)
    return {uid: judged[uid, recorder.image] for uid in recorder.starts if (uid, recorder.image) in judged}


def account(pulls: Iterable[Pull], recorder: Recorder) -> Bytes:
    """Bytes pulled for the rollout's image, by the emulated kubelets' own account."""
    wanted = canonical(recorder.image)
    found = [pull for pull in pulls if canonical(pull.image) == wanted]
    ours = [pull for pull in found if pull.uid not in recorder.starts]
    used = {start.node for start in recorder.starts.values()}
    return Bytes(
        pulled=sum(pull.downloaded_bytes for pull in found),
        prewarmed=sum(pull.downloaded_bytes for pull in ours),
        wasted=sum(pull.downloaded_bytes for pull in ours if pull.node not in used),
    )


def _complete(recorder: Recorder, scenario: Scenario) -> bool:
    ready = sum(start.ready is not None for start in recorder.starts.values())
    return ready >= scenario.replicas


async def _all_judged(environment: Environment, recorder: Recorder) -> dict[str, Outcome]:
    """Outcomes once every pod has one, or after a while without: those stay unknown."""
    deadline = time.monotonic() + _JUDGING_SECONDS
    while True:
        judged = outcomes(environment, recorder)
        if len(judged) >= len(recorder.starts) or time.monotonic() > deadline:
            return judged
        environment.check()
        await asyncio.sleep(_TICK_SECONDS)


@asynccontextmanager
async def watching(client: Client, recorders: Sequence[Recorder], options: WatchOptions) -> AsyncIterator[None]:
    """Feed the recorders from a watch of pods while the block runs."""
    seen = asyncio.Event()
    task = asyncio.create_task(_watch(client, recorders, options, seen), name="demo-watch")
    try:
        waiting = asyncio.create_task(seen.wait(), name="demo-watch-synced")
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(client: Client, recorders: Sequence[Recorder], options: WatchOptions, seen: asyncio.Event) -> None:
    """Watch until cancelled; an API server on a busy machine ends streams that it cannot get rid of fast enough."""
    pods = Kinds().pods
    while True:
        async for lines in client.watch(PODS, options):
            now = time.monotonic()
            for line in lines:
                change = pods.change(line)
                if change.initial_end:
                    seen.set()
                if change.type in {"ADDED", "MODIFIED"} and change.object.value is not None:
                    for recorder in recorders:
                        recorder.observe(change.object.value, now)
