"""Replays that are asked to wait say the same, and end with what they are asked to end with."""

import pytest

from prewarm.model.plans import Batch
from prewarm.placement import place, waiting_between_steps
from tests.unit.placement.clusters import cluster, demand, node, requests

PODS = 5
DEMAND = demand(batches=(Batch(0.0, PODS),), shape=requests(1000))
CLUSTER = cluster([node(name) for name in "abcdef"])


def test_waiting_changes_nothing_of_what_replays_say() -> None:
    waits: list[None] = []
    with waiting_between_steps(lambda: waits.append(None)):
        found = place(DEMAND, CLUSTER)
    assert len(waits) >= PODS
    assert found == place(DEMAND, CLUSTER)


def test_whoever_is_waited_for_can_end_them() -> None:
    def end() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), waiting_between_steps(end):
        place(DEMAND, CLUSTER)
    assert place(DEMAND, CLUSTER).nodes
