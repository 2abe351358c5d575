"""Rules of the puller that hold for every cluster: budgets, idempotence, order, nodes that must be left alone."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.api.image_cache_status import decode_status
from prewarm.api.node_image import decode_node_images
from prewarm.history import History
from prewarm.history.state import Measured
from prewarm.model.image_caches import ImageCache, ImageList
from prewarm.model.images import canonical, registry_of
from prewarm.model.intents import IMAGE_CACHES, NODE_IMAGES, PODS, Apply, Create
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
    Taint,
    TaintEffect,
    Toleration,
)
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.presence import Wanted, warmth
from prewarm.puller import PairState, PullerDecision, PullerMemory, PullerSettings, reconcile
from prewarm.puller.pairs import Pairs
from prewarm.puller.refresh import asks_again
from prewarm.puller.standing import Standing
from prewarm.puller.targets import Targets, obstacle
from prewarm.puller.work import Work
from tests.support.clusters import cluster, node
from tests.support.pulling import assert_as_if_judged_anew

IMAGES = (
    "registry.test/a:v1",
    "registry.test/b:v1",
    "other.test/c:v1",
    "nginx",
    "docker.io/library/nginx:latest",
    "Bad!",
)
NODES = ("n0", "n1", "n2", "n3")
NOW = 1000.0
CONTROL_PLANE = Taint("node-role.kubernetes.io/control-plane")
NO_EXECUTE = Taint("reserved", "team", TaintEffect.NO_EXECUTE)
HISTORY = History(pulls={canonical(image): Measured(1.0, 1.0) for image in IMAGES[1:3]})


TERMS = (
    NodeSelectorTerm((Requirement("pool", Operator.IN, ("a", "b")),)),
    NodeSelectorTerm((Requirement("pool", Operator.DOES_NOT_EXIST),)),
    NodeSelectorTerm((Requirement("size", Operator.GT, ("4",)), Requirement("pool", Operator.NOT_IN, ("b",)))),
)
WEB_PODS = LabelSelector(match_expressions=(Requirement("app", Operator.IN, ("web", "api")),))


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    listed = draw(st.lists(st.sampled_from(IMAGES[:5]), unique=True, max_size=2))
    return replace(
        node(name),
        labels=draw(st.sampled_from([{}, {"pool": "a"}, {"pool": "b", "size": "8"}, {"size": "16"}])),
        ready=draw(st.sampled_from([True, True, True, False])),
        unschedulable=draw(st.sampled_from([False, False, False, True])),
        disk_pressure=draw(st.sampled_from([False, False, False, True])),
        taints=draw(st.sampled_from([(), (), (), (CONTROL_PLANE,), (NO_EXECUTE,)])),
        max_pods=draw(st.sampled_from([110, 110, 2])),
        images=tuple(NodeImageStatus((canonical(image),), 10) for image in listed),
    )


@st.composite
def caches(draw: st.DrawFn, number: int) -> ImageCache:
    images = draw(st.lists(st.sampled_from(IMAGES), max_size=4))
    names = draw(st.none() | st.lists(st.sampled_from((*NODES, "gone")), unique=True).map(tuple))
    other = draw(st.lists(st.sampled_from(IMAGES[:3]), max_size=2))
    chosen = ImageList(
        tuple(other),
        draw(st.none() | st.just(NODES[:2])),
        draw(st.sampled_from([(), (), (("pool", "a"),)])),
        draw(st.lists(st.sampled_from(TERMS), unique=True, max_size=2).map(tuple)),
        draw(st.sampled_from([None, WEB_PODS, LabelSelector((("app", "web"),))])),
    )
    return ImageCache(
        "shop",
        f"cache-{number}",
        uid=f"uid-{number}",
        generation=1,
        lists=(ImageList(tuple(images), names), chosen),
        pull_secrets=draw(st.sampled_from([(), (), ("regcred",)])),
        parallelism=draw(st.sampled_from([None, 1, 2, "50%"])),
        priority=draw(st.integers(-1, 1)),
        suspend=draw(st.sampled_from([False, False, False, True])),
        tolerations=draw(st.sampled_from([(), (Toleration(operator="Exists"),)])),
    )


@st.composite
def pullers(draw: st.DrawFn, number: int, known: list[ImageCache]) -> Pod:
    cache = draw(st.sampled_from(known))
    image = draw(st.sampled_from(IMAGES[:4]))
    status = draw(
        st.sampled_from(
            [
                (),
                (ContainerStatus("pull-0", ContainerPhase.WAITING, reason="ContainerCreating"),),
                (ContainerStatus("pull-0", ContainerPhase.WAITING, reason="ErrImagePull", message="not found"),),
                (ContainerStatus("pull-0", ContainerPhase.TERMINATED, exit_code=0, started_at=990.0),),
            ]
        )
    )
    shapes = (ContainerShape("helper", "h:1", kind=ContainerKind.INIT), ContainerShape("pull-0", image))
    return Pod(
        "shop",
        f"old-pull-{number}",
        f"pod-{number}",
        node_name=draw(st.sampled_from(NODES)),
        labels={"prewarm.dev/puller": "true"},
        annotations={"prewarm.dev/attempt": str(draw(st.integers(1, 3)))},
        owner=OwnerReference("ImageCache", cache.name, draw(st.sampled_from([cache.uid, "uid-gone"]))),
        shape=PodShape(shapes, pull_secrets=cache.pull_secrets),
        phase=PodPhase.PENDING,
        created_at=draw(st.sampled_from([980.0, 100.0])),
        containers=status,
    )


@st.composite
def neighbours(draw: st.DrawFn, number: int) -> Pod:
    """Pods of others, some of which lists follow."""
    return Pod(
        draw(st.sampled_from(["shop", "shop", "else"])),
        f"pod-{number}",
        f"neighbour-{number}",
        node_name=draw(st.sampled_from(("", *NODES))),
        labels=draw(st.sampled_from([{"app": "web"}, {"app": "api"}, {"app": "db"}])),
        shape=PodShape((ContainerShape("c", "registry.test/other:v1"),)),
        phase=draw(st.sampled_from([PodPhase.RUNNING, PodPhase.RUNNING, PodPhase.SUCCEEDED])),
        containers=(ContainerStatus("c", ContainerPhase.RUNNING, started_at=900.0),),
    )


@st.composite
def records(draw: st.DrawFn, name: str, known: list[ImageCache]) -> NodeImages:
    cache = draw(st.sampled_from(known))
    images = draw(st.lists(st.sampled_from(IMAGES[:4]).map(canonical), unique=True, max_size=2))
    failures = draw(st.lists(st.sampled_from(IMAGES[:4]).map(canonical), unique=True, max_size=2))
    reason = draw(st.sampled_from(["NotFound", "RegistrySilent"]))
    return NodeImages(
        name,
        f"uid-{name}",
        f"boot-{name}",
        tuple(PresentImage(image, Evidence.OUR_PULL, 900.0, cache="shop/cache-0") for image in images),
        tuple(
            FailedPull(image, f"shop/{cache.name}", cache.uid, reason, "said", 1, draw(st.sampled_from([995.0, 10.0])))
            for image in failures
        ),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> ClusterSnapshot:
    names = draw(st.lists(st.sampled_from(NODES), unique=True, min_size=1))
    known = [draw(caches(number)) for number in range(draw(st.integers(1, 3)))]
    return cluster(
        [draw(nodes(name)) for name in names],
        [
            *(draw(pullers(number, known)) for number in range(draw(st.integers(0, 4)))),
            *(draw(neighbours(number)) for number in range(draw(st.integers(0, 4)))),
        ],
        now=NOW,
        image_caches=known,
        node_images=[draw(records(name, known)) for name in names if draw(st.booleans())],
    )


BUDGETS = st.builds(
    PullerSettings,
    cluster_pulls=st.integers(1, 6),
    node_pulls=st.integers(1, 2),
    registry_pulls=st.integers(1, 4),
    images_per_pod=st.integers(1, 3),
)


def decide(found: ClusterSnapshot, budgets: PullerSettings, memory: PullerMemory | None = None) -> PullerDecision:
    return reconcile(found, budgets, HISTORY, memory)


def created(decision: PullerDecision) -> list[tuple[str, tuple[str, ...], str]]:
    """Node, images and cache uid of each pod that is to be created."""
    found = []
    for intent in decision.intents:
        if isinstance(intent, Create):
            spec = intent.manifest["spec"]
            metadata = intent.manifest["metadata"]
            assert isinstance(spec, dict)
            assert isinstance(metadata, dict)
            images = tuple(c["image"] for c in spec["containers"] if c["name"].startswith("pull-"))
            found.append((spec["nodeName"], images, metadata["labels"]["prewarm.dev/cache-uid"]))
    return found


def live(found: ClusterSnapshot) -> Work:
    return Work(found)


def asked(cache: ImageCache, name: str, found: ClusterSnapshot) -> set[str]:
    """The definition: an entry means a node that fits all that it gives; terms are alternatives."""
    images: set[str] = set()
    for entry in cache.lists:
        pods = [p for p in found.pods.values() if p.node_name == name and name in found.nodes and not p.finished]
        hosting = entry.pod_selector is None or any(
            pod.namespace == cache.namespace
            and "prewarm.dev/puller" not in pod.labels
            and entry.pod_selector.matches(pod.labels)
            for pod in pods
        )
        labels = found.nodes[name].labels if name in found.nodes else None
        fits = labels is None or (
            all(labels.get(key) == value for key, value in entry.node_selector)
            and (not entry.node_selector_terms or any(t.matches(name, labels) for t in entry.node_selector_terms))
        )
        named = name in entry.node_names if entry.node_names is not None else labels is not None
        if named and fits and hosting:
            images.update(entry.images)
    return images


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_what_is_recorded_and_what_is_pulled_are_asked_for_on_the_same_nodes(found: ClusterSnapshot) -> None:
    wanted = Wanted(found.image_caches)
    for name, there in found.nodes.items():
        images = {image for cache in found.image_caches.values() for image in asked(cache, name, found)}
        assert wanted.on(there, found) == set(map(canonical, images))
    for cache in found.image_caches.values():
        targets = Targets(cache)
        meant = {name: set(targets.images_on(name, found)) for name in targets.all_candidates(found)}
        everywhere = (*found.nodes, "gone", *NODES)
        assert {name: images for name, images in meant.items() if images} == {
            name: asked(cache, name, found) for name in everywhere if asked(cache, name, found)
        }


@given(snapshots(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_no_budget_is_exceeded_by_what_is_added(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    new = created(decide(found, budgets))
    before = live(found)
    if new:
        assert before.total + len(new) <= budgets.cluster_pulls
    for name, count in Counter(node_name for node_name, _, _ in new).items():
        assert before.on_node(name) + count <= budgets.node_pulls
        assert count <= found.nodes[name].max_pods
    registries = Counter(registry for _, images, _ in new for registry in {registry_of(image) for image in images})
    for registry, count in registries.items():
        assert before.from_registry(registry) + count <= budgets.registry_pulls
    for uid in {uid for _, _, uid in new}:
        cache = next(cache for cache in found.image_caches.values() if cache.uid == uid)
        if isinstance(cache.parallelism, int):
            at_work = {*before.nodes_of(uid)} | {node_name for node_name, _, of in new if of == uid}
            assert len(at_work) <= max(cache.parallelism, len(before.nodes_of(uid)))


@given(snapshots(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_no_pod_goes_where_it_must_not(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    known = warmth(found)
    for name, images, uid in created(decide(found, budgets)):
        cache = next(cache for cache in found.image_caches.values() if cache.uid == uid)
        assert obstacle(found.nodes[name], cache) is None
        assert not cache.suspend
        assert len(images) <= budgets.images_per_pod
        assert len({canonical(image) for image in images}) == len(images)
        for image in images:
            identity = "|".join(("shop", "default", *cache.pull_secrets))
            # A refresh has the registry asked for what a moving tag names now.
            assert asks_again(cache, image) or not known.is_warm(name, image, pull_identity=identity)


@given(snapshots(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_every_pair_is_in_exactly_one_state(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    judge = Pairs(found, warmth(found), live(found))
    statuses = {
        (intent.namespace, intent.name): decode_status(intent.manifest["status"])
        for intent in decide(found, budgets).intents
        if isinstance(intent, Apply) and intent.resource == IMAGE_CACHES
    }
    for key, cache in found.image_caches.items():
        standing = Standing(cache)
        standing.judge_all(cache, judge)
        pairs = list(standing.pairs())
        assert len({(name, pair.image) for name, pair in pairs}) == len(pairs)
        assert {(name, pair.image) for name, pair in pairs} == {
            (name, image) for name in (*found.nodes, *NODES, "gone") for image in asked(cache, name, found)
        }
        status = statuses[key]
        assert status.desired == len(pairs)
        waiting = status.desired - status.active - status.succeeded - status.failed - status.skipped
        assert 0 <= waiting <= sum(pair.state is PairState.PENDING for _, pair in pairs)


@given(snapshots(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_second_look_adds_nothing(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    memory = PullerMemory()
    decide(found, budgets, memory)
    # Another cache may tell that it profits from a pull that was ordered for the first.
    second = decide(replace(found, taken_at=NOW + 0.01), budgets, memory).intents
    assert all(isinstance(intent, Apply) and intent.resource == IMAGE_CACHES for intent in second)
    assert decide(replace(found, taken_at=NOW + 0.02), budgets, memory).intents == ()


@given(snapshots(), snapshots())
@settings(max_examples=60, deadline=None)
def test_memory_changes_no_verdict(before: ClusterSnapshot, after: ClusterSnapshot) -> None:
    """What is kept from one snapshot to the next only saves work."""
    memory = PullerMemory()
    for found in (before, after):
        known = warmth(found, memory.warmth)
        work = Work(found, readings=memory.readings)
        judge = Pairs(found, known, work)
        courses = memory.courses(found)
        kept = memory.standings(found, judge, memory.read_nodes(found, known), work.moved, courses)
        for standing in kept:
            assert_as_if_judged_anew(standing, judge)


@given(snapshots(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_restart_orders_the_same_pods_under_the_same_names(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    first = [intent.name for intent in decide(found, budgets).intents if isinstance(intent, Create)]
    again = [intent.name for intent in decide(found, budgets).intents if isinstance(intent, Create)]
    assert first == again
    assert len(set(first)) == len(first)


@given(snapshots(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_order_of_what_is_read_does_not_matter(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    other = cluster(
        reversed(list(found.nodes.values())),
        reversed(list(found.pods.values())),
        now=NOW,
        image_caches=reversed(list(found.image_caches.values())),
        node_images=reversed(list(found.node_images.values())),
    )
    assert decide(other, budgets) == decide(found, budgets)


@given(snapshots(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_writes_once_visible_are_not_repeated(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    decision = decide(found, budgets)
    written = dict(found.node_images)
    told = dict(found.image_caches)
    for intent in decision.intents:
        if isinstance(intent, Apply) and intent.resource == NODE_IMAGES:
            written[intent.name] = decode_node_images(intent.manifest)
        if isinstance(intent, Apply) and intent.resource == IMAGE_CACHES:
            key = (intent.namespace, intent.name)
            told[key] = replace(told[key], status=decode_status(intent.manifest["status"]))
    after = decide(replace(found, node_images=written, image_caches=told), budgets)
    rewritten = [i for i in after.intents if isinstance(i, Apply) and i.resource == NODE_IMAGES]
    assert rewritten == []


@given(snapshots(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_what_pods_show_is_on_record_before_they_go(found: ClusterSnapshot, budgets: PullerSettings) -> None:
    decision = decide(found, budgets)
    changed = {i.name for i in decision.intents if isinstance(i, Apply) and i.resource == NODE_IMAGES}
    for intent in decision.intents:
        if not isinstance(intent, Apply | Create) and intent.resource == PODS:
            pod = found.pods[intent.namespace, intent.name]
            shows = any(status.reason != "ContainerCreating" for status in pod.containers)
            assert pod.node_name not in found.nodes or pod.node_name not in changed or not shows
