"""Steering: warm nodes carry a label, and new pods of the workload prefer it, weakly."""

from enum import StrEnum

from msgspec import Struct


class Steer(StrEnum):
    """spec.placement.steer of a PrewarmPolicy."""

    OFF = "Off"
    """Pods land where the scheduler puts them by itself."""
    PREFER = "Prefer"
    """New pods prefer nodes that are warm for them, with weight 1."""


class SteerState(StrEnum):
    """Whether a demand's pods are steered where the policy says Prefer, and if not, why."""

    STEERED = "Steered"
    """Nodes are labelled as they become warm."""
    SWITCHED_OFF = "SwitchedOff"
    """The controller does not steer: the operator has not switched it on."""
    UNSUPPORTED = "Unsupported"
    """The API server has no MutatingAdmissionPolicy (Kubernetes 1.36)."""
    NODES_FIXED = "NodesFixed"
    """Where the pods run is decided already: there is nothing to steer."""
    OTHER_SCHEDULER = "OtherScheduler"
    """Another scheduler or profile places the pods: nobody knows what it prefers."""
    NAME_TOO_LONG = "NameTooLong"
    """The admission policy could not have an entry for the workload: its key would be longer than 253 characters."""
    OTHER_DEMAND = "OtherDemand"
    """The workload's pods are steered for another of its demands, which comes first."""
    OUTWEIGHED = "Outweighed"
    """Most pods would land elsewhere for all that: their own preferences decide, or the scheduler looks at too small a
    share of the nodes for a few pods."""
    WITHHELD = "Withheld"
    """Nothing new is pulled for the demand now."""


class Steering(Struct, frozen=True):
    """Where a demand's pods are steered to."""

    state: SteerState
    nodes: tuple[str, ...] = ()
    """To be labelled once they are warm, by name."""
    needed: int = 0
    """So many of them have to be warm before the first is labelled: the next pods would crowd fewer."""
    label: str = ""
    """Key of the node label: one for each workload."""
    value: str = ""
    """Its value: the revision."""
    waits: int = 0
    """Pods whose nodes are chosen once it is known which old pods make room for them: a pull is in time then."""


STATE_WORDS = {
    SteerState.STEERED: "nodes are labelled as they become warm",
    SteerState.SWITCHED_OFF: "the controller does not steer: set steer.enabled of the chart",
    SteerState.UNSUPPORTED: "the API server has no MutatingAdmissionPolicy (Kubernetes 1.36)",
    SteerState.NODES_FIXED: "where its pods run is decided already",
    SteerState.OTHER_SCHEDULER: "another scheduler places its pods",
    SteerState.OTHER_DEMAND: "the workload is steered for another of its demands",
    SteerState.NAME_TOO_LONG: "its namespace and name are too long for an entry of the admission policy",
    SteerState.OUTWEIGHED: "its own preferences decide, or the scheduler sees too few of the warm nodes",
    SteerState.WITHHELD: "nothing new is pulled for it now",
}
"""For people."""
