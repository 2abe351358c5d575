from msgspec.structs import replace

from e2e.demo.recorder import Recorder, Start, percentile
from e2e.demo.report import Bytes, RolloutResult
from e2e.demo.verdict import shortfalls
from prewarm.model.outcomes import Outcome
from prewarm.model.pods import ContainerPhase, ContainerShape, ContainerStatus, Pod, PodShape

IMAGE = "registry.example/shop/web:v2"


def pod(uid: str, *, running: bool = False, ready: bool = False, image: str = IMAGE) -> Pod:
    phase = ContainerPhase.RUNNING if running else ContainerPhase.WAITING
    return Pod(
        "demo",
        f"web-{uid}",
        uid,
        node_name="node-1",
        shape=PodShape(containers=(ContainerShape("web", image),)),
        containers=(ContainerStatus("web", phase, image),),
        ready_at=1.0 if ready else None,
    )


def rollout(starts: dict[str, tuple[float, float]], outcomes: dict[str, Outcome]) -> RolloutResult:
    """A finished rollout: creation and start by pod uid; the first pod's start opens the second part."""
    recorder = Recorder(IMAGE)
    for uid, (created, started) in starts.items():
        recorder.starts[uid] = Start(uid, created, "node-1", started, started + 1)
    recorder.first_ready = min(start.ready for start in recorder.starts.values() if start.ready is not None)
    return RolloutResult("x", recorder, outcomes, Bytes())


def test_times_are_those_at_which_the_watch_told() -> None:
    recorder = Recorder(IMAGE)
    recorder.observe(pod("a"), 10.0)
    recorder.observe(pod("a", running=True), 31.0)
    recorder.observe(pod("a", running=True, ready=True), 35.0)
    recorder.observe(pod("a", running=True, ready=True), 60.0)
    start = recorder.starts["a"]
    assert (start.created_to_started, start.ready, recorder.first_ready) == (21.0, 35.0, 35.0)
    assert recorder.duration == 25.0


def test_pods_of_other_versions_are_not_counted() -> None:
    recorder = Recorder(IMAGE)
    recorder.observe(pod("a", image="registry.example/shop/web:v1"), 1.0)
    assert not recorder.starts


def test_the_first_burst_ends_when_a_new_pod_is_ready() -> None:
    recorder = Recorder(IMAGE)
    recorder.observe(pod("a"), 0.0)
    recorder.observe(pod("b"), 1.0)
    recorder.observe(pod("a", running=True, ready=True), 25.0)
    recorder.observe(pod("c"), 25.5)
    assert [start.name for start in recorder.first_burst] == ["web-a", "web-b"]
    assert [start.name for start in recorder.after_first_burst] == ["web-c"]


def test_a_pod_that_is_changed_in_place_starts_when_the_new_image_runs() -> None:
    recorder = Recorder(IMAGE)
    before = pod("a", running=True, ready=True, image="registry.example/shop/web:v1")
    recorder.observe(replace(before, shape=pod("a").shape), 1.0)
    recorder.observe(pod("a", running=True, ready=True), 7.0)
    (start,) = recorder.starts.values()
    assert (start.created, start.started, start.ready) == (1.0, 7.0, 7.0)


def test_percentiles_are_nearest_ranks_and_wait_for_every_pod() -> None:
    starts = [Start(str(i), 0.0, started=float(i)) for i in range(1, 21)]
    assert (percentile(starts, 0.5), percentile(starts, 0.9), percentile(starts, 0.99)) == (10.0, 18.0, 20.0)
    assert percentile([*starts, Start("late", 0.0)], 0.5) is None
    assert percentile([], 0.5) is None


def test_a_pod_without_a_verdict_counts_as_unknown() -> None:
    result = rollout({"a": (0, 20), "b": (30, 31)}, {"a": Outcome.MISS_UNPREDICTED})
    assert result.counts()[Outcome.UNKNOWN] == 1
    assert result.later_hit_ratio == 0.0


def tried(later: dict[str, Outcome]) -> RolloutResult:
    """A rollout of one cold pod and some later ones, of which those that miss pull."""
    starts = {"first": (0.0, 20.0)}
    starts |= {uid: (30.0, 31.0 if outcome is Outcome.HIT_PREWARMED else 50.0) for uid, outcome in later.items()}
    return rollout(starts, {"first": Outcome.MISS_UNPREDICTED, **later})


COLD = rollout({"a": (0, 20), "b": (30, 50)}, {})
ANNOUNCED = rollout({"a": (0, 1), "b": (5, 6)}, dict.fromkeys("ab", Outcome.HIT_PREWARMED))
WARM = {f"p{number}": Outcome.HIT_PREWARMED for number in range(10)}


def test_each_figure_that_is_missed_is_named() -> None:
    assert shortfalls([COLD, tried(WARM), ANNOUNCED]) == []
    missed = shortfalls([ANNOUNCED, tried({**WARM, "p0": Outcome.MISS_UNPREDICTED, "p1": Outcome.LATE}), COLD])
    assert len(missed) == 4
    assert "hit ratio" in missed[0]
    assert "2 of 10 pods" in missed[1]


def test_one_pod_that_comes_elsewhere_is_no_shortfall_and_a_rollout_without_later_pods_is() -> None:
    one = tried({**WARM, "p0": Outcome.MISS_UNPREDICTED})
    assert shortfalls([COLD, one, ANNOUNCED]) == []
    assert len(shortfalls([COLD, one, one])) == 1
    assert len(shortfalls([COLD, tried({}), ANNOUNCED])) == 2
