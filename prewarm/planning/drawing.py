"""Can pods be drawn to the nodes that are warmed? The scheduler likes nodes that list the image (ImageLocality).

Where nodes are equal, nobody knows which of them it takes; an image on some of them decides it. It counts from the time
at which the nodes list the image in their status, so this is of use only to pods that come later than that.
"""

from collections.abc import Callable

from msgspec.structs import replace

from prewarm.demand import far_ahead, pods_of_revision
from prewarm.model.nodes import pull_obstacle
from prewarm.placement import Choice, reachable, steerable_nodes
from prewarm.planning.landing import (
    LISTED_SECONDS,
    Landing,
    Listing,
    Scene,
    expected_images,
    first_later,
    landing,
    pull_seconds,
)
from prewarm.planning.steering import planned_before
from prewarm.planning.underway import Underway

PREDICTABLE = 0.9
"""From this share of agreement between two replays on, only the last few pods toss among some nodes."""
ASTRAY = 0.02
"""Share of the landings that may come elsewhere than where the image is to draw them."""

_NOTHING = Underway(frozenset(), frozenset(), frozenset())
"""No pulls of ours."""


def landing_or_drawn(scene: Scene, *, is_warm: Callable[[str], bool], waits: bool) -> tuple[Landing, bool]:
    """Where a demand's pods land, and whether they do so because the nodes to be warmed draw them.

    Args:
        scene: the demand and what decides about it.
        is_warm: whether a node has all the images.
        waits: whether the pods wait until the nodes list the images, however long that takes.
    """
    # Those who wait have to know whether only the pulls so far make it predictable: not all nodes may list them yet.
    ours = scene.done.ours if waits else frozenset()
    known = landing(replace(scene, done=_NOTHING), Listing(without=ours)) if ours else landing(scene)
    if _may_be_drawn(known, scene) and (waits or _comes_late_enough(known, scene)):
        nodes = _drawing(scene, is_warm)
        drawn = landing(scene, Listing(nodes, _looks(scene))) if nodes else known
        astray = sum(chance for name, chance in drawn.chances.items() if name not in nodes)
        if nodes and astray <= ASTRAY * sum(drawn.chances.values()):
            return drawn, True
    return landing(scene) if ours else known, False


def _may_be_drawn(known: Landing, scene: Scene) -> bool:
    return not scene.demand.is_fixed and known.later > 0 and known.candidates.predictability < PREDICTABLE


def _comes_late_enough(known: Landing, scene: Scene) -> bool:
    """Whether nodes that are pulled on now list the images before the first pod comes, which is known to come then."""
    first = first_later(scene.demand, scene.now)
    enough = pull_seconds(scene.demand, scene.history) + LISTED_SECONDS
    return known.settled and scene.now + enough <= first < far_ahead(scene.now)


def _looks(scene: Scene) -> int:
    """How often the scheduler looked within the time that nodes take to list an image, by the pods that it bound.

    The demand's own are left out: the next of them come when the image is to draw them.
    """
    demand, snapshot = scene.demand, scene.snapshot
    since = scene.now - LISTED_SECONDS
    own = {*demand.leaving, *(pod.key for pod in pods_of_revision(demand, snapshot)), *snapshot.puller_pods}
    return sum(
        pod.scheduled_at is not None and pod.scheduled_at > since and key not in own
        for key, pod in snapshot.pods.items()
    )


def _drawing(scene: Scene, is_warm: Callable[[str], bool]) -> frozenset[str]:
    """Nodes that the scheduler would take anyway, in one course of events; those that are warm first.

    What was ordered before stays, however draws fall now: its pull may begin at any moment.
    """
    near = reachable(scene.demand, scene.snapshot, scene.cluster, scene.rivals)
    among = frozenset(node.name for node in near.nodes if pull_obstacle(node) is None)
    ordered = planned_before(scene.demand, scene.snapshot)
    liked = scene.done.ours | ordered | {name for name in among if is_warm(name)}
    images = expected_images(scene)
    if not images:
        return frozenset()
    found = steerable_nodes(
        scene.demand, scene.snapshot, 0, Choice(among, liked), seed=scene.seed, images=images, cluster=near
    )
    return frozenset(found.every) | scene.done.ours
