"""Each filter and score of the default profile beside the real kube-scheduler: it plays every row, and so do we.

What is expected is what the scheduler does in this very run. NodeName is not among the filters: a pod that names its
node never comes to the scheduler.
"""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from e2e.cluster.binaries import ControlPlaneBinaries
from e2e.cluster.control_plane import ControlPlane
from e2e.placement import tables_filters as one_node
from e2e.placement import tables_neighbours as neighbours
from e2e.placement import tables_scores as scores
from e2e.placement.playing import OPTIONS, Played, play
from e2e.placement.rows import Copy, Row, copies, rivals
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.model.plans import RejectReason

_FILTERS: Mapping[str, Sequence[Row]] = {
    "NodeUnschedulable": one_node.NODE_UNSCHEDULABLE,
    "TaintToleration": one_node.TAINT_TOLERATION,
    "NodeAffinity": one_node.NODE_AFFINITY,
    "NodePorts": one_node.NODE_PORTS,
    "NodeResourcesFit": one_node.NODE_RESOURCES_FIT,
    "PodTopologySpread": neighbours.POD_TOPOLOGY_SPREAD,
    "InterPodAffinity": neighbours.INTER_POD_AFFINITY,
}
_SCORES: Mapping[str, Sequence[Row]] = {
    "LeastAllocated": scores.LEAST_ALLOCATED,
    "BalancedAllocation": scores.BALANCED_ALLOCATION,
    "ImageLocality": scores.IMAGE_LOCALITY,
    "TaintToleration": scores.TAINT_TOLERATION,
    "NodeAffinity": scores.NODE_AFFINITY,
    "PodTopologySpread": scores.POD_TOPOLOGY_SPREAD,
    "InterPodAffinity": scores.INTER_POD_AFFINITY,
}
_ASKED = {name: copies(f"f{number}-", rows) for number, (name, rows) in enumerate(_FILTERS.items())}
_COMPETING = {name: rivals(f"s{number}-", rows) for number, (name, rows) in enumerate(_SCORES.items())}
_OF_RESOURCES = {
    RejectReason.TOO_MANY_PODS,
    RejectReason.INSUFFICIENT_CPU,
    RejectReason.INSUFFICIENT_MEMORY,
    RejectReason.INSUFFICIENT_RESOURCE,
}
_OWN = {
    **{name: {RejectReason(name)} for name in _FILTERS if name != "NodeResourcesFit"},
    "NodeResourcesFit": _OF_RESOURCES,
}


def _listed(tables: Mapping[str, Sequence[Copy]]) -> list[object]:
    return [
        pytest.param(copy, id=f"{plugin}: {copy.row.shows}" + (f" ({copy.asked})" if copy.asked else ""))
        for plugin, made in tables.items()
        for copy in made
    ]


@pytest.fixture(scope="module")
def played(control_plane_binaries: ControlPlaneBinaries) -> Played:
    """All rows, played at once."""
    assert control_plane_binaries.kubectl.exists()

    every = [copy for made in (*_ASKED.values(), *_COMPETING.values()) for copy in made]

    async def run() -> Played:
        async with ControlPlane.start(OPTIONS) as plane, Client(Connection.load(plane.kubeconfig)) as client:
            return await play(client, every, one_node.OVERHEAD)

    return asyncio.run(run())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("copy", _listed(_ASKED))
def test_a_node_takes_the_pod_or_is_rejected_for_the_same_reason(played: Played, copy: Copy) -> None:
    outcome, ours = played.outcomes[copy.name], played.predicted(copy)
    assert ([node.name for node in ours.nodes] or [""]) == [outcome.node], (outcome, ours.rejected)
    if outcome.node:
        return
    theirs, said = outcome.rejected, dict(ours.rejected)
    if theirs.total() == len(played.before.nodes):
        assert said == theirs, outcome.message
    else:
        # It lists everything of which a node has too little; we name the first.
        assert sum(said.values()) == len(played.before.nodes)
        assert all(number <= theirs[reason] for reason, number in said.items()), (said, outcome.message)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plugin", _FILTERS)
def test_each_filter_takes_some_pods_and_rejects_some(played: Played, plugin: str) -> None:
    outcomes = [played.outcomes[copy.name] for copy in _ASKED[plugin]]
    assert any(outcome.node for outcome in outcomes)
    assert any(_OWN[plugin] & outcome.rejected.keys() for outcome in outcomes)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("copy", _listed(_COMPETING))
def test_the_same_node_wins_in_every_replay(played: Played, copy: Copy) -> None:
    winner = played.outcomes[copy.name].node
    ours = {node.name: node.probability for node in played.predicted(copy).nodes}
    assert ours == {winner: 1.0}, played.outcomes[copy.name].message


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plugin", _SCORES)
def test_the_scheduler_turns_from_a_node_whose_handicap_is_larger_than_its_lead(played: Played, plugin: str) -> None:
    turned: dict[str, list[tuple[str, bool]]] = {}
    for copy in _COMPETING[plugin]:
        words, _, measure = copy.row.shows.partition(": ")
        if measure:
            wins = played.outcomes[copy.name].node == copy.node_name("a")
            turned.setdefault(words, []).append((measure, wins))
    wrong = {words: pair for words, pair in turned.items() if [wins for _, wins in pair] != [True, False]}
    assert not wrong
