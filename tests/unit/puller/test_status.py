"""What people read on an ImageCache: conditions, counts, failures and Events, however large the cluster."""

import msgspec
import pytest
from msgspec.structs import replace

from prewarm.api.image_cache_status import MAX_STATUS_BYTES, decode_status, encode_status
from prewarm.history import History
from prewarm.model.image_caches import Condition, ImageCache, ImageCacheStatus, ImageList
from prewarm.model.intents import IMAGE_CACHES, Apply, RecordEvent
from prewarm.model.nodes import Evidence, FailedPull, Node, NodeImages, PresentImage
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller import PullerMemory, PullerSettings, reconcile
from tests.support.clusters import cluster, node

APP, WRONG = "registry.test/app:v1", "registry.test/app:v9"


def cache(*entries: ImageList, **fields: object) -> ImageCache:
    values: dict[str, object] = {"generation": 3, "lists": entries, **fields}
    return ImageCache("shop", "warm", uid="uid-warm", **values)  # type: ignore[arg-type]


def record(name: str, *there: str, failed: tuple[str, ...] = (), reason: str = "NotFound") -> NodeImages:
    return NodeImages(
        name,
        f"uid-{name}",
        f"boot-{name}",
        tuple(PresentImage(image, Evidence.OUR_PULL, 900.0, cache="shop/warm") for image in there),
        tuple(FailedPull(image, "shop/warm", "uid-warm", reason, "said so", 1, 999.0) for image in failed),
    )


class Told:
    """What one reconcile after the other tells about the cache; the status is stored as the API server would."""

    def __init__(self) -> None:
        self.memory = PullerMemory()
        self.now = 1000.0
        self.events: list[tuple[str, bool]] = []
        self.writes = 0

    def look(self, wanted: ImageCache, nodes: list[Node], records: list[NodeImages]) -> ImageCache:
        """Settle the status; time passes."""
        for _ in range(3):
            self.now += 20.0
            found = cluster(nodes, now=self.now, image_caches=[wanted], node_images=records)
            wanted = self._reconcile(found, wanted)
        return wanted

    def _reconcile(self, found: ClusterSnapshot, wanted: ImageCache) -> ImageCache:
        for intent in reconcile(found, PullerSettings(), History(), self.memory).intents:
            if isinstance(intent, RecordEvent):
                self.events.append((intent.reason, intent.warning))
            if isinstance(intent, Apply) and intent.resource == IMAGE_CACHES:
                self.writes += 1
                wanted = replace(wanted, status=decode_status(intent.manifest["status"]))
        return wanted


def conditions(wanted: ImageCache) -> dict[str, tuple[bool, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in wanted.status.conditions}


def message(wanted: ImageCache, kind: str = "Ready") -> str:
    return next(condition.message for condition in wanted.status.conditions if condition.type == kind)


WARM = {"Ready": (True, "Warm"), "Progressing": (False, "Settled"), "Degraded": (False, "NoFailures")}


def test_all_conditions_speak_of_the_generation_that_was_seen() -> None:
    wanted = Told().look(cache(ImageList((APP,))), [node("n1")], [record("n1", APP)])
    assert conditions(wanted) == WARM
    assert wanted.status.observed_generation == 3
    written = msgspec.json.decode(msgspec.json.encode(encode_status(wanted.status)))
    assert {condition["observedGeneration"] for condition in written["conditions"]} == {3}


def test_progress_stands_in_the_message_with_its_percentage() -> None:
    nodes = [node(f"n{index}") for index in range(3)]
    wanted = Told().look(cache(ImageList((APP, WRONG))), nodes, [record("n0", APP, failed=(WRONG,)), record("n1", APP)])
    assert message(wanted).startswith("2 of 6 image and node pairs are there (33 %)")


def test_transition_times_change_with_the_status_alone() -> None:
    told = Told()
    nodes, records = [node("n1"), node("n2")], [record("n1", APP), record("n2", APP)]
    first = told.look(cache(ImageList((APP,))), nodes[:1], records[:1])
    second = told.look(first, nodes, records)
    assert message(first) != message(second)
    assert [c.since for c in first.status.conditions] == [c.since for c in second.status.conditions]


def test_nothing_is_written_when_nothing_changed() -> None:
    told = Told()
    wanted = told.look(cache(ImageList((APP,))), [node("n1")], [record("n1", APP)])
    writes = told.writes
    told.look(wanted, [node("n1")], [record("n1", APP)])
    assert told.writes == writes


def test_one_event_for_each_change_of_the_verdict() -> None:
    told = Told()
    nodes = [node("n1")]
    wanted = told.look(cache(ImageList((APP,), None, (("pool", "a"),))), nodes, [])
    assert told.events == [("NoNodes", True)]
    wanted = told.look(replace(wanted, lists=(ImageList((APP,)),)), nodes, [record("n1", APP)])
    assert told.events == [("NoNodes", True), ("Warm", False)]
    both = replace(wanted, lists=(ImageList((APP, WRONG)),))
    wanted = told.look(both, nodes, [record("n1", APP, failed=(WRONG,))])
    wanted = told.look(wanted, nodes, [record("n1", APP, failed=(WRONG,), reason="Unauthorized")])
    assert told.events[2:] == [("PullsFailed", True)]
    faulty = replace(wanted, error="spec.cacheSpec[0].images[0]: write an image as registry.example/team/app:v1")
    wanted = told.look(faulty, nodes, [record("n1", APP)])
    assert told.events[3:] == [("InvalidSpec", True)]
    assert conditions(wanted)["Ready"] == (False, "InvalidSpec")
    told.look(replace(wanted, error="", lists=(ImageList(()),)), nodes, [record("n1", APP)])
    assert told.events[4:] == [("NoImages", False)]


def test_restarted_controller_repeats_no_event() -> None:
    told = Told()
    wanted = told.look(cache(ImageList((APP,))), [node("n1")], [record("n1", APP)])
    told.memory = PullerMemory()
    told.look(wanted, [node("n1")], [record("n1", APP)])
    assert told.events == [("Warm", False)]


@pytest.mark.parametrize("reasons", [1, 12])
def test_thousand_failing_nodes_fit_into_sixteen_kibibytes(reasons: int) -> None:
    nodes, records = [], []
    images = tuple(f"registry.test/{'x' * 200}/{index}/{'y' * 700}:v1" for index in range(5))
    for index in range(1000):
        name = f"node-{index:04d}." + ".".join(["z" * 60] * 3)
        failed = tuple(
            FailedPull(image, "shop/warm", "uid-warm", f"Reason{index % reasons}", "said \u2028 " * 90, 1, 999.0)
            for image in images
        )
        nodes.append(node(name))
        records.append(NodeImages(name, f"uid-{name}", f"boot-{name}", (), failed))
    wanted = Told().look(cache(ImageList(images)), nodes, records)
    assert wanted.status.failed == 5000
    assert sum(count for _, count in wanted.status.reasons) == 5000
    assert len(msgspec.json.encode(encode_status(wanted.status))) <= MAX_STATUS_BYTES
    assert wanted.status.failures


def test_what_others_wrote_into_the_status_is_kept() -> None:
    purged = Condition("Purged", True, "Purged", "2 images removed", 900.0)
    before = ImageCacheStatus(3, (purged,), refreshed_at=950.0, refresh_handled="7", purge_handled="8")
    wanted = Told().look(cache(ImageList((APP,)), status=before), [node("n1")], [record("n1", APP)])
    status = wanted.status
    assert purged in status.conditions
    assert (status.refreshed_at, status.refresh_handled, status.purge_handled) == (950.0, "7", "8")
