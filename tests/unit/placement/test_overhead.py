"""Overhead of a RuntimeClass, which other pods of the class tell."""

import pytest
from msgspec.structs import replace

from prewarm.model.pods import Pod, PodShape, Resources
from prewarm.placement import place
from prewarm.placement.incoming import of_demand
from tests.unit.placement.clusters import cluster, demand, node, pod, requests

HEAVY = replace(requests(500, 100), runtime_class="heavy")
"""As a template has it."""


def running(cpu: int, *, runtime_class: str = "heavy", namespace: str = "default") -> Pod:
    overhead = Resources(cpu, 10, 0, (("example.test/slot", 1),))
    return pod(
        "a", namespace=namespace, shape=PodShape(runtime_class=runtime_class, requests=overhead, overhead=overhead)
    )


@pytest.mark.parametrize(
    ("pods", "milli_cpu"),
    [
        pytest.param([running(200)], 700, id="of the same class"),
        pytest.param([running(300, namespace="other"), running(200)], 700, id="the own namespace first"),
        pytest.param([running(300, namespace="other")], 800, id="another namespace"),
        pytest.param([running(300, runtime_class="light")], 500, id="another class"),
        pytest.param([], 500, id="nobody tells"),
    ],
)
def test_pods_of_the_class_tell_what_it_adds(pods: list[Pod], milli_cpu: int) -> None:
    shape = of_demand(demand(1, HEAVY), cluster([node("a")], pods)).shape
    assert shape.requests.milli_cpu == milli_cpu
    assert shape.scoring_milli_cpu == milli_cpu


def test_what_it_adds_may_leave_no_room() -> None:
    nodes = [
        node("a", cpu=9000, extended={"example.test/slot": 9}),
        node("b", cpu=600, extended={"example.test/slot": 9}),
    ]
    pods = [running(200)]
    assert [found.name for found in place(demand(1, HEAVY), cluster(nodes, pods)).nodes] == ["a"]
    told = replace(HEAVY, overhead=Resources(100), requests=Resources(600, 100))
    assert of_demand(demand(1, told), cluster(nodes, pods)).shape.requests.milli_cpu == 600


def test_a_class_that_adds_nothing() -> None:
    light = replace(requests(500, 100), runtime_class="light")
    pods = [pod("a", shape=PodShape(runtime_class="light"))]
    assert of_demand(demand(1, light), cluster([node("a")], pods)).shape is light
