"""Is an image warm? Exact identity, every kind of evidence, credentials."""

import pytest
from msgspec.structs import replace

from prewarm.model.images import PullPolicy
from prewarm.model.nodes import Evidence, Node, NodeImages, NodeImageStatus, PresentImage, pull_identity
from prewarm.model.pods import (
    ContainerPhase,
    ContainerShape,
    ContainerStatus,
    OwnerReference,
    Pod,
    PodPhase,
    PodShape,
)
from prewarm.presence import WarmthMemory, warmth
from tests.support.clusters import cluster, node

DIGEST = f"sha256:{'a' * 64}"
OTHER_DIGEST = f"sha256:{'b' * 64}"


def listing(*names: str, size: int = 100) -> Node:
    return replace(node("n1"), images=(NodeImageStatus(names, size),))


def record(*images: PresentImage, boot_id: str = "boot-n1", uid: str = "uid-n1") -> NodeImages:
    return NodeImages("n1", uid, boot_id, images)


def running(image: str, *, status_image: str = "", secrets: tuple[str, ...] = (), namespace: str = "shop") -> Pod:
    status = ContainerStatus(
        "c", ContainerPhase.RUNNING, image=status_image, image_id=f"registry.test/web@{DIGEST}", started_at=5.0
    )
    shape = PodShape((ContainerShape("c", image),), pull_secrets=secrets)
    return Pod(namespace, "p", "u", node_name="n1", shape=shape, phase=PodPhase.RUNNING, containers=(status,))


@pytest.mark.parametrize(
    ("listed", "asked", "warm"),
    [
        ("docker.io/library/nginx:1.25", "nginx:1.25", True),
        ("docker.io/library/nginx:1.25", "docker.io/nginx:1.25", True),
        ("docker.io/library/nginx:latest", "nginx", True),
        ("registry.test/app:1.21", "registry.test/app:1.2", False),
        ("other.test/nginx:1.25", "nginx:1.25", False),
        ("registry.test/app:latest-foo", "registry.test/app", False),
        (f"registry.test/app@{DIGEST}", f"registry.test/app@{DIGEST}", True),
        (f"registry.test/app@{DIGEST}", f"registry.test/app:v1@{DIGEST}", True),
        (f"registry.test/app@{DIGEST}", f"registry.test/app:v1@{OTHER_DIGEST}", False),
        (f"registry.test/app@{DIGEST}", "registry.test/app:v1", False),
        ("host.test:5000/app:v1", "host.test:5000/app", False),
    ],
)
def test_identity_is_exact(listed: str, asked: str, *, warm: bool) -> None:
    assert warmth(cluster([listing(listed)])).is_warm("n1", asked) is warm


def test_every_listed_name_counts() -> None:
    known = warmth(
        cluster([listing(f"registry.test/app@{DIGEST}", "registry.test/app:v1", "registry.test/app:stable")])
    )
    assert known.is_warm("n1", "registry.test/app:v1")
    assert known.is_warm("n1", "registry.test/app:stable")
    assert known.is_warm("n1", "registry.test/app:v1", pull_policy=PullPolicy.ALWAYS)
    assert not known.is_warm("n2", "registry.test/app:v1")


@pytest.mark.parametrize(
    ("boot_id", "uid", "warm"), [("boot-n1", "uid-n1", True), ("x", "uid-n1", False), ("boot-n1", "x", False)]
)
def test_record_is_void_after_a_boot_or_for_another_node(boot_id: str, uid: str, *, warm: bool) -> None:
    entry = PresentImage("registry.test/app:v1", Evidence.OUR_PULL, 1.0)
    known = warmth(cluster([node("n1")], node_images=[record(entry, boot_id=boot_id, uid=uid)]))
    assert known.is_warm("n1", "registry.test/app:v1") is warm


def test_recorded_image_that_left_the_nodes_list_is_gone() -> None:
    entry = PresentImage("registry.test/app:v1", Evidence.OUR_PULL, 1.0, size_bytes=500)
    known = warmth(cluster([listing("registry.test/other:v1")], node_images=[record(entry)]))
    assert not known.is_warm("n1", "registry.test/app:v1")
    never_listed = replace(entry, size_bytes=0)
    assert warmth(cluster([listing("x:v1")], node_images=[record(never_listed)])).is_warm("n1", entry.image)


def test_full_list_says_nothing_about_small_images() -> None:
    many = tuple(NodeImageStatus((f"registry.test/big{index}:v1",), 1000 + index) for index in range(50))
    full = replace(node("n1"), images=many)
    small = PresentImage("registry.test/small:v1", Evidence.OUR_PULL, 1.0, size_bytes=10)
    large = PresentImage("registry.test/large:v1", Evidence.OUR_PULL, 1.0, size_bytes=10_000)
    known = warmth(cluster([full], node_images=[record(small, large)]))
    assert known.is_warm("n1", small.image)
    assert not known.is_warm("n1", large.image)


def test_list_of_a_silent_node_takes_nothing_back() -> None:
    entry = PresentImage("registry.test/app:v1", Evidence.OUR_PULL, 1.0, size_bytes=500)
    silent = replace(listing("registry.test/other:v1"), ready=False)
    assert warmth(cluster([silent], node_images=[record(entry)])).is_warm("n1", entry.image)


def test_running_container_proves_what_its_spec_asked_for() -> None:
    known = warmth(cluster([node("n1")], [running("registry.test/web:v1")]))
    assert known.is_warm("n1", "registry.test/web:v1")
    assert known.is_warm("n1", f"registry.test/web@{DIGEST}")


def test_image_changed_in_place_is_not_there_before_the_container_runs_it() -> None:
    known = warmth(cluster([node("n1")], [running("registry.test/web:v2", status_image="registry.test/web:v1")]))
    assert known.is_warm("n1", "registry.test/web:v1")
    assert not known.is_warm("n1", "registry.test/web:v2")


def test_container_asked_for_by_digest_shows_the_config_digest() -> None:
    image = f"registry.test/web@{DIGEST}"
    assert warmth(cluster([node("n1")], [running(image, status_image=f"sha256:{'c' * 64}")])).is_warm("n1", image)


@pytest.mark.parametrize(
    ("phase", "reason", "warm"),
    [
        (ContainerPhase.WAITING, "ContainerCreating", False),
        (ContainerPhase.WAITING, "ImagePullBackOff", False),
        (ContainerPhase.WAITING, "CreateContainerError", True),
        (ContainerPhase.TERMINATED, "Error", True),
        (ContainerPhase.TERMINATED, "ContainerStatusUnknown", False),
    ],
)
def test_what_a_containers_state_proves(phase: ContainerPhase, reason: str, *, warm: bool) -> None:
    pod = running("registry.test/web:v1")
    pod = replace(pod, containers=(ContainerStatus("c", phase, reason=reason),))
    assert warmth(cluster([node("n1")], [pod])).is_warm("n1", "registry.test/web:v1") is warm


SECRET = pull_identity("shop", "", ("regcred",))


@pytest.mark.parametrize(
    ("pods", "asking", "warm"),
    [
        ([running("registry.test/web:v1", secrets=("regcred",))], SECRET, True),
        ([running("registry.test/web:v1", secrets=("regcred",))], "", False),
        ([running("registry.test/web:v1", secrets=("regcred",), namespace="other")], SECRET, False),
        ([running("registry.test/web:v1")], SECRET, True),
        ([running("registry.test/web:v1")], "", True),
    ],
)
def test_credentials(pods: list[Pod], asking: str, *, warm: bool) -> None:
    listed = listing("registry.test/web:v1")
    assert warmth(cluster([listed], pods)).is_warm("n1", "registry.test/web:v1", pull_identity=asking) is warm


def test_image_of_which_only_the_list_speaks_is_everybodys() -> None:
    known = warmth(cluster([listing("registry.test/web:v1")]))
    assert known.is_warm("n1", "registry.test/web:v1", pull_identity=SECRET)


def test_finished_puller_pod_is_evidence_before_any_record() -> None:
    status = ContainerStatus(
        "pull-0", ContainerPhase.TERMINATED, image_id=f"registry.test/web@{DIGEST}", exit_code=0, started_at=9.0
    )
    pod = Pod(
        "shop",
        "warm-pull-1",
        "u",
        node_name="n1",
        labels={"prewarm.dev/puller": "true"},
        owner=OwnerReference("ImageCache", "warm", "uid-warm"),
        shape=PodShape((ContainerShape("pull-0", "registry.test/web:v1"),), pull_secrets=("regcred",)),
        phase=PodPhase.SUCCEEDED,
        containers=(status,),
    )
    known = warmth(cluster([node("n1")], [pod]))
    assert known.is_warm("n1", "registry.test/web:v1", pull_identity=SECRET)
    pull = known.our_pulls("n1", "registry.test/web:v1")[0]
    assert (pull.evidence, pull.since, pull.cache, pull.digest) == (Evidence.OUR_PULL, 9.0, "shop/warm", DIGEST)


def test_memory_reads_changed_nodes_only_and_answers_the_same() -> None:
    memory = WarmthMemory()
    before = cluster([listing("registry.test/web:v1"), node("n2")])
    first = warmth(before, memory)
    assert first.is_warm("n1", "registry.test/web:v1")
    assert warmth(replace(before, taken_at=2000.0), memory).names("n1") is first.names("n1")
    changed = replace(before, nodes={**before.nodes, "n1": listing("registry.test/web:v2")})
    again = warmth(changed, memory)
    assert not again.is_warm("n1", "registry.test/web:v1")
    assert again.is_warm("n1", "registry.test/web:v2")
