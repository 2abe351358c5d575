"""What is remembered of a node's images, and that nothing is written twice."""

from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.nodes import Evidence, FailedPull, Node, NodeImages, NodeImageStatus, PresentImage
from prewarm.model.pods import (
    ContainerKind,
    ContainerPhase,
    ContainerShape,
    ContainerStatus,
    OwnerReference,
    Pod,
    PodPhase,
    PodShape,
)
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence import MAX_RECORDED_IMAGES, forgotten, observe
from tests.support.clusters import cluster, node

APP = "registry.test/app:v1"
DIGEST = f"sha256:{'a' * 64}"
CACHE = ImageCache("shop", "warm", uid="uid-warm", lists=(ImageList((APP,)),))


def puller(started_at: float = 20.0, image: str = APP, secrets: tuple[str, ...] = ()) -> Pod:
    shapes = (ContainerShape("helper", "h:1", kind=ContainerKind.INIT), ContainerShape("pull-0", image))
    return Pod(
        "shop",
        f"warm-pull-{started_at:g}",
        f"u{started_at:g}",
        node_name="n1",
        labels={"prewarm.dev/puller": "true"},
        owner=OwnerReference("ImageCache", "warm", "uid-warm"),
        shape=PodShape(shapes, pull_secrets=secrets),
        phase=PodPhase.SUCCEEDED,
        created_at=10.0,
        containers=(
            ContainerStatus("helper", ContainerPhase.TERMINATED, exit_code=0, finished_at=11.0, init=True),
            ContainerStatus(
                "pull-0",
                ContainerPhase.TERMINATED,
                exit_code=0,
                started_at=started_at,
                finished_at=started_at,
                image_id=f"registry.test/app@{DIGEST}",
            ),
        ),
    )


def user(started_at: float) -> Pod:
    status = ContainerStatus("c", ContainerPhase.RUNNING, started_at=started_at)
    shape = PodShape((ContainerShape("c", APP),))
    return Pod("shop", "web", "u-web", node_name="n1", shape=shape, phase=PodPhase.RUNNING, containers=(status,))


def listing(size: int, *names: str) -> Node:
    return replace(node("n1"), images=(NodeImageStatus(names, size),))


def only(snapshot: ClusterSnapshot) -> NodeImages:
    (found,) = observe(snapshot)
    return found


def test_our_pull_is_recorded_with_what_its_pod_says() -> None:
    found = only(cluster([node("n1")], [puller()], image_caches=[CACHE]))
    assert (found.node_name, found.node_uid, found.boot_id) == ("n1", "uid-n1", "boot-n1")
    assert found.images == (
        PresentImage(APP, Evidence.OUR_PULL, 20.0, DIGEST, 0, "shop/warm", pull_seconds=9.0, pull_identity=""),
    )


def test_size_is_learnt_from_the_nodes_list_and_then_nothing_is_written_any_more() -> None:
    pods = [puller()]
    first = only(cluster([node("n1")], pods, image_caches=[CACHE]))
    listed = listing(500, f"registry.test/app@{DIGEST}", APP)
    second = only(cluster([listed], image_caches=[CACHE], node_images=[first]))
    assert second.images[0].size_bytes == 500
    stored = replace(second, resource_version="17")
    assert observe(cluster([listed], image_caches=[CACHE], node_images=[stored], now=9999.0)) == ()


def test_first_use_is_noted_once() -> None:
    first = only(cluster([node("n1")], [puller()], image_caches=[CACHE]))
    second = only(cluster([node("n1")], [user(30.0)], image_caches=[CACHE], node_images=[first]))
    assert second.images[0].used_at == 30.0
    assert observe(cluster([node("n1")], [user(60.0)], image_caches=[CACHE], node_images=[second])) == ()


def test_use_before_the_pull_is_none_of_it() -> None:
    first = only(cluster([node("n1")], [puller()], image_caches=[CACHE]))
    assert observe(cluster([node("n1")], [user(5.0)], image_caches=[CACHE], node_images=[first])) == ()


def test_what_others_brought_is_recorded_only_where_it_is_asked_for() -> None:
    listed = listing(500, APP)
    assert observe(cluster([listed], [user(5.0)])) == ()
    assert only(cluster([listed], image_caches=[CACHE])).images[0].evidence is Evidence.NODE_STATUS
    assert only(cluster([node("n1")], [user(5.0)], image_caches=[CACHE])).images[0].evidence is Evidence.RUNNING_POD
    elsewhere = replace(CACHE, lists=(ImageList((APP,), node_names=("n2",)),))
    assert observe(cluster([listed], image_caches=[elsewhere])) == ()


def test_image_that_left_the_list_is_dropped() -> None:
    entry = PresentImage(APP, Evidence.OUR_PULL, 20.0, DIGEST, 500, "shop/warm")
    before = NodeImages("n1", "uid-n1", "boot-n1", (entry,), resource_version="3")
    found = only(cluster([listing(7, "registry.test/other:v1")], image_caches=[CACHE], node_images=[before]))
    assert found.images == ()
    # A second name by digest keeps it.
    kept = cluster([listing(500, f"registry.test/app@{DIGEST}")], image_caches=[CACHE], node_images=[before])
    assert observe(kept) == ()


def test_record_of_before_a_boot_is_started_anew() -> None:
    entry = PresentImage(APP, Evidence.OUR_PULL, 20.0, DIGEST, 500, "shop/warm")
    failure = FailedPull("registry.test/bad:v1", "shop/warm", "uid-warm", "NotFound", "not found", 3, 20.0)
    before = NodeImages("n1", "uid-n1", "earlier", (entry,), (failure,), resource_version="3")
    found = only(cluster([listing(500, APP)], image_caches=[CACHE], node_images=[before]))
    assert [entry.evidence for entry in found.images] == [Evidence.NODE_STATUS]
    assert (found.boot_id, found.failures) == ("boot-n1", ())


def test_pulls_under_two_credentials_are_both_known() -> None:
    pods = [puller(20.0), puller(25.0, secrets=("regcred",))]
    found = only(cluster([node("n1")], pods, image_caches=[CACHE]))
    assert [(entry.image, entry.pull_identity) for entry in found.images] == [(APP, ""), (APP, "shop|default|regcred")]
    assert observe(cluster([node("n1")], pods, image_caches=[CACHE], node_images=[found])) == ()


def test_records_are_bounded_and_keep_our_pulls() -> None:
    others = tuple(
        PresentImage(f"registry.test/x{index:03d}:v1", Evidence.NODE_STATUS, float(index)) for index in range(300)
    )
    before = NodeImages("n1", "uid-n1", "boot-n1", others)
    found = only(cluster([node("n1")], [puller()], image_caches=[CACHE], node_images=[before]))
    assert len(found.images) == MAX_RECORDED_IMAGES
    assert APP in {entry.image for entry in found.images}


def test_records_of_vanished_nodes_are_forgotten() -> None:
    records = [NodeImages("gone", "u", "b"), NodeImages("n1", "uid-n1", "boot-n1")]
    assert forgotten(cluster([node("n1")], node_images=records)) == ("gone",)
