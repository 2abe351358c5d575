"""What the emulated kubelets themselves say of each start, beside what the accounting says."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from e2e.demo.recorder import Recorder
from prewarm.model.outcomes import Outcome
from prewarm.simulation.outputs import PullFinished

_WAITED_SECONDS = 0.5
HITS = frozenset({Outcome.HIT_PREWARMED, Outcome.HIT_PRESENT})


class Seen(StrEnum):
    """How a pod came by its image."""

    WARM = "warm"
    """It was there."""
    WAITED = "waited"
    """Somebody else's pull of it was under way."""
    COLD = "cold"
    """The kubelet downloaded it for this pod."""


class KubeletAccount(Struct, frozen=True):
    """What the kubelets of a cell saw."""

    starts: Mapping[str, Seen]
    """By pod uid."""
    prewarmed: int
    """Nodes whose first use of the image found what a puller pod had downloaded."""
    ours: Mapping[str, PullFinished]
    """By node, the first download for a puller pod."""


def kubelets_say(pulls: Iterable[PullFinished], recorder: Recorder) -> KubeletAccount:
    """The kubelets' word on the recorded pods."""
    own: dict[str, list[PullFinished]] = defaultdict(list)
    ours: dict[str, PullFinished] = {}
    for pull in pulls:
        if pull.image != recorder.image or pull.error:
            continue
        if pull.uid in recorder.starts:
            own[pull.uid].append(pull)
        elif pull.downloaded_bytes:
            ours.setdefault(pull.node, pull)
    seen = {uid: _seen(own[uid]) for uid in recorder.starts}
    by_node: dict[str, set[Seen]] = defaultdict(set)
    for uid, start in recorder.starts.items():
        by_node[start.node].add(seen[uid])
    prewarmed = sum(Seen.WARM in by_node[node] and Seen.WAITED not in by_node[node] for node in ours)
    return KubeletAccount(seen, prewarmed, ours)


def _seen(own: Iterable[PullFinished]) -> Seen:
    found = Seen.WARM
    for pull in own:
        if pull.downloaded_bytes:
            return Seen.COLD
        if pull.started_at - pull.queued_at > _WAITED_SECONDS:
            found = Seen.WAITED
    return found


def disagreements(outcomes: Mapping[str, Outcome], said: KubeletAccount, recorder: Recorder) -> list[str]:
    """Where the accounting and the kubelets tell different stories; empty if they agree."""
    found = []
    for uid, seen in said.starts.items():
        outcome = outcomes.get(uid)
        if (outcome in HITS) != (seen is Seen.WARM):
            name = recorder.starts[uid].name
            found.append(f"{name}: the accounting says {outcome or 'nothing'}, its kubelet {seen}")
    counted = sum(outcome is Outcome.HIT_PREWARMED for outcome in outcomes.values())
    if counted != said.prewarmed:
        found.append(f"hit_prewarmed: {counted} by the accounting, {said.prewarmed} by the kubelets")
    return found
