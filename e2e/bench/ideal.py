"""How soon emulated kubelets could be done if orders reached them at once: the ideal that the settings allow."""

from collections import deque
from collections.abc import Iterable, Sequence

from e2e.emulator.nodes import NodePlan
from prewarm.model.image_caches import ImageCache
from prewarm.model.pods import ContainerPhase
from prewarm.puller.pods import create, order_for
from prewarm.puller.settings import PullerSettings
from prewarm.simulation.fleet import Fleet
from prewarm.simulation.manifests import pod_from_manifest
from prewarm.simulation.outputs import PodStatusChanged
from prewarm.simulation.registry import Registries
from prewarm.simulation.specs import PodSpec


def seconds(
    plans: Iterable[NodePlan], registries: Registries, pods: Sequence[tuple[str, ...]], at_once: int, per_node: int
) -> float:
    """Seconds until every node has pulled these images.

    The same kubelet model as in the measurement, without API server and controller: a place that becomes free is
    taken in the same moment.

    Args:
        plans: the nodes.
        registries: what they pull from.
        pods: the images of each pod that every node gets.
        at_once: pods at work at once in the cluster.
        per_node: the same for one node.
    """
    fleet = Fleet(registries)
    names = [profile.name for plan in plans for profile in plan.profiles()]
    for plan in plans:
        for profile in plan.profiles():
            fleet.add_node(profile)
    waiting = deque(_spec(name, images, number) for images in pods for number, name in enumerate(names))
    busy = dict.fromkeys(names, 0)
    under_way: dict[str, PodSpec] = {}
    while waiting or under_way:
        for _ in range(len(waiting)):
            if len(under_way) >= at_once:
                break
            spec = waiting.popleft()
            if busy[spec.node_name] >= per_node:
                waiting.append(spec)
                continue
            busy[spec.node_name] += 1
            under_way[spec.uid] = spec
            fleet.pod_bound(spec)
        wakeup = fleet.next_wakeup()
        if wakeup is None:
            raise RuntimeError(f"{len(under_way)} pods will never end")
        for output in fleet.advance(wakeup):
            if isinstance(output, PodStatusChanged) and _has_pulled(output):
                done = under_way.pop(output.uid, None)
                if done is not None:
                    busy[done.node_name] -= 1
    return fleet.now


def _has_pulled(output: PodStatusChanged) -> bool:
    pulled = [status for status in output.status.containers if status.name.startswith("pull-")]
    return bool(pulled) and all(status.phase is ContainerPhase.TERMINATED for status in pulled)


def _spec(node: str, images: tuple[str, ...], number: int) -> PodSpec:
    cache = ImageCache("bench", "ideal", uid="ideal")
    order = order_for(cache, node, node, images, 1, 0.0)
    manifest = create(order, cache, PullerSettings()).manifest
    metadata = manifest["metadata"]
    assert isinstance(metadata, dict)
    return pod_from_manifest({**manifest, "metadata": {**metadata, "uid": f"{node}/{number}/{images[0]}"}})
