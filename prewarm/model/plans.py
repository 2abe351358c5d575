"""What is needed, where it will land, and what is worth pulling: the values between demand, placement and planning."""

from enum import StrEnum

from msgspec import Struct

from prewarm.model.pods import PodTemplate
from prewarm.model.steering import Steering
from prewarm.model.workloads import WorkloadKey


class Trigger(StrEnum):
    """Why images will be needed."""

    ROLLOUT = "Rollout"
    """The pod template changed, and pods of the new revision are still to come."""
    SCALE_OUT = "ScaleOut"
    """More replicas may come: headroom above the current count."""
    SCHEDULED = "Scheduled"
    """A CronJob's next run is near, or a running Job has more pods to come."""
    ANNOUNCED = "Announced"
    """The workload's owner says which images come next, or they are on trial in a canary; nobody knows when."""
    ROLLBACK = "Rollback"
    """A rollout replaces what these images served: they stay where its pods ran until the rollout is judged."""
    WHAT_IF = "WhatIf"
    """Asked for by a person or a pipeline (`prewarm plan`, `prewarm warm`), not by the cluster."""


class Batch(Struct, frozen=True):
    """Pods that the workload's controller will create together; `needed_at` in Unix seconds."""

    needed_at: float
    pods: int
    leaving: int = 0
    """How many of the demand's `leaving`, beyond those before earlier batches, go before these pods come."""
    nodes: tuple[str, ...] = ()
    """Where they come, if that is certain: one node for each pod. Empty: the scheduler chooses."""
    claims: tuple[str, ...] = ()
    """PersistentVolumeClaims of these pods alone, beyond the template's: their bound volumes restrict the scheduler."""
    prefers: tuple[str, ...] = ()
    """Nodes that these pods prefer with weight 1, beyond what the template says: they are steered there."""
    after_rest: bool = False
    """Whether the rollout stood still before these pods come: then just as many old pods have gone as batches say."""
    at_once: int | None = None
    """How many old pods are told to go as soon as these were asked for, before the new ones' nodes can be known; None:
    not told apart."""
    names: tuple[str, ...] = ()
    """The pods' names, where they are known before the pods come: ordinals, and pods that are updated in place."""


class Demand(Struct, frozen=True):
    """Pods that a workload will create, in order, and the images that they need."""

    workload: WorkloadKey
    workload_uid: str
    trigger: Trigger
    revision: str
    """Template hash: what is asked for is superseded when it changes."""
    images: tuple[str, ...]
    """As written in the template, in the kubelet's order, without excluded containers."""
    template: PodTemplate
    """As the pods are admitted: with what is `injected`."""
    batches: tuple[Batch, ...]
    leaving: tuple[tuple[str, str], ...] = ()
    """Keys of pods that go as the new ones come, in the order in which they go; empty for a scale-out."""
    leaving_first: int = 0
    """How many of `leaving` go before the first pod comes (maxUnavailable, Recreate)."""
    leaves_in_order: bool = False
    """Whether pods leave exactly in the order of `leaving`, whatever lands where meanwhile (StatefulSets)."""
    revision_labels: tuple[tuple[str, str], ...] = ()
    """Labels that the pods get beyond the template's (pod-template-hash, once known)."""
    confidence: float = 1.0
    injected: tuple[str, ...] = ()
    """Those of `images` that no container of the workload's template has, but pods of its: a mesh's sidecar."""
    withheld: "SkipReason | None" = None
    """Why nothing new is pulled for it although its pods come; None = nothing stands against it."""

    @property
    def pods(self) -> int:
        """Pods still to come."""
        return sum(batch.pods for batch in self.batches)

    @property
    def is_fixed(self) -> bool:
        """Whether the node of every pod is certain."""
        return bool(self.batches) and all(batch.nodes for batch in self.batches)


class RejectReason(StrEnum):
    """Why a pod cannot land on a node, by the scheduler's filter that says so."""

    NODE_UNSCHEDULABLE = "NodeUnschedulable"
    """The node is cordoned."""
    NODE_NAME = "NodeName"
    """The pod names another node."""
    TAINT_TOLERATION = "TaintToleration"
    """The pod does not tolerate a taint."""
    NODE_AFFINITY = "NodeAffinity"
    """nodeSelector or required node affinity does not match."""
    NODE_PORTS = "NodePorts"
    """A host port is taken."""
    INSUFFICIENT_CPU = "InsufficientCPU"
    """Too little allocatable CPU is free."""
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    """Too little allocatable memory is free."""
    INSUFFICIENT_RESOURCE = "InsufficientResource"
    """Too little of another resource is free (ephemeral storage, devices, hugepages)."""
    TOO_MANY_PODS = "TooManyPods"
    """The node has no free pod slot."""
    VOLUME_LIMITS = "NodeVolumeLimits"
    """The node attaches no further volume of a driver."""
    VOLUME_BINDING = "VolumeBinding"
    """A bound volume's node affinity does not match."""
    VOLUME_ZONE = "VolumeZone"
    """A bound volume is in another zone or region."""
    TOPOLOGY_SPREAD = "PodTopologySpread"
    """A topology spread constraint with DoNotSchedule forbids it."""
    POD_AFFINITY = "InterPodAffinity"
    """Required pod affinity is not met, or an anti-affinity is broken."""


class CandidateNode(Struct, frozen=True):
    """A node with the probability that at least one of the demand's pods lands there."""

    name: str
    probability: float


class Candidates(Struct, frozen=True):
    """Where a demand's pods will land, likeliest node first, ties by name."""

    nodes: tuple[CandidateNode, ...]
    rejected: tuple[tuple[RejectReason, int], ...] = ()
    """Nodes that no pod of the demand can take at the start, by the first filter that rejects them."""
    predictability: float = 1.0
    """Share of the pods that two independent replays put on the same nodes, 0 to 1."""
    unplaced: int = 0
    """Pods that found no node in the replay."""


class NewNodes(Struct, frozen=True):
    """Nodes of a group that would take pods which fit nowhere, if somebody adds them."""

    label: str
    """By which the group's nodes are known, as karpenter.sh/nodepool."""
    group: str
    """Its value."""
    pods_each: int
    """Pods that one takes."""
    nodes: int
    """How many are needed if they all are of this group."""
    starting: tuple[str, ...] = ()
    """Nodes of the group that joined just now and take no pods yet: they are warmed first."""


class SkipReason(StrEnum):
    """Why a candidate node or an image is not pulled."""

    ALREADY_PRESENT = "AlreadyPresent"
    """The images are on the node, and the workload's pods may use them there."""
    PULLED_BY_POD = "PulledByPod"
    """A pod of the workload is bound there and has its images pulled already."""
    TOO_LATE = "TooLate"
    """Only pods that are created now land there: a pull ordered now would not be ahead of theirs."""
    UNSETTLED = "Unsettled"
    """Pods of the workload come first, or are just being scheduled: decided when it is known where they landed, and
    where steered ones take the room of old pods, which of these leave."""
    BEYOND_COVERAGE = "BeyondCoverage"
    """Likelier nodes reach the policy's placement.coverage already."""
    BEYOND_OVERPROVISION = "BeyondOverprovision"
    """As many nodes as the policy's placement.maxOverprovision allows are chosen already."""
    BEYOND_WASTE = "BeyondWaste"
    """It is not known well enough whether a pod comes there: more of the pulls would be in vain than the policy's
    placement.maxWaste allows."""
    UNLIKELY = "Unlikely"
    """A pod that a pull could help lands there with a probability below 5 %."""
    STEERED_ELSEWHERE = "SteeredElsewhere"
    """The pods are steered to other nodes (placement.steer)."""
    UNPREDICTABLE = "Unpredictable"
    """Replays of the scheduler disagree so much that pulling would be guessing."""
    AWAITING_READY_PODS = "AwaitingReadyPods"
    """Fewer pods of the new revision are ready than the policy's rollout.minUpdatedReadyPods asks for."""
    CANARY_UNPROVEN = "CanaryUnproven"
    """Pods of the canary are not all ready, or its analysis has not passed: its image does not spread yet."""
    UNOBSERVED = "Unobserved"
    """OpenKruise has not seen the change yet: it is not known whether it pre-downloads the images itself."""
    PULLED_BY_KRUISE = "PulledByKruise"
    """OpenKruise pre-downloads the revision's images itself."""
    NODE_LEAVING = "NodeLeaving"
    """The node is being removed."""
    NODE_NOT_READY = "NodeNotReady"
    """The node is not ready."""
    NODE_CORDONED = "NodeCordoned"
    """The node is cordoned."""
    NODE_DISK_PRESSURE = "NodeDiskPressure"
    """The node is under disk pressure: its kubelet deletes images."""
    NODE_VIRTUAL = "NodeVirtual"
    """The node is a virtual kubelet and keeps no images."""
    NODE_OPERATING_SYSTEM = "NodeOperatingSystem"
    """The node does not run Linux."""
    NODE_TAINTED = "NodeTainted"
    """A NoExecute or control-plane taint would end the puller pod."""
    PULL_POLICY_NEVER = "PullPolicyNever"
    """The container has imagePullPolicy Never."""
    INVALID_IMAGE = "InvalidImage"
    """The image reference cannot be parsed."""
    POLICY_OFF = "PolicyOff"
    """The policy that covers the workload has mode Off."""


class Skip(Struct, frozen=True):
    """A node (or image, or both) that was not chosen, and why."""

    reason: SkipReason
    workload: WorkloadKey
    node: str = ""
    image: str = ""


class PlannedNode(Struct, frozen=True):
    """A node to be warmed, in order of value; `missing` are the images not yet there, as written in the template."""

    name: str
    probability: float
    missing: tuple[str, ...]


class DemandPlan(Struct, frozen=True):
    """One demand, where it lands, what is worth pulling for it and what is not."""

    demand: Demand
    candidates: Candidates
    nodes: tuple[PlannedNode, ...]
    """Chosen nodes in order of value, warm ones (nothing missing) included: they are part of the set in force."""
    skips: tuple[Skip, ...] = ()
    shadow: bool = False
    """Planned and accounted, but not to be delivered (policy mode Shadow)."""
    new_nodes: tuple[NewNodes, ...] = ()
    """Where pods that find no node would fit."""
    steering: Steering | None = None
    """Where its pods are steered, or why they are not; None where the policy does not ask for it."""
    hold_seconds: float | None = None
    """How long what is pulled for it is held against garbage collection at most, by the policy; None: not held."""
    drawn: bool = False
    """Its pods land so because the chosen nodes draw them, once these list the images (ImageLocality)."""


class Problem(Struct, frozen=True):
    """Why a workload that asks for prewarming cannot be planned, in one line for its owner."""

    workload: WorkloadKey
    message: str


class Plan(Struct, frozen=True):
    """Everything planned on one snapshot, ordered by workload and trigger."""

    demands: tuple[DemandPlan, ...] = ()
    skips: tuple[Skip, ...] = ()
    problems: tuple[Problem, ...] = ()
    only: tuple[WorkloadKey, ...] | None = None
    """The workloads that this plan speaks for, in order; None = all: whatever it does not name is not needed."""
    later: tuple[tuple[WorkloadKey, float], ...] = ()
    """Workloads that have to be planned again though nothing changes, and when (Unix seconds)."""
