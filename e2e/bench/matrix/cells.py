"""The cells of the matrix, and what each has to reach."""

from enum import StrEnum

from msgspec import Struct


class Strategy(StrEnum):
    """How a workload replaces its pods."""

    SURGE = "surge"
    """Deployment, maxSurge 25 %, maxUnavailable 0."""
    UNAVAILABLE = "unavailable"
    """Deployment, maxSurge 0, maxUnavailable 25 %."""
    RECREATE = "recreate"
    """Deployment, Recreate."""
    STATEFUL_SET = "stateful-set"
    """StatefulSet whose pods are bound to local volumes."""
    DAEMON_SET = "daemon-set"
    """DaemonSet, maxUnavailable 2."""
    IN_PLACE = "in-place"
    """OpenKruise CloneSet, InPlaceIfPossible, maxUnavailable 2; its controller is played."""
    CANARY = "canary"
    """Argo Rollout, canary steps 20 % and 60 % with pauses, by Argo's own controller."""

    @property
    def fixed(self) -> bool:
        """Whether every pod's node is known beforehand."""
        return self in {Strategy.STATEFUL_SET, Strategy.DAEMON_SET, Strategy.IN_PLACE}

    @property
    def rolls(self) -> bool:
        """Whether it is a Deployment's rolling update."""
        return self in {Strategy.SURGE, Strategy.UNAVAILABLE}

    @property
    def gated(self) -> bool:
        """Whether the gate can hold it."""
        return self in {Strategy.SURGE, Strategy.UNAVAILABLE, Strategy.RECREATE, Strategy.STATEFUL_SET}


class Shape(StrEnum):
    """What the nodes are like."""

    VARIED = "varied"
    """Of three sizes, each filled to another degree."""
    EQUAL = "equal"
    """Equal and empty."""
    TIGHT = "tight"
    """With room for little more than the pods that run and those of a surge."""
    TIGHT_FIRST = "tight-first"
    """The same under a first revision, all of whose pods are of one second: their controller has no order for them."""

    @property
    def is_tight(self) -> bool:
        """Whether there is room for little more than the pods that run."""
        return self in {Shape.TIGHT, Shape.TIGHT_FIRST}


class Mode(StrEnum):
    """Which help prewarm gets."""

    NONE = "none"
    GATE = "gate"
    """Changes are held until images are there."""
    STEER = "steer"
    """New pods prefer warm nodes."""
    BOTH = "gate+steer"

    @property
    def gated(self) -> bool:
        """Whether the gate is asked for."""
        return self in {Mode.GATE, Mode.BOTH}

    @property
    def steered(self) -> bool:
        """Whether steering is asked for."""
        return self in {Mode.STEER, Mode.BOTH}


class Cell(Struct, frozen=True, order=True):
    """One rollout to measure."""

    strategy: Strategy
    shape: Shape
    mode: Mode

    def __str__(self) -> str:
        return f"{self.strategy} {self.shape} {self.mode}"

    @property
    def exists(self) -> bool:
        """Whether the mode can be had for the strategy, and is of any use to it."""
        if self.shape is Shape.TIGHT_FIRST and not self.strategy.rolls:
            return False
        return (self.strategy.gated or not self.mode.gated) and not (self.strategy.fixed and self.mode.steered)

    @property
    def had_revisions(self) -> bool:
        """Whether the old pods came by a rolling update, as those of most running Deployments, a batch after the other.

        It matters where room is tight: pods that are all of one second leave in an order that nobody can know.
        """
        return self.strategy.rolls and self.shape is Shape.TIGHT

    def predictable(self, said: float | None) -> bool:
        """Whether the landing can be known: on varied nodes, on equal ones never, on tight ones where the plan says so.

        On equal, empty nodes the scheduler does not repeat itself. Where room is tight pods land where old ones leave,
        and which of those go first is drawn by their controller.

        Args:
            said: the plan's own predictability, 0 to 1; None: nothing was planned.
        """
        if self.strategy.fixed or self.mode.steered or self.shape is Shape.VARIED:
            return True
        return self.shape.is_tight and said is not None and said >= PREDICTABLE

    def later_goal(self, said: float | None) -> float | None:
        """Prewarm hit ratio to reach for pods after the first burst; None where none is set."""
        if self.strategy.fixed:
            return 0.99
        return 0.95 if self.predictable(said) else None

    def all_goal(self, said: float | None) -> float | None:
        """Prewarm hit ratio to reach for all pods; None where none is set."""
        return 0.99 if self.mode.gated and self.predictable(said) else None


PREDICTABLE = 0.9
"""A plan that expects two replays to agree on more pods says that it knows where they land."""
WASTE_GOAL = 0.15
"""Share of the prewarmed bytes that no pod may have used."""


def cells(strategies: set[Strategy], shapes: set[Shape], modes: set[Mode]) -> list[Cell]:
    """Those that exist, in the order of the enums; an empty set asks for all."""
    every = (Cell(strategy, shape, mode) for strategy in Strategy for shape in Shape for mode in Mode)
    return [
        cell
        for cell in every
        if cell.exists
        and (not strategies or cell.strategy in strategies)
        and (not shapes or cell.shape in shapes)
        and (not modes or cell.mode in modes)
    ]
