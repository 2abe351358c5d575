"""Who makes room: the node that the real kube-scheduler 1.36 clears (e2e/test_preemption.py plays the same table)."""

from collections.abc import Mapping

from msgspec import Struct

PRIORITY = 100
"""Of the pod that comes."""
NODE_CPU = 4
"""Cores of every node."""


class Standing(Struct, frozen=True):
    """A pod on a node."""

    priority: int
    cpu: int = NODE_CPU
    started: int = 1000
    """Seconds after some beginning."""
    protected: bool = False
    """By a PodDisruptionBudget that allows no disruption."""
    port: int = 0
    """Host port that it takes; 0: none."""


class PreemptionCase(Struct, frozen=True):
    """Nodes with pods, a pod that comes, and which node it gets; "": none."""

    name: str
    fits: str
    nodes: Mapping[str, tuple[Standing, ...]]
    cpu: int = NODE_CPU
    port: int = 0
    tainted: str = ""
    """Nodes that the pod does not tolerate."""
    preempts: bool = True


CASES = (
    PreemptionCase("lowest-priority", "b", {"a": (Standing(10),), "b": (Standing(5),)}),
    PreemptionCase("free-room-first", "b", {"a": (Standing(1),), "b": ()}),
    PreemptionCase("highest-before-count", "b", {"a": (Standing(10),), "b": (Standing(5, 2), Standing(5, 2))}),
    PreemptionCase("fewest-of-one-priority", "b", {"a": (Standing(5, 2), Standing(5, 2)), "b": (Standing(5),)}),
    PreemptionCase("smaller-sum", "b", {"a": (Standing(5, 2), Standing(4, 2)), "b": (Standing(5, 2), Standing(1, 2))}),
    PreemptionCase("highest-before-sum", "a", {"a": (Standing(3, 2), Standing(3, 2)), "b": (Standing(4, 4),)}),
    PreemptionCase("budget-before-priority", "b", {"a": (Standing(5, protected=True),), "b": (Standing(10),)}),
    PreemptionCase("budget-if-nothing-else", "a", {"a": (Standing(5, protected=True),), "b": (Standing(100),)}),
    PreemptionCase("latest-start", "b", {"a": (Standing(5, started=100),), "b": (Standing(5, started=200),)}),
    PreemptionCase(
        "latest-start-of-the-highest",
        "a",
        {
            "a": (Standing(5, 2, started=300), Standing(4, 2, started=100)),
            "b": (Standing(5, 2, started=200), Standing(4, 2, started=400)),
        },
    ),
    PreemptionCase("spares-the-important", "a", {"a": (Standing(50, 2), Standing(1, 2)), "b": (Standing(5),)}, cpu=2),
    PreemptionCase(
        "spares-the-older", "b", {"a": (Standing(5, 2, 1), Standing(5, 2, 50)), "b": (Standing(5, 2, 60),) * 2}, cpu=2
    ),
    PreemptionCase("what-is-free-counts", "a", {"a": (Standing(1, 1), Standing(50, 2)), "b": (Standing(2),)}, cpu=2),
    PreemptionCase("never-an-equal", "b", {"a": (Standing(100),), "b": (Standing(99),)}),
    PreemptionCase("nobody-lower", "", {"a": (Standing(100),), "b": (Standing(200),)}),
    PreemptionCase("too-little-even-then", "", {"a": (Standing(100, 1), Standing(1, 3)), "b": (Standing(100),)}),
    PreemptionCase("filters-that-no-victim-changes", "b", {"a": (Standing(1),), "b": (Standing(50),)}, tainted="a"),
    PreemptionCase(
        "host-port", "b", {"a": (Standing(50, 1, port=80),), "b": (Standing(1, 1, port=80),)}, cpu=1, port=80
    ),
    PreemptionCase("does-not-preempt", "", {"a": (Standing(1),), "b": (Standing(1),)}, preempts=False),
)
