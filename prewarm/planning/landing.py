"""Where do a demand's pods land, and for which of those landings can a pull still be ahead?"""

from collections.abc import Mapping
from itertools import takewhile

from msgspec import Struct
from msgspec.structs import replace

from prewarm.demand import pods_of_revision
from prewarm.history import History
from prewarm.model.plans import Batch, CandidateNode, Candidates, Demand, NewNodes, RejectReason
from prewarm.model.pods import Pod
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.placement import (
    ClusterArrays,
    ExpectedImage,
    is_found,
    new_nodes,
    place,
    place_both_ways,
    place_in_turn,
    reachable,
)
from prewarm.planning.underway import Underway

IMMINENT_SECONDS = 1.0
"""Pods that come within this time are on their nodes before a puller pod could be: nothing is pulled for them."""
SCHEDULING_SECONDS = 5.0
"""A pod without a node for longer than this is not about to get one."""
REPLAYS, EARLY_REPLAYS = 32, 16
"""Courses of events that are played; the second number while pods are just being scheduled, on more than WIDE nodes:
there a replay takes longer, and once they have landed nodes are chosen again."""
WIDE = 256
REPORT_SECONDS, LISTED_SECONDS = 20.0, 40.0
"""From an image's arrival until its node lists it, by which the scheduler scores: 2 to 38 s on real kubelets, so half
of them list it after the first time, and all after the second."""


class Listing(Struct, frozen=True):
    """Which nodes list a demand's images by the time its pods are scheduled, whatever is known of our pulls."""

    nodes: frozenset[str] = frozenset()
    looks: int = 0
    """How often the scheduler looks while they come to list them: see ExpectedImage."""
    without: frozenset[str] = frozenset()
    """Nodes that do not, though they may by now."""


NOBODY = Listing()


class Scene(Struct, frozen=True):
    """A demand and all that decides where its pods land."""

    demand: Demand
    snapshot: ClusterSnapshot
    history: History
    """Sizes of images and times of pulls."""
    done: Underway
    """Our pulls of the demand's images."""
    cluster: ClusterArrays
    """The nodes of the snapshot."""
    seed: int
    """Of the replays."""
    rivals: tuple[Demand, ...] = ()
    """What other workloads bring meanwhile."""

    @property
    def now(self) -> float:
        """Unix seconds of the snapshot."""
        return self.snapshot.taken_at


class Landing(Struct, frozen=True):
    """What the replays of one demand say."""

    candidates: Candidates
    """For all pods to come."""
    chances: Mapping[str, float]
    """By node, that a pod lands there which a pull ordered now can help."""
    certain: Mapping[str, float]
    """By node, the least chance that any pod of the demand lands there, over what is not known yet."""
    later: int
    """Pods that a pull can help."""
    settled: bool
    """Whether no pods of the demand are coming at once or being scheduled just now."""
    new_nodes: tuple[NewNodes, ...] = ()
    """Where pods that fit nowhere would fit."""
    replays: int = REPLAYS
    """From how many the chances are counted."""
    awaited: frozenset[str] = frozenset()
    """Of the nodes in `chances`, those where the step before shows whether pods land there, in time for a pull."""
    first: frozenset[str] = frozenset()
    """Of them, those that a held rollout waits for in any case."""
    short: bool = False
    """Whether pods of a held rollout have room only once old ones leave of which nobody knows yet who goes."""


class _Play:
    """Replays of one demand on one snapshot, which draw the same."""

    def __init__(self, scene: Scene, listing: Listing) -> None:
        self._snapshot = scene.snapshot
        self._cluster = reachable(scene.demand, scene.snapshot, scene.cluster, scene.rivals)
        self._images = expected_images(scene, listing)
        self._seed = scene.seed
        self._rivals = scene.rivals

    @property
    def early_replays(self) -> int:
        """How many are played both ways."""
        return EARLY_REPLAYS if self._cluster.count > WIDE else REPLAYS

    def __call__(self, demand: Demand) -> Candidates:
        return place(
            demand, self._snapshot, seed=self._seed, images=self._images, cluster=self._cluster, rivals=self._rivals
        )

    def in_turn(self, demand: Demand, first: int) -> tuple[Candidates, Candidates]:
        """The first batches alone, and all."""
        return place_in_turn(
            demand,
            self._snapshot,
            first,
            seed=self._seed,
            images=self._images,
            cluster=self._cluster,
            rivals=self._rivals,
        )

    def both_ways(self, demand: Demand, first: int, leaving: int) -> tuple[Candidates, Candidates, Candidates]:
        """The first batches alone, and all, if only so many old pods leave; and all if every one does."""
        return place_both_ways(
            demand,
            self._snapshot,
            first,
            leaving,
            replays=self.early_replays,
            seed=self._seed,
            images=self._images,
            cluster=self._cluster,
            rivals=self._rivals,
        )


def landing(scene: Scene, listing: Listing = NOBODY) -> Landing:
    """Replay a demand, and what others bring meanwhile, if the nodes `listing` its images do so by then.

    Where a pod that comes at once lands, it pulls the image itself: nodes that it is certain to take are of no use.
    While such pods have no node yet, their landing also decides which old pods go next (those that share a node with
    a new one): certain are only nodes that some pod takes either way. Whichever it is, its image is not pulled in vain.
    """
    demand, snapshot = scene.demand, scene.snapshot
    if demand.is_fixed:
        return _fixed(demand, snapshot)
    named = demand.template.shape.node_name
    if named:
        return _named(demand, named, snapshot)
    return _with_new_nodes(_on_nodes(scene, listing), demand, snapshot)


def _on_nodes(scene: Scene, listing: Listing) -> Landing:
    """On the nodes as they are, where the scheduler puts the pods."""
    demand, snapshot = scene.demand, scene.snapshot
    imminent = coming_at_once(demand, snapshot.taken_at)
    later = demand.pods - sum(batch.pods for batch in imminent)
    settled = not imminent and not _being_scheduled(demand, snapshot)
    if not demand.pods:
        return Landing(Candidates(()), {}, {}, 0, settled)
    play = _Play(scene, listing)
    if not later:
        return Landing(play(demand), {}, {}, 0, settled)
    if settled:
        candidates = play(demand)
        return Landing(candidates, _after(candidates, Candidates(())), _probabilities(candidates), later, settled)
    replays = REPLAYS
    leaving = sum(batch.leaving for batch in imminent)
    if leaving < len(demand.leaving):
        first, fewer_gone, candidates = play.both_ways(demand, len(imminent), leaving)
        replays = play.early_replays
    else:
        first, fewer_gone = play.in_turn(demand, len(imminent)) if imminent else (Candidates(()), play(demand))
        candidates = fewer_gone
    least = _probabilities(fewer_gone)
    certain = {name: min(chance, least.get(name, 0.0)) for name, chance in _probabilities(candidates).items()}
    return Landing(candidates, _after(candidates, first), certain, later, settled, replays=replays)


def first_alone(scene: Scene, batches: int) -> Mapping[str, float]:
    """Chance by node that a pod of the first batches lands there."""
    return _probabilities(_Play(scene, NOBODY).in_turn(scene.demand, batches)[0])


def _with_new_nodes(where: Landing, demand: Demand, snapshot: ClusterSnapshot) -> Landing:
    """Pods that fit nowhere, and those that wait in vain already, will be on the nodes that are starting up now.

    A pull there is ahead of them: until a node is ready and has lost the taints of its start, no pod is bound to it.
    """
    stuck = where.candidates.unplaced + sum(_waits_in_vain(pod, snapshot) for pod in pods_of_revision(demand, snapshot))
    if not stuck:
        return where
    expected = new_nodes(demand, snapshot, stuck)
    known = {node.name for node in where.candidates.nodes}
    fresh = [name for group in expected for name in group.starting[: group.nodes] if name not in known]
    certain = dict.fromkeys(fresh, 1.0)
    nodes = tuple(CandidateNode(name, 1.0) for name in fresh)
    return replace(
        where,
        candidates=replace(where.candidates, nodes=(*nodes, *where.candidates.nodes)),
        chances={**where.chances, **certain},
        certain={**where.certain, **certain},
        later=where.later + len(fresh),
        new_nodes=expected,
    )


def _waits_in_vain(pod: Pod, snapshot: ClusterSnapshot) -> bool:
    return (
        not pod.node_name
        and not pod.shape.gated
        and pod.deleted_at is None
        and (pod.unschedulable or snapshot.taken_at - pod.created_at >= SCHEDULING_SECONDS)
    )


def _named(demand: Demand, node: str, snapshot: ClusterSnapshot) -> Landing:
    """The template names its node: the kubelet takes the pods, and no scheduler looks at them."""
    later = demand.pods - sum(batch.pods for batch in coming_at_once(demand, snapshot.taken_at))
    others = len(snapshot.nodes) - (node in snapshot.nodes)
    rejected = ((RejectReason.NODE_NAME, others),) if others else ()
    chances = {node: 1.0} if later else {}
    return Landing(Candidates((CandidateNode(node, 1.0),), rejected), chances, chances, later, settled=True)


def _fixed(demand: Demand, snapshot: ClusterSnapshot) -> Landing:
    """Every pod's node is known: no scheduler decides, and which of them comes next does not matter to the set."""
    chances = {name: 1.0 for batch in demand.batches for name in batch.nodes}
    nodes = tuple(CandidateNode(name, 1.0) for name in sorted(chances))
    by_volumes = all(batch.claims for batch in demand.batches)
    others = len(snapshot.nodes) - sum(name in snapshot.nodes for name in chances)
    rejected = ((RejectReason.VOLUME_BINDING, others),) if by_volumes and others else ()
    return Landing(Candidates(nodes, rejected), chances, chances, demand.pods, settled=True)


def _probabilities(candidates: Candidates) -> dict[str, float]:
    return {node.name: node.probability for node in candidates.nodes}


def _after(all_pods: Candidates, first: Candidates) -> dict[str, float]:
    """Chance by node that only later pods land there.

    Both replay the same choices: "any pod" less "any of the first" is the share of replays with later ones alone.
    """
    taken = _probabilities(first)
    chances = {node.name: node.probability - taken.get(node.name, 0.0) for node in all_pods.nodes}
    return {name: chance for name, chance in chances.items() if chance > 1e-9}


def coming_at_once(demand: Demand, now: float) -> tuple[Batch, ...]:
    """The first batches, whose pods come too soon for a pull to help."""
    return tuple(takewhile(lambda batch: batch.needed_at <= now + IMMINENT_SECONDS, demand.batches))


def first_later(demand: Demand, now: float) -> float:
    """When the first pod comes that a pull can help; `now` if none does."""
    return min((batch.needed_at for batch in demand.batches if batch.needed_at > now + IMMINENT_SECONDS), default=now)


def pull_seconds(demand: Demand, history: History) -> float:
    """How long a node takes for all images of a demand."""
    return sum(history.expected_pull_seconds(image) for image in demand.images)


def expected_images(scene: Scene, listing: Listing = NOBODY) -> dict[str, ExpectedImage]:
    """Images of the demand as nodes will list them when its later pods are scheduled: those `listing` at any rate.

    ImageLocality then draws pods to nodes that pulled for a pod of the same revision or for us.
    """
    demand, snapshot, history, done = scene.demand, scene.snapshot, scene.history, scene.done
    pull = pull_seconds(demand, history)
    at = first_later(demand, snapshot.taken_at)
    arrivals = [(pod.node_name, pod.created_at + pull) for pod in pods_of_revision(demand, snapshot)]
    arrivals += [(name, since + (pull if name in done.pulling else 0.0)) for name, since in done.since.items()]
    nodes = listing.nodes | {name for name, arrived in arrivals if name and arrived + REPORT_SECONDS <= at}
    sizes = ((image, history.image_size(image)) for image in demand.images if is_found(image))
    return {
        image: ExpectedImage(size, nodes, listing.looks, listing.without) for image, size in sizes if size is not None
    }


def _being_scheduled(demand: Demand, snapshot: ClusterSnapshot) -> bool:
    """Whether pods of the wanted revision are about to get a node; those that found none for a while do not count."""
    return any(
        not pod.node_name
        and not pod.shape.gated
        and not pod.unschedulable
        and snapshot.taken_at - pod.created_at < SCHEDULING_SECONDS
        for pod in pods_of_revision(demand, snapshot)
    )
