"""A stock rollout on equal, empty nodes, steered: played to its end with every plan carried out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import pytest
from msgspec.structs import replace

from prewarm.delivery.steering import Steered, label_changes, labels_wanted, steered_by
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import Policy
from prewarm.model.nodes import Evidence, Node
from prewarm.model.pods import Affinity, Pod, PreferredNodeTerm
from prewarm.model.selectors import NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steer
from prewarm.model.workloads import Workload, WorkloadKey
from prewarm.planning import plan
from prewarm.presence import warmth
from tests.support.clusters import deployment, node, template
from tests.support.player import Player

OLD, NEW = "registry.test/web:v1", "registry.test/web:v2"
REPLICAS = 40
BURST = 20
PULL_SECONDS = 20.0
HISTORY = History(pulls={NEW: Measured(PULL_SECONDS, 0.0)}, image_sizes={OLD: Measured(1e9, 0.0)})
PREFER = Policy("default", steer=Steer.PREFER)


@dataclass
class SteeredPlayer(Player):
    """With the admission policy: new pods of the wanted revision prefer the label."""

    steered: Mapping[WorkloadKey, Steered] = field(default_factory=dict)

    def snapshot(self) -> ClusterSnapshot:
        return replace(super().snapshot(), policies={"default": PREFER})

    def _create(self, found: Workload) -> None:
        known = set(self.pods)
        super()._create(found)
        for one in self.steered.values():
            for key in self.pods.keys() - known:
                self.pods[key] = preferring(self.pods[key], one)

    def _bind(self, pod: Pod) -> None:
        super()._bind(self.pods.get(pod.key, pod))

    def label(self) -> None:
        """Write the labels as the controller would."""
        of = self.snapshot()
        for change in label_changes(labels_wanted(self.steered.values(), of, warmth(of)), of):
            labels = {**self.nodes[change.name].labels, **dict(change.labels)}
            kept = {key: value for key, value in labels.items() if value is not None}
            self.nodes[change.name] = replace(self.nodes[change.name], labels=kept)


def preferring(pod: Pod, to: Steered) -> Pod:
    term = NodeSelectorTerm((Requirement(to.to.label, Operator.IN, (to.to.value,)),))
    own = pod.shape.affinity.preferred_node_terms
    affinity = Affinity(preferred_node_terms=(*own, PreferredNodeTerm(1, term)))
    return replace(pod, shape=replace(pod.shape, affinity=affinity))


@dataclass
class Run:
    """A rollout with a plan after each event; a pull starts 0.1 s after the plan that asks for it, if it stands."""

    player: SteeredPlayer
    wanted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labelled: int = 0
    """Most nodes with a label at a time."""
    history: History = HISTORY

    def replan(self) -> None:
        known = self.wanted
        made = plan(self.player.snapshot(), self.history)
        self.player.steered = steered_by(made)
        self.wanted = {one.name: one.missing for entry in made.demands for one in entry.nodes if one.missing}
        for name in self.wanted.keys() - known.keys():
            self.player.at(0.1, partial(self.order, name))
        self.player.label()
        self.labelled = max(self.labelled, len(labels(self.player)))

    def order(self, name: str) -> None:
        if name in self.wanted:
            self.player.prewarm(name, self.wanted[name])

    def play(self) -> None:
        self.replan()
        self.player.reconcile()
        last = 0.0
        while self.player.step():
            if self.player.now - last >= 0.3:
                last = self.player.now
                self.replan()
        self.replan()


def labels(player: Player) -> list[str]:
    return [key for one in player.nodes.values() for key in one.labels if key.startswith("steer.prewarm.dev/")]


def equal_nodes(count: int) -> dict[str, Node]:
    return {f"node-{index:03d}": node(f"node-{index:03d}", zone="abc"[index % 3]) for index in range(count)}


def prepared(seed: int, nodes: int = 60) -> SteeredPlayer:
    """The Deployment has been running v1 for ten minutes, and gets v2 now."""
    workload = deployment(template(OLD), replicas=REPLICAS)
    player = SteeredPlayer(equal_nodes(nodes), workload, seed=seed, pull_seconds=1.0)
    player.reconcile()
    player.settle()
    player.pull_seconds = PULL_SECONDS
    player.now += 600
    player.starts.clear()
    player.change(template(NEW))
    for seconds in (0.2, 0.4, 0.7, 1.1):
        player.at(seconds, lambda: None)
    return player


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    played = [Run(prepared(seed, nodes)) for seed, nodes in ((1, 60), (2, 60), (3, 90), (4, 150), (5, 300))]
    for run in played:
        run.play()
    return played


def test_the_pods_after_the_first_burst_start_warm(runs: list[Run]) -> None:
    after = Counter(outcome for run in runs for _, outcome, _ in run.player.starts[BURST:])
    assert after.total() == len(runs) * (REPLICAS - BURST)
    assert after["prewarmed"] / (after.total() - after["present"]) >= 0.95, after


def test_little_is_pulled_in_vain(runs: list[Run]) -> None:
    ours = [
        image
        for run in runs
        for images in run.player.present.values()
        for image in images.values()
        if image.evidence is Evidence.OUR_PULL
    ]
    assert sum(image.used_at is None for image in ours) / len(ours) <= 0.15


def test_pods_stay_spread_over_hosts_and_zones(runs: list[Run]) -> None:
    for run in runs:
        pods = run.player.own()
        assert len(pods) == REPLICAS
        assert max(Counter(pod.node_name for pod in pods).values()) <= 2
        zones = Counter(run.player.nodes[pod.node_name].labels["topology.kubernetes.io/zone"] for pod in pods)
        assert max(zones.values()) - min(zones.values()) <= 5


def test_labels_are_there_while_it_rolls_and_gone_at_its_end(runs: list[Run]) -> None:
    for run in runs:
        assert run.labelled >= (REPLICAS - BURST) / 2
        assert labels(run.player) == []


def test_what_is_held_until_the_labels_are_on_starts_warm_altogether() -> None:
    run = Run(prepared(5))
    run.player.workload = replace(run.player.workload, paused=True)
    run.replan()
    run.player.settle()
    run.replan()
    assert run.labelled == REPLICAS
    run.player.workload = replace(run.player.workload, paused=False)
    run.play()
    assert Counter(outcome for _, outcome, _ in run.player.starts) == {"prewarmed": REPLICAS}
    assert labels(run.player) == []
