"""What kube-fledged takes for present or absent by looking for a substring; see the source of its image manager."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import canonical
from prewarm.model.nodes import Evidence, Node, NodeImages, NodeImageStatus, PresentImage, pull_identity
from prewarm.model.pods import Pod
from prewarm.model.selectors import LabelSelector
from prewarm.presence import Wanted, observe, warmth
from tests.support.clusters import cluster, node

DIGEST = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"
APP = "registry.test/app:v1"


def listing(*names: str) -> Node:
    return replace(node("n1"), images=(NodeImageStatus(names, 100),))


@pytest.mark.parametrize(
    ("trap", "listed", "asked", "there"),
    [
        ("longer tag", ("docker.io/library/app:1.21",), "app:1.2", False),
        ("shorter tag", ("docker.io/library/app:1.2",), "app:1.21", False),
        ("longer repository", ("registry.test/team/app:1.2",), "registry.test/team/ap:1.2", False),
        ("repository that ends alike", ("registry.test/my-app:1.2",), "registry.test/app:1.2", False),
        ("same name in another registry", ("mirror.test/nginx:1.25",), "nginx:1.25", False),
        ("same name below another path", ("docker.io/bitnami/nginx:1.25",), "nginx:1.25", False),
        ("registry with a port, no tag, other tag listed", ("host.test:5000/app:v1",), "host.test:5000/app", False),
        ("registry with a port, no tag", ("host.test:5000/app:latest",), "host.test:5000/app", True),
        ("registry with another port", ("host.test:5001/app:v1",), "host.test:5000/app:v1", False),
        ("latest is the whole tag", ("docker.io/library/app:latest-foo",), "app:latest", False),
        ("no tag is latest", ("docker.io/library/app:latest",), "app", True),
        ("docker.io and library", ("docker.io/library/nginx:1",), "docker.io/nginx:1", True),
        ("index.docker.io", ("docker.io/library/nginx:1",), "index.docker.io/library/nginx:1", True),
        ("docker.io with an owner", ("docker.io/grafana/grafana:11",), "grafana/grafana:11", True),
        ("tag and digest, listed by digest", (f"registry.test/app@{DIGEST}",), f"registry.test/app:v1@{DIGEST}", True),
        (
            "tag and digest, another digest",
            (f"registry.test/app@{OTHER}", "registry.test/app:v1"),
            f"registry.test/app:v1@{DIGEST}",
            False,
        ),
        ("digest of another repository", (f"registry.test/base@{DIGEST}",), f"registry.test/app@{DIGEST}", False),
        ("second tag of one image", (f"registry.test/app@{DIGEST}", "registry.test/app:v1", APP), APP, True),
    ],
)
def test_kube_fledged_trap_presence_by_substring(
    trap: str, listed: tuple[str, ...], asked: str, *, there: bool
) -> None:
    known = warmth(cluster([listing(*listed)]))
    assert known.is_there("n1", asked) is there, trap
    assert known.is_warm("n1", asked) is there, trap


def fifty() -> tuple[NodeImageStatus, ...]:
    """A full list: kubelets report their 50 largest images."""
    return tuple(NodeImageStatus((f"registry.test/large-{index}:v1",), 1_000_000 + index) for index in range(50))


def test_kube_fledged_trap_more_than_fifty_images_on_the_node() -> None:
    small = PresentImage(canonical(APP), Evidence.OUR_PULL, 10.0, size_bytes=500, cache="shop/warm")
    record = NodeImages("n1", "uid-n1", "boot-n1", (small,))
    full = replace(node("n1"), images=fifty())
    found = cluster([full], node_images=[record])
    assert warmth(found).is_warm("n1", APP)
    assert observe(found) == ()
    # One that is larger than the smallest on the list would be listed if it were there.
    large = NodeImages("n1", "uid-n1", "boot-n1", (replace(small, size_bytes=2_000_000),))
    assert not warmth(cluster([full], node_images=[large])).is_warm("n1", APP)


@pytest.mark.parametrize(
    ("change", "known"),
    [({}, True), ({"boot_id": "after the reboot"}, False), ({"uid": "another machine of that name"}, False)],
)
def test_nothing_is_inherited_by_a_node_rebooted_or_made_anew(change: dict[str, str], *, known: bool) -> None:
    pulled = PresentImage(canonical(APP), Evidence.OUR_PULL, 10.0, cache="shop/warm")
    record = NodeImages("n1", "uid-n1", "boot-n1", (pulled,))
    there: Node = replace(node("n1"), **change)
    found = cluster([there], node_images=[record])
    assert warmth(found).is_warm("n1", APP) is known
    assert warmth(found).our_pulls("n1", APP) == () or known


PRIVATE = pull_identity("shop", "", ("regcred",))


@pytest.mark.parametrize(
    ("asking", "warm"),
    [
        (PRIVATE, True),
        ("", False),
        (pull_identity("shop", "", ("other",)), False),
        (pull_identity("else", "", ("regcred",)), False),
        (pull_identity("shop", "builder", ("regcred",)), False),
    ],
)
def test_present_but_to_be_verified_with_other_credentials_is_not_warm(asking: str, *, warm: bool) -> None:
    pulled = PresentImage(canonical(APP), Evidence.OUR_PULL, 10.0, cache="shop/warm", pull_identity=PRIVATE)
    record = NodeImages("n1", "uid-n1", "boot-n1", (pulled,))
    known = warmth(cluster([listing(APP)], node_images=[record]))
    assert known.is_there("n1", APP)
    assert known.is_warm("n1", APP, pull_identity=asking) is warm


def cache(*entries: ImageList, name: str = "warm", namespace: str = "shop") -> ImageCache:
    return ImageCache(namespace, name, uid=f"uid-{namespace}-{name}", generation=1, lists=entries)


def test_what_others_brought_is_recorded_where_a_selector_asks_for_it_alone() -> None:
    pool = replace(listing(APP), labels={"pool": "a"})
    rest = replace(listing(APP), name="n2", uid="uid-n2", labels={"pool": "b"})
    found = cluster([pool, rest], image_caches=[cache(ImageList((APP,), None, (("pool", "a"),)))])
    assert [record.node_name for record in observe(found)] == ["n1"]


def test_nodes_of_which_the_same_is_asked_share_one_value() -> None:
    rule = ImageList((APP,), None, (("pool", "a"),))
    nodes = [replace(node(f"n{index}"), labels={"pool": "a"}) for index in range(3)]
    found = cluster(nodes, image_caches=[cache(rule), cache(replace(rule, images=("b:1",)), name="other")])
    asked = [Wanted(found.image_caches).on(there, found) for there in nodes]
    wanted = Wanted(found.image_caches)
    assert asked[0] == {canonical(APP), canonical("b:1")}
    assert wanted.on(nodes[0], found) is wanted.on(nodes[1], found)


def test_pods_make_a_node_wanted_in_their_own_namespace_alone() -> None:
    def pod(namespace: str, node_name: str) -> Pod:
        return Pod(namespace, f"web-{node_name}", f"uid-{node_name}", node_name=node_name, labels={"app": "web"})

    rule = ImageList((APP,), pod_selector=LabelSelector((("app", "web"),)))
    nodes = [node("n1"), node("n2"), node("n3")]
    found = cluster(nodes, [pod("shop", "n1"), pod("else", "n2")], image_caches=[cache(rule)])
    wanted = Wanted(found.image_caches)
    assert wanted.follows_pods
    assert [there.name for there in nodes if wanted.on(there, found)] == ["n1"]
