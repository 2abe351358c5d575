from msgspec.structs import replace

from e2e.bench.budgets import Peaks
from prewarm.model.pods import ContainerPhase, ContainerShape, ContainerStatus, Pod, PodPhase, PodShape


def puller(uid: str, node: str, *images: str) -> Pod:
    shape = PodShape(containers=tuple(ContainerShape(f"pull-{n}", image) for n, image in enumerate(images)))
    return Pod("shop", uid, uid, node_name=node, shape=shape)


def test_pulls_count_from_their_pods_creation_to_its_end() -> None:
    peaks = Peaks()
    first, second = puller("a", "n1", "one.example/app:v1"), puller("b", "n2", "one.example/app:v1")
    for pod in (first, first, replace(first, phase=PodPhase.SUCCEEDED), second):
        peaks.seen(pod)
    assert (peaks.cluster, peaks.node, peaks.registry, peaks.pulls) == (1, 1, 1, 2)


def test_the_most_at_once_is_kept_when_it_is_over() -> None:
    peaks = Peaks()
    peaks.seen(puller("a", "n1", "one.example/app:v1"))
    peaks.seen(puller("b", "n1", "two.example/app:v1"))
    peaks.seen(puller("c", "n2", "two.example/app:v1"))
    for uid in ("a", "b", "c", "c"):
        peaks.gone(uid)
    peaks.seen(puller("d", "n3", "one.example/app:v1"))
    assert (peaks.cluster, peaks.node, peaks.registry) == (3, 2, 2)


def test_a_pull_is_over_once_the_container_with_its_image_has_started() -> None:
    peaks = Peaks()
    one = puller("a", "n1", "one.example/app:v1", "one.example/proxy:v1")
    waiting, running = ContainerStatus("pull-0"), ContainerStatus("pull-1", ContainerPhase.RUNNING)
    ended = ContainerStatus("pull-0", ContainerPhase.TERMINATED)
    for containers in ((waiting,), (waiting, running), (ended, running), (waiting, running)):
        peaks.seen(replace(one, containers=containers))
        if ended in containers:
            peaks.seen(puller("b", "n1", "one.example/app:v1"))
    assert (peaks.cluster, peaks.node, peaks.registry, peaks.pulls) == (1, 1, 2, 3)
    peaks.seen(puller("c", "n1", "one.example/app:v1"))
    assert (peaks.cluster, peaks.node) == (2, 2)
