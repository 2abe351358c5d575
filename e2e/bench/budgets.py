"""How many pulls ran at once, by the API server's own order of events: were the budgets kept at every instant?"""

from collections import Counter

from prewarm.model.images import registry_of
from prewarm.model.pods import ContainerPhase, Pod
from prewarm.presence.evidence import pulled_images


class Peaks:
    """Follows puller pods from their creation until all of their images are there or the pod has ended.

    A container that has started has its image; its pod takes another second to end. The controller learns of either
    after the API server does, so what is counted here is never more than what it saw.
    """

    def __init__(self) -> None:
        self.cluster = 0
        """Most pulls at once."""
        self.node = 0
        """Most on one node."""
        self.registry = 0
        """Most from one registry."""
        self.pulls = 0
        """Images ordered in all."""
        self._under_way: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._over: set[str] = set()
        self._nodes: Counter[str] = Counter()
        self._registries: Counter[str] = Counter()

    def seen(self, pod: Pod) -> None:
        """Take note of a puller pod as it is now."""
        if pod.finished or _has_all(pod):
            self.gone(pod.uid)
        elif pod.uid not in self._under_way and pod.uid not in self._over:
            registries = tuple(registry_of(image) for _, image in pulled_images(pod))
            self._under_way[pod.uid] = (pod.node_name, registries)
            self._nodes[pod.node_name] += 1
            self._registries.update(registries)
            self.pulls += len(registries)
            self.cluster = max(self.cluster, len(self._under_way))
            self.node = max(self.node, self._nodes[pod.node_name])
            self.registry = max(self.registry, max(self._registries.values(), default=0))

    def gone(self, uid: str) -> None:
        """Take note of the end of a puller pod's pulls."""
        self._over.add(uid)
        ended = self._under_way.pop(uid, None)
        if ended is not None:
            node, registries = ended
            self._nodes[node] -= 1
            self._registries.subtract(registries)


def _has_all(pod: Pod) -> bool:
    """Whether every container that stands for an image has started at some time."""
    started = {status.name for status in pod.containers if status.phase is not ContainerPhase.WAITING}
    return started.issuperset(name for name, _ in pulled_images(pod))
