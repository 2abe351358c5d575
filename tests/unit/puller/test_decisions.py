"""What is ordered first, together, or not now; which nodes are meant; what a pod and a status look like."""

import json
from typing import cast

import msgspec
import pytest
from msgspec.structs import replace

from prewarm.api.image_cache_status import MAX_STATUS_BYTES, decode_status, encode_status
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, ImageCacheStatus, ImageList
from prewarm.model.images import PullPolicy
from prewarm.model.intents import IMAGE_CACHES, Apply, Create, RecordEvent
from prewarm.model.nodes import Evidence, FailedPull, Node, NodeImages, PresentImage
from prewarm.model.pods import ContainerShape, Pod, PodPhase, PodShape, Resources, Taint, TaintEffect, Toleration
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller import PullerDecision, PullerMemory, PullerSettings, WithheldReason, reconcile
from tests.support.clusters import cluster, node

A, B, C = "registry.test/a:v1", "registry.test/b:v1", "other.test/c:v1"
SMALL = History(pulls={A: Measured(0.5, 1.0), B: Measured(1.5, 1.0), C: Measured(30.0, 1.0)})


def cache(*images: str, name: str = "warm", nodes: tuple[str, ...] | None = None, **fields: object) -> ImageCache:
    values: dict[str, object] = {"generation": 1, "lists": (ImageList(images, nodes),), **fields}
    return ImageCache("shop", name, uid=f"uid-{name}", **values)  # type: ignore[arg-type]


def decide(
    found: ClusterSnapshot, history: History | None = None, *, first_pulls: int = 0, **budgets: int
) -> PullerDecision:
    return reconcile(found, replace(PullerSettings(), **budgets), history or History(), first_pulls=first_pulls)


def ordered(decision: PullerDecision) -> list[tuple[str, ...]]:
    """Node and images of every pod ordered."""
    return [
        (spec["nodeName"], *(c["image"] for c in spec["containers"] if c["name"].startswith("pull-")))
        for intent in decision.intents
        if isinstance(intent, Create)
        for spec in [cast("dict[str, object]", intent.manifest["spec"])]
        for spec in [json.loads(json.dumps(spec))]
    ]


def status_in(decision: PullerDecision) -> ImageCacheStatus:
    (found,) = [i for i in decision.intents if isinstance(i, Apply) and i.resource == IMAGE_CACHES]
    return decode_status(found.manifest["status"])


def test_priority_then_need_then_age_decide_who_goes_first() -> None:
    waiting = [
        cache(A, name="old", created_at=1.0),
        cache(A, name="soon", created_at=2.0, needed_by=1100.0),
        cache(A, name="sooner", created_at=3.0, needed_by=1050.0),
        cache(B, name="urgent", created_at=4.0, priority=5),
    ]
    first = []
    while waiting:
        decision = decide(cluster([node("n1")], image_caches=waiting), cluster_pulls=1)
        (create,) = [intent for intent in decision.intents if isinstance(intent, Create)]
        chosen = next(found for found in waiting if create.name.startswith(f"{found.name}-pull-"))
        first.append(chosen.name)
        waiting.remove(chosen)
    assert first == ["urgent", "sooner", "soon", "old"]


def test_places_kept_for_first_pulls_are_left_to_caches_without_a_pull() -> None:
    nodes = [node(f"n{index}") for index in range(8)]
    first, second = cache(A, name="first", created_at=1.0), cache(B, name="second", created_at=2.0)
    found = decide(cluster(nodes, image_caches=[first, second]), cluster_pulls=6, first_pulls=3)
    assert [image for _, image in ordered(found)] == [A, A, A, B]
    alone = decide(cluster(nodes, image_caches=[first]), cluster_pulls=6)
    assert len(ordered(alone)) == 6


def test_a_rollouts_first_pull_finds_a_place_while_others_make_all_of_theirs() -> None:
    nodes = [node(f"n{index}") for index in range(45)]
    by_hand = cache(A, name="by-hand")
    planned = cache(A, name="planned", created_at=1.0, workload="deployment/shop/one")
    next_one = cache(B, name="next", created_at=2.0, workload="deployment/shop/two")
    assert len(ordered(decide(cluster(nodes, image_caches=[planned]), cluster_pulls=40))) == 38
    both = ordered(decide(cluster(nodes, image_caches=[planned, next_one]), cluster_pulls=40))
    assert [image for _, image in both] == [*[A] * 38, B]
    # Who asks for pulls by hand gets all places.
    assert len(ordered(decide(cluster(nodes, image_caches=[by_hand]), cluster_pulls=40))) == 40


def test_named_nodes_go_in_the_order_given() -> None:
    found = cluster([node(f"n{index}") for index in range(4)], image_caches=[cache(A, nodes=("n2", "n0", "n3", "n1"))])
    assert ordered(decide(found, cluster_pulls=2)) == [("n2", A), ("n0", A)]


def test_small_images_share_a_pod_and_large_ones_do_not() -> None:
    found = cluster([node("n1")], image_caches=[cache(A, C, B)])
    assert ordered(decide(found, SMALL)) == [("n1", A, B)]
    assert ordered(decide(found, SMALL, images_per_pod=1)) == [("n1", A)]
    assert ordered(decide(found)) == [("n1", A)]


def test_two_pods_on_a_node_never_pull_the_same_small_image() -> None:
    images = [f"{A.rpartition(':')[0]}:v{number}" for number in range(10)]
    found = cluster([node("n1")], image_caches=[cache(*images)])
    history = History(pulls=dict.fromkeys(images, Measured(0.5, 1.0)))
    orders = ordered(decide(found, history, node_pulls=2, images_per_pod=3))
    asked = [image for _, *together in orders for image in together]
    assert [len(together) for _, *together in orders] == [3, 3]
    assert len(set(asked)) == len(asked)


def test_a_second_pull_on_a_node_begins_where_no_node_is_idle() -> None:
    found = cluster([node("n1"), node("n2"), node("n3")], image_caches=[cache(A, C)])
    assert ordered(decide(found, node_pulls=2, cluster_pulls=4)) == [("n1", A), ("n2", A), ("n3", A), ("n1", C)]
    assert len(ordered(decide(found, node_pulls=2))) == 6
    assert len(ordered(decide(found, node_pulls=2, cluster_pulls=2))) == 2
    assert decide(found, node_pulls=2, cluster_pulls=4).withheld == {WithheldReason.BUDGET: 2}
    assert decide(found, node_pulls=1).withheld == {WithheldReason.NODE_BUSY: 3}


def test_budget_of_a_registry_leaves_others_their_turn() -> None:
    found = cluster([node("n1"), node("n2"), node("n3")], image_caches=[cache(A, C)])
    decision = decide(found, registry_pulls=1)
    assert ordered(decision) == [("n1", A), ("n2", C)]
    assert decision.withheld[WithheldReason.BUDGET] > 0


@pytest.mark.parametrize(("parallelism", "pods"), [(None, 4), (3, 3), ("50%", 2), ("1%", 1)])
def test_parallelism_counts_nodes(parallelism: int | str | None, pods: int) -> None:
    nodes = [node(f"n{index}") for index in range(4)]
    assert len(ordered(decide(cluster(nodes, image_caches=[cache(A, parallelism=parallelism)])))) == pods


def test_full_node_is_left_alone() -> None:
    crowd = [
        Pod("x", f"p{index}", f"u{index}", node_name="n1", shape=PodShape(), phase=PodPhase.RUNNING)
        for index in range(3)
    ]
    full = replace(node("n1"), max_pods=3)
    decision = decide(cluster([full], crowd, image_caches=[cache(A)]))
    assert ordered(decision) == []
    assert decision.withheld == {WithheldReason.NO_ROOM: 1}


@pytest.mark.parametrize(
    ("free_mebibytes", "pods"), [(64, [("n1", A, B)]), (47, [("n1", A)]), (32, [("n1", A)]), (31, [])]
)
def test_images_share_a_pod_as_far_as_the_node_has_room_for_its_containers(
    free_mebibytes: int, pods: list[tuple[str, ...]]
) -> None:
    """Each container of a pod requests 16 MiB, the sentinel of images that nobody pulled yet, too."""
    running = Pod("x", "p", "u", node_name="n1", shape=PodShape(), phase=PodPhase.RUNNING)
    tight = replace(node("n1"), allocatable=Resources(milli_cpu=4000, memory=free_mebibytes * 2**20))
    decision = decide(cluster([tight], [running], image_caches=[cache(A, B)]), SMALL)
    assert ordered(decision) == pods
    assert (WithheldReason.NO_ROOM in decision.withheld) == (not pods)


@pytest.mark.parametrize(("free_mebibytes", "pods"), [(80, [("n1", A, B), ("n1", C)]), (79, [("n1", A, B)])])
def test_pods_ordered_a_moment_ago_count_with_all_their_containers(
    free_mebibytes: int, pods: list[tuple[str, ...]]
) -> None:
    """Two images and a sentinel take 48 MiB, one and a sentinel 32."""
    running = Pod("x", "p", "u", node_name="n1", shape=PodShape(), phase=PodPhase.RUNNING)
    tight = replace(node("n1"), allocatable=Resources(milli_cpu=4000, memory=free_mebibytes * 2**20))
    caches = [cache(A, B, created_at=1.0), cache(C, name="other", created_at=2.0)]
    assert ordered(decide(cluster([tight], [running], image_caches=caches), SMALL, node_pulls=2)) == pods


def test_pod_that_waits_for_anything_else_keeps_pulls_away_for_a_while_only() -> None:
    stuck = Pod(
        "x",
        "p",
        "u",
        node_name="n1",
        created_at=900.0,
        shape=PodShape((ContainerShape("c", "registry.test/x:v1"),)),
    )
    found = cluster([node("n1")], [stuck], image_caches=[cache(A)])
    decision = decide(found)
    assert decision.withheld == {WithheldReason.POD_WAITING: 1}
    assert decision.wake_at == 1500.0
    assert ordered(decide(replace(found, taken_at=1501.0))) == [("n1", A)]


EVERYTHING = Toleration(operator="Exists")
CONTROL_PLANE = Taint("node-role.kubernetes.io/control-plane")
MIXED = [
    node("worker"),
    replace(node("master"), taints=(CONTROL_PLANE,)),
    replace(node("pool"), taints=(Taint("team", "a"),), labels={"pool": "a"}),
    replace(node("draining"), unschedulable=True),
    replace(node("windows"), operating_system="windows"),
    replace(node("batch"), taints=(Taint("batch", "", TaintEffect.NO_EXECUTE),), labels={"pool": "b"}),
]


@pytest.mark.parametrize(
    ("wanted", "nodes", "skipped"),
    [
        (cache(A), {"worker", "pool"}, {"Cordoned": 1, "OperatingSystem": 1, "Tainted": 2}),
        (
            cache(A, tolerations=(Toleration(operator="Exists"),)),
            {"worker", "pool", "master", "batch"},
            {"Cordoned": 1, "OperatingSystem": 1},
        ),
        (cache(A, nodes=("master", "worker", "gone")), {"worker"}, {"Tainted": 1, "NodeNotFound": 1}),
        (cache(lists=(ImageList((A,), None, (("pool", "a"),)),)), {"pool"}, {}),
        (cache(lists=(ImageList((A,), None, (("pool", "b"),)),)), set(), {"Tainted": 1}),
        (cache(lists=(ImageList((A,), ("worker", "pool"), (("pool", "a"),)),)), {"pool"}, {}),
        (cache(), set(), {}),
        (cache(A, suspend=True), set(), {"Cordoned": 1, "OperatingSystem": 1, "Tainted": 2}),
    ],
)
def test_which_nodes_a_cache_means(wanted: ImageCache, nodes: set[str], skipped: dict[str, int]) -> None:
    decision = decide(cluster(MIXED, image_caches=[wanted]))
    assert {name for name, *_ in ordered(decision)} == nodes
    assert dict(status_in(decision).reasons) == skipped


def test_always_pulls_once_what_is_there_already() -> None:
    before = PresentImage(A, Evidence.OUR_PULL, 500.0, cache="shop/other")
    after = replace(before, since=1500.0)
    wanted = cache(A, pull_policy=PullPolicy.ALWAYS, created_at=1000.0)

    def pods(entry: PresentImage) -> list[tuple[str, ...]]:
        records = [NodeImages("n1", "uid-n1", "boot-n1", (entry,))]
        return ordered(decide(cluster([node("n1")], image_caches=[wanted], node_images=records)))

    assert pods(before) == [("n1", A)]
    assert pods(after) == []


def test_pod_is_harmless_and_owned() -> None:
    wanted = cache(A, pull_secrets=("regcred",), service_account="builder", attempt_timeout_seconds=90)
    decision = decide(cluster([node("n1")], image_caches=[wanted]))
    (manifest,) = [intent.manifest for intent in decision.intents if isinstance(intent, Create)]
    pod = json.loads(json.dumps(manifest))
    spec = pod["spec"]
    assert (spec["nodeName"], spec["activeDeadlineSeconds"], spec["restartPolicy"]) == ("n1", 90, "Never")
    assert (spec["serviceAccountName"], spec["imagePullSecrets"]) == ("builder", [{"name": "regcred"}])
    assert spec["automountServiceAccountToken"] is False
    assert spec["terminationGracePeriodSeconds"] == 0
    assert not any(toleration["key"] == "node.kubernetes.io/disk-pressure" for toleration in spec["tolerations"])
    owner = pod["metadata"]["ownerReferences"][0]
    assert owner["controller"] is True
    assert "blockOwnerDeletion" not in owner
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]
    assert len(pod["metadata"]["name"]) <= 63


def test_hostile_image_is_data_and_nothing_else() -> None:
    hostile = "registry.test/a:v1$(reboot)"
    decision = decide(cluster([node("n1")], image_caches=[cache(hostile)]))
    assert ordered(decision) == []
    status = status_in(decision)
    assert [failure.reason for failure in status.failures] == ["InvalidImage"]
    assert decision.wake_at is None


def test_thousand_failures_stay_small_and_hide_no_other_reason() -> None:
    long = f"registry.test/{'x' * 200}:v1"
    nodes: list[Node] = [node(f"n{index:04d}") for index in range(1000)]
    records = []
    for index, found in enumerate(nodes):
        reason = "Rejected" if index == 777 else "NotFound"
        failure = FailedPull(long, "shop/warm", "uid-warm", reason, "said " * 90, 1, 999.0)
        records.append(NodeImages(found.name, found.uid, found.boot_id, failures=(failure,)))
    decision = decide(cluster(nodes, image_caches=[cache(long)], node_images=records))
    status = status_in(decision)
    assert status.failed == 1000
    assert dict(status.reasons) == {"NotFound": 999, "Rejected": 1}
    assert {failure.reason for failure in status.failures} == {"NotFound", "Rejected"}
    assert len(msgspec.json.encode(encode_status(status))) <= MAX_STATUS_BYTES
    assert [intent.reason for intent in decision.intents if isinstance(intent, RecordEvent)] == ["PullsFailed"]


def test_other_credentials_begin_anew() -> None:
    failure = FailedPull(A, "shop/warm", "uid-warm", "Unauthorized", "401", 5, 999.0, "shop|default|wrong")
    records = [NodeImages("n1", "uid-n1", "boot-n1", failures=(failure,))]

    def pods(secret: str) -> list[tuple[str, ...]]:
        wanted = cache(A, pull_secrets=(secret,))
        return ordered(decide(cluster([node("n1")], image_caches=[wanted], node_images=records)))

    assert pods("wrong") == []
    assert pods("right") == [("n1", A)]


def test_lost_create_is_repeated_under_the_same_name() -> None:
    found = cluster([node("n1")], image_caches=[cache(A)])
    memory = PullerMemory()

    def names(at: float) -> list[str]:
        decision = reconcile(replace(found, taken_at=at), PullerSettings(), History(), memory)
        return [intent.name for intent in decision.intents if isinstance(intent, Create)]

    (first,) = names(1000.0)
    assert names(1001.0) == []
    memory.unsent("shop", first)
    assert names(1002.0) == [first]
    assert names(1003.0) == []
    assert names(1020.0) == [first]


def test_a_create_whose_answer_was_lost_counts_and_is_asked_for_again_less_and_less_often() -> None:
    found = cluster([node("n1")], image_caches=[cache(A)])
    memory = PullerMemory()

    def look(at: float) -> tuple[list[str], float, int]:
        decision = reconcile(replace(found, taken_at=at), PullerSettings(cluster_pulls=1), History(), memory)
        assert decision.wake_at is not None
        names = [intent.name for intent in decision.intents if isinstance(intent, Create)]
        return names, decision.wake_at, decision.in_flight

    ((first,), _, _) = look(1000.0)
    pauses, places = [], []
    at = 1000.0
    for _ in range(8):
        assert memory.sent("shop", first)
        memory.lost("shop", first, at)
        again, held = at, 0.0
        while True:
            names, wake_at, in_flight = look(again)
            if names:
                break
            held += (wake_at - again) * in_flight
            again = wake_at
        assert names == [first]
        pauses.append(again - at)
        places.append(held)
        at = again
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-2:] == [10.0, 10.0]
    # At first nobody else gets its place; later others have it half of the time.
    assert places[:2] == pauses[:2]
    assert places[2:] == [pause / 2 for pause in pauses[2:]]
    memory.arrived("shop", first, at)
    memory.lost("shop", first, at)
    assert look(at)[1] == at + pauses[0]


def test_a_pod_whose_answer_was_lost_is_not_made_again_once_it_has_done_its_work() -> None:
    found = cluster([node("n1")], image_caches=[cache(A)])
    memory = PullerMemory()
    first = reconcile(replace(found, taken_at=1000.0), PullerSettings(), History(), memory)
    (name,) = [intent.name for intent in first.intents if isinstance(intent, Create)]
    assert memory.sent("shop", name)
    memory.lost("shop", name, 1000.0)
    pulled = NodeImages("n1", "uid-n1", "boot-n1", images=(PresentImage(A, Evidence.OUR_PULL, 1004.0),))
    warm = cluster([node("n1")], image_caches=[cache(A)], node_images=[pulled])
    later = reconcile(replace(warm, taken_at=1005.0), PullerSettings(), History(), memory)
    assert ordered(later) == []
    assert memory.orders == ()


def test_a_create_without_an_answer_counts_until_it_has_one() -> None:
    found = cluster([node("n1"), node("n2")], image_caches=[cache(A)])
    memory = PullerMemory()

    def names(at: float) -> list[str]:
        decision = reconcile(replace(found, taken_at=at), PullerSettings(cluster_pulls=1), History(), memory)
        return [intent.name for intent in decision.intents if isinstance(intent, Create)]

    (first,) = names(1000.0)
    assert memory.sent("shop", first)
    assert names(1100.0) == []
    memory.arrived("shop", first, 1100.0)
    assert names(1110.0) == []
    assert names(1120.0) == [first]


def test_no_more_is_ordered_than_may_wait_for_an_answer() -> None:
    found = cluster([node(f"n{index}") for index in range(5)], image_caches=[cache(A)])
    memory = PullerMemory()

    def names(at: float) -> list[str]:
        decision = reconcile(replace(found, taken_at=at), PullerSettings(orders_at_once=2), History(), memory)
        return [intent.name for intent in decision.intents if isinstance(intent, Create)]

    first, second = names(1000.0)
    assert all(memory.sent("shop", name) for name in (first, second))
    assert names(1000.1) == []
    memory.arrived("shop", first, 1000.2)
    assert len(names(1000.2)) == 1
