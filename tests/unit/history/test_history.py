import zlib

import msgspec
import pytest
from msgspec.structs import replace

from prewarm.history import DEFAULT_TIME_TO_READY, History, decode, encode, learn, time_to_ready
from prewarm.history.learning import MAX_STARTS, MAX_WORKLOADS, SCAN_INTERVAL
from prewarm.history.state import Measured
from prewarm.model.nodes import Evidence, NodeImages, NodeImageStatus, PresentImage
from prewarm.model.outcomes import ContainerStart, Outcome
from prewarm.model.pods import ContainerPhase, ContainerStatus, OwnerReference, Pod
from prewarm.model.snapshot import ClusterSnapshot
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, template

V1, V2 = "registry.test/web:v1", "registry.test/web:v2"


def listed(size: int, *names: str, now: float = 1000.0) -> ClusterSnapshot:
    return cluster([node("a", images=(NodeImageStatus(names, size),))], now=now)


def pulled(*images: PresentImage, now: float = 1000.0) -> ClusterSnapshot:
    return cluster([node("a")], node_images=[NodeImages("a", "uid-a", "boot-a", images)], now=now)


def start(
    number: int, image: str = V1, pull_seconds: float | None = None, outcome: Outcome = Outcome.MISS_UNPREDICTED
) -> ContainerStart:
    return ContainerStart(WEB, f"pod-{number}", "c0", image, "a", outcome, 1.0, 2.0, pull_seconds=pull_seconds)


def pod(created: float, *, ready: float | None, started: float | None, restarts: int = 0, sandbox: float = 1.0) -> Pod:
    status = ContainerStatus("c0", ContainerPhase.RUNNING, started_at=started, restart_count=restarts)
    owner = OwnerReference("ReplicaSet", "web-v1", "uid-web-v1")
    return Pod(
        "shop",
        f"p{created}-{ready}-{restarts}",
        "u",
        "a",
        owner=owner,
        created_at=created,
        sandbox_ready_at=created + sandbox,
        ready_at=ready,
        containers=(status,),
    )


def test_a_size_is_learnt_from_any_name_that_a_node_lists() -> None:
    history = learn(History(), listed(500, "registry.test/web@sha256:" + "a" * 64, V1))
    assert history.image_size(V1) == 500
    assert history.image_size("registry.test/web@sha256:" + "a" * 64) == 500


def test_short_and_long_spellings_are_one_image() -> None:
    assert learn(History(), listed(500, "docker.io/library/busybox:1")).image_size("busybox:1") == 500


def test_an_unseen_tag_is_as_large_as_its_repositorys_last_one() -> None:
    history = learn(History(), listed(500, V1))
    assert history.image_size(V2) == 500
    later = learn(history, listed(800, V2, now=1000.0 + SCAN_INTERVAL))
    assert later.image_size("registry.test/web:v3") == 800
    assert later.image_size(V1) == 500
    assert later.image_size("registry.test/other:v1") is None


def test_learning_twice_from_the_same_state_changes_nothing() -> None:
    snapshot = listed(500, V1)
    once = learn(History(), snapshot)
    assert learn(once, snapshot) is once


def test_pulls_are_estimated_by_node_then_image_then_size() -> None:
    image = PresentImage(V1, Evidence.OUR_PULL, 900.0, size_bytes=1000, pull_seconds=10.0)
    history = learn(History(), pulled(image))
    assert history.pull_rate("a") == 100.0
    assert history.pull_seconds(V1, "a") == 10.0
    assert history.pull_seconds(V1, "elsewhere") == 10.0
    assert history.pull_seconds(V2) == 10.0
    assert history.pull_seconds("registry.test/other:v1") is None


@pytest.mark.parametrize(("size", "seconds"), [(None, 20.0), (250e6, 5.0)])
def test_a_pull_of_which_nothing_comparable_was_seen_is_expected_to_take_what_is_usual(
    size: float | None, seconds: float
) -> None:
    history = History(image_sizes={} if size is None else {V1: Measured(size, 0.0)})
    assert history.expected_pull_seconds(V1) == seconds
    assert replace(history, pulls={V1: Measured(7.0, 0.0)}).expected_pull_seconds(V1) == 7.0


def test_what_pods_had_to_wait_for_is_learnt_too() -> None:
    history = learn(History(), cluster(), starts=[start(1, pull_seconds=33.0)])
    assert history.pull_seconds(V1) == 33.0
    joined = learn(history, cluster(), starts=[start(2, pull_seconds=1.0, outcome=Outcome.LATE)])
    assert joined.pull_seconds(V1) == 33.0


def test_time_to_ready_leaves_the_pull_out() -> None:
    assert time_to_ready([pod(100.0, ready=130.0, started=126.0)]) == 5.0


def test_time_to_ready_is_robust_against_restarts_and_outliers() -> None:
    normal = [pod(100.0 + i, ready=110.0 + i, started=105.0 + i) for i in range(9)]
    odd = [pod(50.0, ready=5000.0, started=60.0), pod(60.0, ready=70.0, started=65.0, restarts=4)]
    assert time_to_ready([*normal, *odd, pod(70.0, ready=None, started=75.0)]) == 6.0


def test_nothing_ready_says_nothing() -> None:
    assert time_to_ready([pod(1.0, ready=None, started=None)]) is None
    assert History().time_to_ready(WEB) == DEFAULT_TIME_TO_READY


def test_time_to_ready_of_a_workload_outlives_its_pods() -> None:
    found = deployment(template(V1))
    pods = [pod(100.0, ready=130.0, started=126.0)]
    snapshot = cluster(pods=pods, workloads=[found], replica_sets=[replica_set(found, found.template, 1)])
    history = learn(History(), snapshot)
    assert history.time_to_ready(WEB) == 5.0
    assert learn(history, cluster(workloads=[found], now=5000.0)).time_to_ready(WEB) == 5.0


def test_time_to_ready_leaves_the_wait_for_room_out() -> None:
    waited = replace(pod(100.0, ready=170.0, started=162.0, sandbox=61.0), scheduled_at=160.0)
    assert time_to_ready([waited]) == 9.0


def stopped(*seconds: float, now: float = 1000.0) -> ClusterSnapshot:
    return replace(cluster(now=now), stops={WEB: seconds} if seconds else {})


def test_time_to_stop_of_a_workload_outlives_what_the_store_remembers() -> None:
    assert History().time_to_stop(WEB) is None
    history = learn(History(), stopped(15.0))
    assert learn(history, stopped(now=5000.0)).time_to_stop(WEB) == 15.0
    assert learn(history, stopped(2.0, 3.0, 2.0, now=5000.0)).time_to_stop(WEB) == 2.0


def test_a_pod_that_hangs_does_not_decide_how_long_pods_take_to_stop() -> None:
    history = learn(History(), stopped(15.0, 16.0, 900.0))
    assert history.time_to_stop(WEB) == 16.0
    assert learn(history, stopped(900.0, now=5000.0)).time_to_stop(WEB) == 16.0
    assert learn(history, stopped(15.0, 900.0, now=5000.0)).time_to_stop(WEB) == 15.0


def test_learning_twice_how_long_pods_take_to_stop_changes_nothing() -> None:
    once = learn(History(), stopped(15.0))
    assert learn(once, stopped(15.0)) is once
    again = learn(once, stopped(15.0, now=1000.0 + SCAN_INTERVAL))
    assert again.stopping == {str(WEB): Measured(15.0, 1000.0 + SCAN_INTERVAL)}


def test_times_to_stop_are_bounded() -> None:
    stops = {replace(WEB, name=f"w{index}"): (float(index),) for index in range(MAX_WORKLOADS + 10)}
    assert len(learn(History(), replace(cluster(), stops=stops)).stopping) == MAX_WORKLOADS


def test_starts_are_kept_once_and_bounded() -> None:
    history = learn(History(), cluster(), starts=[start(i) for i in range(MAX_STARTS)])
    history = learn(history, cluster(), starts=[start(MAX_STARTS), start(MAX_STARTS)])
    assert len(history.starts) == MAX_STARTS
    assert history.starts[-1].pod_uid == f"pod-{MAX_STARTS}"


def test_a_stored_history_is_read_back() -> None:
    image = PresentImage(V1, Evidence.OUR_PULL, 900.0, size_bytes=1000, pull_seconds=10.0)
    history = learn(History(), pulled(image), starts=[start(1)])
    assert decode(encode(history)) == history


def test_times_to_stop_are_stored_and_one_stored_without_them_is_read() -> None:
    history = learn(History(), stopped(15.0, 16.0))
    assert decode(encode(history)).time_to_stop(WEB) == 15.0
    ready = b'{"Deployment shop/web":{"value":4.0,"at":1.0}}'
    old = decode(zlib.compress(b'{"version":1,"history":{"ready":' + ready + b',"scanned_at":7.0}}'))
    assert (old.reason, old.scanned_at, old.stopping, len(old.ready)) == ("", 7.0, {}, 1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "cut off"),
        (b"garbage", "not zlib data"),
        (zlib.compress(b"{}"), "version 0"),
        (zlib.compress(b'{"version":99,"history":{}}'), "version 99"),
        (zlib.compress(b'{"version":1,"history":{"starts":7}}'), "cannot be read"),
        (zlib.compress(b'{"version":1'), "cannot be read"),
        (zlib.compress(b"\xff\xfe"), "cannot be read"),
        (zlib.compress(b"[" * 100_000), "cannot be read"),
        (zlib.compress(b" " * 100_000_000), "too large"),
        (encode(History())[:-2], "cut off"),
    ],
)
def test_garbage_is_an_empty_history_with_a_reason(data: bytes, told: str) -> None:
    history = decode(data)
    assert told in history.reason
    assert replace(history, reason="") == History()


def test_an_encoding_always_fits() -> None:
    sizes = {f"registry.test/{msgspec.json.encode(i * 7919).hex()}/{i}:v{i}": Measured(i, i) for i in range(4000)}
    history = History(image_sizes=sizes, starts=tuple(start(i) for i in range(500)))
    data = encode(history, limit=20_000)
    assert len(data) <= 20_000
    kept = decode(data)
    assert not kept.reason
    assert max(sizes, key=lambda image: sizes[image].at) in kept.image_sizes or not kept.image_sizes
    assert len(encode(history)) <= 900_000


def test_times_to_stop_give_way_before_times_to_ready() -> None:
    times = {f"Deployment shop/{index * 7919 % 10007}": Measured(index * 0.37, float(index)) for index in range(2000)}
    ready = dict(list(times.items())[:20])
    kept = decode(encode(History(ready=ready, stopping=times), limit=5_000))
    assert not kept.reason
    assert kept.ready == ready
    assert 0 < len(kept.stopping) < 2000
    assert min(entry.at for entry in kept.stopping.values()) == 2000 - len(kept.stopping)
