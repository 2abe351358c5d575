"""What a refusal says: of one node or of all, of this spec or of another, of now or of a moment."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import Completion, ImageCache, ImageList, Policy, PullerForm
from prewarm.model.intents import Create
from prewarm.puller import PullerSettings, reconcile
from prewarm.puller.unanswered import Unanswered
from tests.support.pulling import MB, World, registries

IMAGE = "registry.test/web:v1"
WORDS = 'Internal error occurred: failed calling webhook "pods.example"'
KEY = ("shop", "pod")


@dataclass
class Picky(World):
    """A server that takes no pods on some nodes."""

    bad: frozenset[str] = frozenset()
    words: str = ""
    """Those of an error (500); "" for a refusal (403)."""

    def _create(self, namespace: str, name: str, manifest: Mapping[str, object]) -> None:
        spec = manifest["spec"]
        assert isinstance(spec, Mapping)
        bad = spec["nodeName"] in self.bad
        self.errors = {namespace: self.words} if bad and self.words else {}
        self.refusal = "no pods on this node" if bad and not self.words else ""
        super()._create(namespace, name, manifest)


def cache(**fields: object) -> ImageCache:
    return replace(ImageCache("shop", "warm", uid="uid-warm", generation=1, lists=(ImageList((IMAGE,)),)), **fields)


def world(nodes: int, pulls: int = 4, bad: frozenset[str] = frozenset(), words: str = "") -> Picky:
    settings = PullerSettings(cluster_pulls=pulls)
    found = Picky(registries({IMAGE: 200 * MB}), settings=settings, bad=bad, words=words)
    found.add_nodes(nodes)
    return found


def failed_on(found: World) -> set[str]:
    return {failure.node for failure in found.caches["shop", "warm"].status.failures}


@pytest.mark.parametrize("words", ["", WORDS])
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("bad", [frozenset({"n0"}), frozenset({"n0", "n1", "n2"})])
def test_refusals_of_a_few_nodes_keep_no_other_waiting(words: str, once: bool, bad: frozenset[str]) -> None:
    found = world(24, bad=bad, words=words)
    found.add_cache(cache(completion=Completion(once=once), attempt_limit=3))
    found.run(400)
    assert found.pulls_of(IMAGE) == dict.fromkeys(found.nodes.keys() - bad, 1)
    assert failed_on(found) == bad
    assert found.most_at_once <= 4
    # The refused are asked for now and then only, though other pods of the same kind are taken all the time.
    assert found.creates - len(found.created) < 20 * len(bad)
    if once:
        assert found.condition("warm", "Finished") == (True, "PullsFailed")


def test_a_single_attempt_on_one_node_does_not_end_a_run_for_the_others() -> None:
    found = world(12, pulls=1, bad=frozenset({"n0"}))
    found.add_cache(cache(completion=Completion(once=True), attempt_limit=1))
    found.run(300)
    assert found.condition("warm", "Finished") == (True, "PullsFailed")
    assert found.pulls_of(IMAGE) == dict.fromkeys(found.nodes.keys() - {"n0"}, 1)


def test_what_several_nodes_refuse_is_asked_of_no_further_ones() -> None:
    found = world(40)
    found.bad = frozenset(found.nodes)
    found.settings = PullerSettings(cluster_pulls=1)
    found.add_cache(cache(completion=Completion(once=True), attempt_limit=1))
    found.run(60)
    assert found.condition("warm", "Finished") == (True, "PullsFailed")
    assert found.creates == 3
    assert found.caches["shop", "warm"].status.failed == 40


@pytest.mark.parametrize("outage", [4.0, 20.0, 55.0])
@pytest.mark.parametrize("limit", [1, 3])
def test_a_server_that_heals_within_a_minute_costs_no_run(outage: float, limit: int) -> None:
    found = world(8, words=WORDS)
    found.bad = frozenset(found.nodes)
    found.add_cache(cache(completion=Completion(once=True), attempt_limit=limit))
    found.run(outage)
    found.bad = frozenset()
    found.run(120)
    assert found.condition("warm", "Finished") == (True, "Succeeded")
    assert found.pulls_of(IMAGE) == dict.fromkeys(found.nodes, 1)


def test_errors_last_only_where_several_came_in_a_row() -> None:
    def lasts(*answers: tuple[float, bool]) -> bool:
        found = Unanswered()
        return [found.lost(KEY, at, error=error) for at, error in answers][-1].lasts

    assert lasts((0.0, True), (1.0, True), (4.0, True))
    assert not lasts((0.0, True), (4.0, True))
    assert not lasts((0.0, False), (1.0, False), (8.0, True))
    assert not lasts((0.0, True), (1.0, True), (2.0, False), (4.0, True), (5.0, True))
    assert not lasts((0.0, True), (1.0, True), (55.0, True))


@pytest.mark.parametrize("answer", ["refused", "lost"])
def test_an_answer_about_the_spec_of_before_is_not_charged_to_the_edited_one(answer: str) -> None:
    found = world(1)
    once = Completion(once=True)
    found.add_cache(cache(service_account="nobody", attempt_limit=1, completion=once))
    decision = reconcile(found.snapshot(), found.settings, found.history, found.memory)
    (create,) = (intent for intent in decision.intents if isinstance(intent, Create))
    found.memory.sent(create.namespace, create.name)
    found.now += 10
    found.add_cache(replace(found.caches["shop", "warm"], service_account="", generation=2))
    reconcile(found.snapshot(), found.settings, found.history, found.memory)
    if answer == "refused":
        found.memory.refused(create.namespace, create.name, 'serviceaccount "nobody" not found', found.now)
    else:
        found.memory.lost(create.namespace, create.name, found.now, WORDS)
    found.run(60)
    assert found.condition("warm", "Finished") == (True, "Succeeded")


def test_losses_of_before_an_edit_do_not_hold_up_the_pods_of_the_new_spec() -> None:
    found = world(1, words=WORDS)
    found.bad = frozenset(found.nodes)
    found.add_cache(cache())
    found.run(40)
    found.bad = frozenset()
    # The pod has the same name as before.
    found.add_cache(replace(found.caches["shop", "warm"], generation=2, priority_class="low"))
    found.run(1.5)
    assert found.created


def test_another_form_by_policy_makes_other_pods_which_are_asked_for_at_once() -> None:
    found = world(4)
    for name, node in found.nodes.items():
        found.nodes[name] = replace(node, kubelet_version="v1.36.0", runtime_version="containerd://2.2.0")
    found.policies["default"] = Policy("default", puller_form=PullerForm.VOLUME)
    found.bad = frozenset(found.nodes)
    found.add_cache(cache())
    found.run(300)
    assert failed_on(found)
    found.policies["default"] = Policy("default", puller_form=PullerForm.CONTAINER)
    found.bad = frozenset()
    found.run(1)
    assert failed_on(found) == set()
    assert found.created
