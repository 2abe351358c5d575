"""What is written is what is read back, and what is written is bounded, whatever the core hands over."""

import string
from collections.abc import Mapping

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prewarm.api.fields import DURATION_PATTERN, api_time, parse_time, seconds_of
from prewarm.api.image_cache import decode_image_cache, image_cache_manifest
from prewarm.api.image_cache_status import MAX_STATUS_BYTES, bounded_status, decode_status, encode_status
from prewarm.api.node_image import (
    MAX_FAILED_PULLS,
    MAX_PRESENT_IMAGES,
    bounded_node_images,
    decode_node_images,
    node_images_manifest,
)
from prewarm.api.policy import decode_policy, policy_manifest
from prewarm.model.image_caches import (
    Canaries,
    Completion,
    Condition,
    DeletionPolicy,
    ImageCache,
    ImageCacheStatus,
    ImageList,
    Policy,
    PolicyMode,
    PullerForm,
    PullFailure,
    Schedule,
)
from prewarm.model.images import PullPolicy
from prewarm.model.nodes import Evidence, FailedPull, NodeImages, PresentImage
from prewarm.model.pods import OwnerReference, Toleration
from prewarm.model.removals import RemovalResult
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement

names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
labels = st.dictionaries(names, names, max_size=3).map(lambda d: tuple(sorted(d.items())))
images = st.builds("{}.example/{}:{}".format, names, names, names)
times = st.integers(0, 4_000_000_000_000_000).map(lambda microseconds: round(microseconds / 1e6, 6))
anything = st.text(max_size=400)

tolerations = st.one_of(
    st.builds(Toleration, key=names, operator=st.just("Equal"), value=names, effect=st.sampled_from(["", "NoExecute"])),
    st.builds(Toleration, key=names, operator=st.just("Exists")),
    st.just(Toleration(operator="Exists")),
)
selectors = st.builds(
    LabelSelector,
    match_labels=labels,
    match_expressions=st.lists(
        st.builds(
            Requirement, names, st.sampled_from([Operator.IN, Operator.NOT_IN]), st.lists(names, min_size=1).map(tuple)
        )
        | st.builds(Requirement, names, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST])),
        max_size=3,
    ).map(tuple),
)
terms = st.builds(
    NodeSelectorTerm,
    match_expressions=st.lists(
        st.builds(
            Requirement, names, st.sampled_from([Operator.IN, Operator.NOT_IN]), st.lists(names, min_size=1).map(tuple)
        )
        | st.builds(
            Requirement, names, st.sampled_from([Operator.GT, Operator.LT]), st.integers(-9, 9).map(lambda n: (str(n),))
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
durations = st.none() | st.integers(0, 10**7).map(float) | st.integers(1, 10**6).map(lambda n: n / 1000)
caches = st.builds(
    ImageCache,
    namespace=names,
    name=names,
    lists=st.lists(
        st.builds(
            ImageList,
            images=st.lists(images, max_size=3).map(tuple),
            node_names=st.none() | st.lists(names, max_size=5).map(tuple),
            node_selector=labels,
            node_selector_terms=st.lists(terms, max_size=2).map(tuple),
            pod_selector=st.none() | selectors,
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    pull_secrets=st.lists(names, max_size=3, unique=True).map(tuple),
    service_account=names | st.just(""),
    pull_policy=st.sampled_from([None, PullPolicy.IF_NOT_PRESENT, PullPolicy.ALWAYS]),
    tolerations=st.lists(tolerations, max_size=3).map(tuple),
    parallelism=st.none() | st.integers(1, 1000) | st.integers(1, 100).map("{}%".format),
    attempt_timeout_seconds=st.none() | st.integers(10, 86_400),
    attempt_limit=st.integers(1, 100),
    suspend=st.booleans(),
    priority=st.integers(-1000, 1000),
    needed_by=st.none() | times,
    completion=st.just(Completion())
    | st.builds(
        Completion, st.just(True), st.none() | st.integers(1, 31_536_000), st.none() | st.integers(0, 31_536_000)
    ),
    refresh_seconds=durations,
    schedule=st.none() | st.sampled_from([Schedule("30 5 * * 1-5", "Europe/Berlin"), Schedule("*/7 * 1 * *")]),
    hold_seconds=durations,
    hold_present=st.booleans(),
    deletion_policy=st.sampled_from(DeletionPolicy),
    puller_form=st.none() | st.sampled_from(PullerForm),
    priority_class=names | st.just(""),
    refresh_request=st.none() | st.just("") | names,
    purge_request=st.none() | st.just("") | names,
    owner=st.none() | st.builds(OwnerReference, kind=names, name=names, uid=names, api_version=names),
    planned=st.booleans(),
    workload=names | st.just(""),
    plan_annotation=anything,
)
statuses = st.builds(
    ImageCacheStatus,
    observed_generation=st.integers(0, 10**9),
    conditions=st.lists(
        st.builds(Condition, names, st.booleans(), anything, anything, times), max_size=12, unique_by=lambda c: c.type
    ).map(tuple),
    desired=st.integers(0, 10**7),
    active=st.integers(0, 10**7),
    reasons=st.lists(st.tuples(names, st.integers(0, 10**6)), max_size=50, unique_by=lambda r: r[0]).map(tuple),
    failures=st.lists(
        st.builds(
            PullFailure, st.text(max_size=1500), names, anything, anything, attempts=st.integers(0, 100), at=times
        ),
        max_size=40,
    ).map(tuple),
    started_at=st.none() | times,
    completed_at=st.none() | times,
    refreshed_at=st.none() | times,
    refresh_handled=anything,
    purge_handled=anything,
    purged_at=st.none() | times,
    purged_generation=st.integers(0, 2**31),
    removal_round=st.text("0123456789abcdef", max_size=12),
    removal_total=st.integers(0, 2**31),
)
present = st.builds(
    PresentImage,
    image=images,
    evidence=st.sampled_from(Evidence),
    since=times,
    digest=names | st.just(""),
    size_bytes=st.integers(0, 10**12),
    cache=names | st.just(""),
    pull_seconds=st.none() | st.integers(0, 10**9).map(lambda n: n / 1e6),
    pull_identity=names | st.just(""),
    used_at=st.none() | times,
    stays=st.none() | st.sampled_from([result for result in RemovalResult if not result.gone]),
    stays_in=st.text("0123456789abcdef", max_size=12),
)
failed = st.builds(
    FailedPull,
    image=images,
    cache=names,
    cache_uid=names,
    reason=names,
    message=names,
    attempts=st.integers(1, 1000),
    at=times,
    pull_identity=names | st.just(""),
)
policies = st.builds(
    Policy,
    name=names,
    mode=st.sampled_from(PolicyMode),
    namespace_selector=st.none() | selectors,
    workload_selector=st.none() | selectors,
    rollout=st.booleans(),
    min_updated_ready_pods=st.integers(0, 10**6) | st.integers(0, 100).map("{}%".format),
    scale_out=st.booleans(),
    headroom_percent=st.integers(0, 1000),
    coverage=st.floats(0, 1),
    max_overprovision=st.floats(1, 100),
    max_waste=st.floats(0, 1),
    gate_seconds=st.none() | st.integers(0, 3600).map(float),
    canaries=st.none() | st.builds(Canaries, selectors, st.sampled_from(("app", "example.com/app"))),
    hold_seconds=durations,
    puller_form=st.none() | st.sampled_from(PullerForm),
)


def through_json(value: object) -> Mapping[str, object]:
    return msgspec.json.decode(msgspec.json.encode(value), type=dict[str, object])


@given(caches)
def test_an_image_cache_is_read_as_it_was_written(cache: ImageCache) -> None:
    assert decode_image_cache(through_json(image_cache_manifest(cache))) == cache


@given(policies)
def test_a_policy_is_read_as_it_was_written(policy: Policy) -> None:
    assert decode_policy(through_json(policy_manifest(policy))) == policy


@given(times, st.from_regex(DURATION_PATTERN, fullmatch=True).filter(lambda text: text.isascii() and len(text) <= 32))
@example(4_000_000_000.0, "9999999h9999999h9999999h9999999h")
def test_a_time_after_any_duration_that_is_accepted_can_be_written(time: float, duration: str) -> None:
    later = time + (seconds_of(duration) or 0.0)
    written = parse_time(api_time(later))
    assert written is not None
    assert abs(written - later) < 1


@settings(max_examples=60)
@given(statuses)
def test_a_status_is_bounded_and_read_as_it_was_bounded(status: ImageCacheStatus) -> None:
    written = msgspec.json.encode(encode_status(status))
    assert len(written) <= MAX_STATUS_BYTES
    assert decode_status(msgspec.json.decode(written)) == bounded_status(status)
    assert bounded_status(bounded_status(status)) == bounded_status(status)


def test_the_largest_status_is_bounded() -> None:
    widest = "\U0001f40b" * 2000
    status = ImageCacheStatus(
        conditions=tuple(Condition(f"{i}{widest}", True, widest, widest, 1e9) for i in range(20)),
        reasons=tuple((f"{i}{widest}", 10**9) for i in range(100)),
        failures=tuple(PullFailure(widest, widest, widest, widest, 10**9, 1e9) for _ in range(100)),
    )
    written = msgspec.json.encode(encode_status(status))
    assert len(written) <= MAX_STATUS_BYTES
    assert len(decode_status(msgspec.json.decode(written)).conditions) == 8, "conditions are dropped last"


@given(
    st.builds(
        NodeImages,
        node_name=names,
        node_uid=names,
        boot_id=names,
        images=st.lists(present).map(tuple),
        failures=st.lists(failed, max_size=8).map(tuple),
    )
)
def test_a_node_image_is_read_as_it_was_written(record: NodeImages) -> None:
    assert bounded_node_images(record) == record
    assert decode_node_images(through_json(node_images_manifest(record))) == record


def test_a_node_with_too_many_failures_keeps_the_latest() -> None:
    failures = tuple(FailedPull(f"a.example/{i}:v1", "s/c", "u", "r", "m", 1, float(i)) for i in range(100))
    kept = bounded_node_images(NodeImages("n", "u", "b", (), failures)).failures
    assert kept == failures[-MAX_FAILED_PULLS:]


def test_a_node_with_too_many_images_keeps_our_pulls_and_the_youngest() -> None:
    seen = [PresentImage(f"seen.example/{i}:v1", Evidence.NODE_STATUS, float(i)) for i in range(400)]
    pulled = [PresentImage(f"pulled.example/{i}:v1", Evidence.OUR_PULL, 0.0) for i in range(100)]
    kept = bounded_node_images(NodeImages("n", "u", "b", (*seen, *pulled))).images
    assert len(kept) == MAX_PRESENT_IMAGES
    assert set(pulled) <= set(kept)
    assert {image.image for image in kept if image.evidence is Evidence.NODE_STATUS} == {
        f"seen.example/{i}:v1" for i in range(400 - MAX_PRESENT_IMAGES + 100, 400)
    }
