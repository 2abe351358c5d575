import random

from prewarm.demand.departures import departure_order
from prewarm.model.pods import ContainerStatus, Pod, PodPhase

NOW = 10_000.0


def pod(name: str, node: str = "a", **fields: object) -> Pod:
    values: dict[str, object] = {"phase": PodPhase.RUNNING, "ready_at": 100.0, "created_at": 50.0, **fields}
    return Pod("shop", name, f"uid-{name}", node_name=node, **values)  # type: ignore[arg-type]


def order(pods: list[Pod], staying: tuple[Pod, ...] = (), together: int = 0) -> list[str]:
    return [found.name for found in departure_order(pods, staying, together, NOW)]


def test_the_rules_of_the_replica_set_controller_in_their_order() -> None:
    pods = [
        pod("1-unassigned", node="", phase=PodPhase.PENDING, ready_at=None),
        pod("2-pending", node="b", phase=PodPhase.PENDING, ready_at=None),
        pod("3-not-ready", node="c", ready_at=None),
        pod("4-cheap", node="d", deletion_cost=-1),
        pod("5-doubled-up", node="e"),
        pod("6-ready-lately", node="f", ready_at=NOW - 10),
        pod("7-ready-long", node="g", ready_at=NOW - 9_000),
    ]
    neighbour = pod("neighbour", node="e")
    for seed in range(20):
        shuffled = random.Random(seed).sample(pods, len(pods))  # noqa: S311 - not cryptography
        assert order(shuffled, (neighbour,)) == [found.name for found in pods]


def test_ages_count_by_order_of_magnitude_and_then_by_uid() -> None:
    assert order([pod("b", node="b", ready_at=NOW - 1000), pod("a", node="a", ready_at=NOW - 1010)]) == ["a", "b"]


def test_pods_that_never_were_ready_go_by_restarts() -> None:
    restarted = pod("z", node="b", ready_at=None, containers=(ContainerStatus("c0", restart_count=3),))
    assert order([pod("a", ready_at=None), restarted]) == ["z", "a"]


def test_one_by_one_a_pod_that_has_lost_its_neighbour_is_like_the_others() -> None:
    pods = [pod("a", node="n"), pod("b", node="n"), pod("c", node="m", ready_at=NOW - 1)]
    assert order(pods) == ["a", "c", "b"]


def test_together_neighbours_go_both() -> None:
    pods = [pod("a", node="n"), pod("b", node="n"), pod("c", node="m", ready_at=NOW - 1)]
    assert order(pods, together=2) == ["a", "b", "c"]
