"""What a refusal or a policy turns for thousands of pairs at once is announced, and costs no more than it concerns."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.image_caches import Completion, ImageCache, ImageList, Policy, PullerForm
from prewarm.model.intents import Create
from prewarm.model.nodes import NodeImageStatus
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller import PullerDecision, PullerMemory, PullerSettings, reconcile
from prewarm.puller.pairs import Pair, Pairs
from prewarm.puller.standing import Standing
from tests.support.clusters import cluster, node

NODES, IMAGES = 20, tuple(f"registry.test/a{number}:v1" for number in range(5))
WARM = NODES - 8


@dataclass
class Counting:
    """Nodes that are judged."""

    names: list[str] = field(default_factory=list)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting, on_node = Counting(), Pairs.on_node

    def counted(self: Pairs, cache: ImageCache, images: tuple[str, ...], name: str) -> tuple[Pair, ...]:
        counting.names.append(name)
        return on_node(self, cache, images, name)

    monkeypatch.setattr(Pairs, "on_node", counted)
    return counting


def snapshot(now: float, policies: Iterable[Policy] = (), **fields: object) -> ClusterSnapshot:
    """Some of the nodes have every image."""
    there = tuple(NodeImageStatus((image,), 1) for image in IMAGES)
    nodes = [node(f"n{number}") for number in range(NODES)]
    nodes = [replace(found, images=there) if number < WARM else found for number, found in enumerate(nodes)]
    made = ImageCache("shop", "big", uid="uid", generation=1, created_at=1000.0, lists=(ImageList(IMAGES),))
    return cluster(nodes, (), now=now, image_caches=[replace(made, **fields)], policies=policies)


def look(memory: PullerMemory, seen: ClusterSnapshot) -> PullerDecision:
    return reconcile(seen, PullerSettings(node_pulls=1), History(), memory)


def test_what_is_given_up_turns_the_open_nodes_only_and_is_announced(judged: Counting) -> None:
    memory = PullerMemory()
    seen = snapshot(1000.0, attempt_limit=1, completion=Completion(once=True))
    assert memory.unjudged(seen) == NODES * len(IMAGES)
    decision = look(memory, seen)
    assert memory.unjudged(seen) == 0
    creates = [intent for intent in decision.intents if isinstance(intent, Create)]
    for create in creates[:3]:
        memory.refused(create.namespace, create.name, "no", 1000.0)
    for create in creates[3:]:
        memory.unsent(create.namespace, create.name)
    later = replace(seen, taken_at=1001.0)
    assert memory.unjudged(later) == (NODES - WARM) * len(IMAGES)
    judged.names.clear()
    look(memory, later)
    assert set(judged.names) == {f"n{number}" for number in range(WARM, NODES)}
    assert memory.unjudged(later) == 0
    # Another form may end that.
    volume = Policy("default", puller_form=PullerForm.VOLUME)
    policies = {volume.name: volume}
    assert memory.unjudged(replace(later, policies=policies)) == (NODES - WARM) * len(IMAGES)


def test_another_form_by_policy_has_nothing_judged_anew(judged: Counting) -> None:
    memory = PullerMemory()
    seen = snapshot(1000.0)
    for create in look(memory, seen).intents:
        if isinstance(create, Create):
            memory.unsent(create.namespace, create.name)
    look(memory, replace(seen, taken_at=1001.0))
    judged.names.clear()
    volume = Policy("default", puller_form=PullerForm.VOLUME)
    changed = replace(seen, taken_at=1002.0, policies={volume.name: volume})
    look(memory, changed)
    assert set(judged.names) <= {f"n{number}" for number in range(WARM, NODES)}
    (standing,) = memory._standings.values()
    assert standing.cache.puller_form is PullerForm.VOLUME


def test_an_edit_is_announced() -> None:
    memory = PullerMemory()
    look(memory, snapshot(1000.0))
    assert memory.unjudged(snapshot(1001.0, generation=2, priority=5)) == NODES * len(IMAGES)


def test_when_to_look_again_is_found_without_walking_all_that_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PullerMemory()
    seen = snapshot(1000.0)
    (first, *others) = (intent for intent in look(memory, seen).intents if isinstance(intent, Create))
    memory.refused(first.namespace, first.name, "no", 1000.0)
    for create in others:
        memory.unsent(create.namespace, create.name)

    def walked(_: Standing) -> Iterable[Pair]:
        raise AssertionError("walks all open pairs")

    look(memory, replace(seen, taken_at=1001.0))
    monkeypatch.setattr(Standing, "open_pairs", walked)
    monkeypatch.setattr(Standing, "is_refreshed", False)
    decision = look(memory, replace(seen, taken_at=1002.0))
    assert decision.wake_at is not None
    (standing,) = memory._standings.values()
    due_at = standing.next_due(1002.0)
    assert due_at is not None
    assert 1010.0 <= due_at <= 1012.0
    assert standing.next_due(due_at) is None
    assert standing.due_total(due_at) == standing.due_total(1002.0) + 1
