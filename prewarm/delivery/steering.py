"""Which nodes carry a steering label now, and for which workloads does the admission policy add a preference?"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec import Struct

from prewarm.api.steer_label import (
    ENTRIES_NAME,
    MAX_ENTRIES,
    entry_key,
    entry_value,
    labels_in_force,
    our_labels,
)
from prewarm.delivery.planned_cache import deliverable_images
from prewarm.model.intents import CONFIG_MAPS, Apply, LabelNode
from prewarm.model.nodes import Node, pull_identity, pull_obstacle
from prewarm.model.plans import DemandPlan, Plan, Trigger
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import Steering, SteerState
from prewarm.model.workloads import WorkloadKey
from prewarm.presence import Warmth

ENTRY_SECONDS = 600.0
"""An entry that nobody renews ends after this time: without a controller, pods are soon left to the scheduler."""
RENEW_SECONDS = 300.0
"""Entries are renewed when they have less than this left."""


class Steered(Struct, frozen=True):
    """A workload whose new pods are steered, and what its nodes have to hold before they are labelled."""

    workload: WorkloadKey
    to: Steering
    images: tuple[str, ...]
    identity: str
    lasting: bool = False
    """Whether the demand has no end of its own (a scale-out that may come): labels then follow its nodes."""

    def is_warm(self, node: Node, warmth: Warmth) -> bool:
        """Whether pods may be sent there: evidence shows all its images, and nothing stands against the node."""
        return pull_obstacle(node) is None and all(
            warmth.is_warm(node.name, image, pull_identity=self.identity) for image in self.images
        )


def steered_by(plan: Plan) -> Mapping[WorkloadKey, Steered]:
    """What a plan steers, at most MAX_ENTRIES workloads, the first by name."""
    found: dict[WorkloadKey, Steered] = {}
    for entry in plan.demands:
        to = entry.steering
        if to is not None and to.state is SteerState.STEERED and not entry.shadow:
            found[entry.demand.workload] = _steered(entry, to)
    return dict(sorted(found.items())[:MAX_ENTRIES])


def _steered(entry: DemandPlan, to: Steering) -> Steered:
    shape = entry.demand.template.shape
    identity = pull_identity(entry.demand.workload.namespace, shape.service_account, shape.pull_secrets)
    lasting = entry.demand.trigger is Trigger.SCALE_OUT
    return Steered(entry.demand.workload, to, deliverable_images(entry), identity, lasting)


def after(known: Mapping[WorkloadKey, Steered], plan: Plan) -> Mapping[WorkloadKey, Steered]:
    """What is steered once a plan was made that may speak for some workloads only."""
    if plan.only is None:
        return steered_by(plan)
    spoken_for = frozenset(plan.only)
    kept = {key: one for key, one in known.items() if key not in spoken_for}
    return dict(sorted({**kept, **steered_by(plan)}.items())[:MAX_ENTRIES])


def labels_wanted(
    steered: Iterable[Steered], snapshot: ClusterSnapshot, warmth: Warmth, carrying: Collection[str] | None = None
) -> Mapping[str, Mapping[str, str]]:
    """Labels by node, as they should be now.

    A workload's first nodes are labelled once enough are warm that its next pods do not crowd them. From then on each
    is labelled as it becomes warm, and stays so while it is warm, until the demand is over; for one that has no end,
    until its pods are expected elsewhere.

    `carrying`: the nodes with labels of ours, if they are known already.
    """
    carrying = carriers(snapshot) if carrying is None else carrying
    wanted: dict[str, dict[str, str]] = {}
    for one in steered:
        key, value = one.to.label, one.to.value
        labelled = [name for name in carrying if snapshot.nodes[name].labels.get(key) == value]
        names = {*one.to.nodes, *(() if one.lasting else labelled)}
        warm = {name for name in names if name in snapshot.nodes and one.is_warm(snapshot.nodes[name], warmth)}
        begun = not warm.isdisjoint(labelled)
        if begun or len(warm.intersection(one.to.nodes)) >= max(1, one.to.needed):
            for name in warm:
                wanted.setdefault(name, {})[key] = value
    return wanted


def carriers(snapshot: ClusterSnapshot) -> frozenset[str]:
    """Nodes with labels of ours."""
    return frozenset(name for name, node in snapshot.nodes.items() if our_labels(node.labels))


def label_changes(
    wanted: Mapping[str, Mapping[str, str]], snapshot: ClusterSnapshot, carrying: Collection[str] | None = None
) -> Iterator[LabelNode]:
    """What to write so that nodes carry the wanted labels of ours and no others.

    `carrying`: the nodes with labels of ours, if they are known already.
    """
    for name in sorted({*wanted, *(carriers(snapshot) if carrying is None else carrying)}):
        node = snapshot.nodes[name]
        have, want = our_labels(node.labels), wanted.get(name, {})
        if have != want and node.deleted_at is None:
            changes = {**dict.fromkeys(have.keys() - want.keys()), **want}
            yield LabelNode(name, tuple(sorted(changes.items(), key=lambda pair: pair[0])), uid=node.uid)


def labels_that_stay(data: Mapping[str, str], snapshot: ClusterSnapshot) -> Mapping[str, Mapping[str, str]]:
    """Labels by node of which an entry in force speaks; a controller that is alive renews the entries of the others."""
    in_force = labels_in_force(data, snapshot.taken_at)
    return {
        name: {key: value for key, value in our_labels(snapshot.nodes[name].labels).items() if (key, value) in in_force}
        for name in carriers(snapshot)
    }


def entries(steered: Iterable[Steered], namespace: str, until: float) -> Apply:
    """The ConfigMap by which the admission policy knows whose pods prefer what."""
    data: dict[str, str] = {}
    for one in steered:
        key = entry_key(one.workload)
        if key is not None:
            data[key] = entry_value(one.to.label, one.to.value, until)
    manifest = {"metadata": {"name": ENTRIES_NAME, "namespace": namespace}, "data": data}
    return Apply(CONFIG_MAPS, namespace, ENTRIES_NAME, manifest)
