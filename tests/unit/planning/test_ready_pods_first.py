"""rollout.minUpdatedReadyPods: an image spreads once its first pods are ready."""

import pytest
from msgspec.structs import replace

from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import SkipReason
from prewarm.planning import plan
from tests.support.clusters import deployment, template
from tests.support.player import Player, varied_nodes

V1 = template("registry.test/web:v1")
V2 = template("registry.test/web:v2")


def rolling(ready: int) -> Player:
    """A rollout of 8 pods, one by one, of which at least the given number is ready."""
    workload = deployment(V1, replicas=8, max_surge=1, max_unavailable=0)
    player = Player(varied_nodes(12, 1), workload, pull_seconds=1.0)
    player.reconcile()
    player.settle()
    player.now += 600
    player.change(V2)
    player.reconcile()
    while updated_and_ready(player) < ready:
        assert player.step()
    return player


def updated_and_ready(player: Player) -> int:
    return sum(pod.ready_at is not None and pod.shape.images == V2.shape.images for pod in player.own())


def planned(player: Player, asked: int | str) -> tuple[int, set[SkipReason]]:
    policy = Policy(min_updated_ready_pods=asked)
    entry = plan(replace(player.snapshot(), policies={"default": policy}), History()).demands[0]
    return sum(bool(node.missing) for node in entry.nodes), {skip.reason for skip in entry.skips}


@pytest.mark.parametrize("asked", [1, "1%", 8, "100%", 1000])
def test_nothing_is_pulled_before_enough_pods_are_ready(asked: int | str) -> None:
    nodes, reasons = planned(rolling(0), asked)
    assert nodes == 0
    assert SkipReason.AWAITING_READY_PODS in reasons


@pytest.mark.parametrize("asked", [1, 2, "25%"])
def test_an_image_spreads_once_enough_are_ready(asked: int | str) -> None:
    player = rolling(2)
    assert planned(player, asked) == planned(player, 0)
    assert SkipReason.AWAITING_READY_PODS in planned(player, 5)[1]
