"""What users get wrong in our objects comes back as one line: where, what, what would be right."""

from pathlib import Path

import pytest
import yaml

from prewarm.api.image_cache import decode_image_cache
from prewarm.api.image_cache_status import decode_status, encode_status
from prewarm.api.names import DEFAULT_POLICY
from prewarm.api.node_image import decode_node_images
from prewarm.api.policy import decode_policy
from prewarm.model.image_caches import ImageCache, ImageCacheStatus, Policy, PolicyMode
from prewarm.model.images import PullPolicy
from prewarm.model.pods import Toleration
from prewarm.model.selectors import LabelSelector

ROOT = Path(__file__).parents[3]
ENTRY = {"images": ["web:v1"]}


def decoded(spec: object) -> ImageCache:
    return decode_image_cache({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (None, "spec: null: write an object with fields"),
        ([], "spec: write an object with fields"),
        ({}, "spec.cacheSpec: this field is required"),
        ({"cacheSpec": []}, "spec.cacheSpec: at least 1 entry is needed"),
        ({"cacheSpec": [ENTRY] * 33}, "spec.cacheSpec: at most 32 are allowed"),
        ({"cacheSpec": [{}]}, "spec.cacheSpec[0].images: this field is required"),
        ({"cacheSpec": [{"images": "web:v1"}]}, "spec.cacheSpec[0].images: 'web:v1': write a list"),
        (
            {"cacheSpec": [{"images": ["web:v1", "https://registry.example/web"]}]},
            (
                "spec.cacheSpec[0].images[1]: image 'https://registry.example/web' is not an image reference "
                "such as registry.example/team/app:v1"
            ),
        ),
        (
            {"cacheSpec": [{"images": [7]}]},
            "spec.cacheSpec[0].images[0]: 7: write a text (in quotes where it looks like something else)",
        ),
        (
            {"cacheSpec": [ENTRY | {"nodeNames": ["Node_1"]}]},
            (
                "spec.cacheSpec[0].nodeNames[0]: 'Node_1': write a name in lower case letters, digits, '-' and '.', "
                "with a letter or digit at both ends"
            ),
        ),
        (
            {"cacheSpec": [ENTRY], "parallelism": "101%"},
            "spec.parallelism: write parallelism as a whole number from 1, or as a percentage from 1% to 100%",
        ),
        (
            {"cacheSpec": [ENTRY], "parallelism": True},
            "spec.parallelism: write parallelism as a whole number from 1, or as a percentage from 1% to 100%",
        ),
        (
            {"cacheSpec": [ENTRY], "imagePullPolicy": "Never"},
            "spec.imagePullPolicy: 'Never': write 'IfNotPresent' or 'Always'",
        ),
        (
            {"cacheSpec": [ENTRY], "neededBy": "tomorrow"},
            "spec.neededBy: write a time with its zone, such as 2026-01-31T12:00:00Z",
        ),
        (
            {"cacheSpec": [ENTRY], "neededBy": "2026-01-31T12:00:00"},
            "spec.neededBy: '2026-01-31T12:00:00': write a time with its zone, such as 2026-01-31T12:00:00Z",
        ),
        (
            {"cacheSpec": [ENTRY], "tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "spec.tolerations[0]: a toleration with operator Exists has no value",
        ),
        (
            {"cacheSpec": [ENTRY], "tolerations": [{"value": "b"}]},
            "spec.tolerations[0]: a toleration without a key needs operator Exists",
        ),
        (
            {"cacheSpec": [ENTRY], "attempts": {"limit": 0}},
            "spec.attempts.limit: 0: input should be greater than or equal to 1",
        ),
        (
            {"cacheSpec": [ENTRY], "hold": "9999999999h"},
            "spec.hold: write a duration such as 30s, 15m or 1h30m",
        ),
        ({"cacheSpec": [ENTRY], "suspend": "yes"}, "spec.suspend: 'yes': write true or false"),
        (
            {"cacheSpec": [ENTRY], "suspend": "yes", "priority": "high"},
            "spec.suspend: 'yes': write true or false (and 1 more)",
        ),
    ],
)
def test_a_bad_image_cache_says_what_would_be_right(spec: object, error: str) -> None:
    cache = decoded(spec)
    assert cache.error == error
    assert (cache.namespace, cache.name, cache.lists) == ("shop", "web", ())


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (None, "spec: null: write an object with fields"),
        ({"mode": "On"}, "spec.mode: 'On': write 'Active', 'Shadow' or 'Off'"),
        ({"scaleOut": {"headroom": 20}}, "spec.scaleOut.headroom: 20: write a text (in quotes where it looks like "),
        ({"scaleOut": {"headroom": "20"}}, "spec.scaleOut.headroom: '20': write a percentage from 0% to 1000%"),
        ({"scaleOut": {"headroom": "1001%"}}, "spec.scaleOut.headroom: '1001%': write a percentage from 0% to 1000%"),
        ({"placement": {"coverage": 95}}, "spec.placement.coverage: 95: input should be less than or equal to 1"),
        ({"hold": "2 hours"}, "spec.hold: write a duration such as 30s, 15m or 1h30m"),
        ({"rollout": {"gate": "2h"}}, "spec.rollout.gate: write a duration up to 1h, such as 10m"),
        ({"rollout": {"gate": True}}, "spec.rollout.gate: True: write a text (in quotes where it looks like"),
        ({"hold": 7200}, "spec.hold: 7200: write a text (in quotes where it looks like something else)"),
        ({"hold": "9999999999h"}, "spec.hold: write a duration such as 30s, 15m or 1h30m"),
        ({"placement": {"maxOverprovision": 0.5}}, "spec.placement.maxOverprovision: 0.5: input should be greater "),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "spec.namespaceSelector.matchExpressions[0]: operators In and NotIn need values, Exists and ",
        ),
    ],
)
def test_a_bad_policy_says_what_would_be_right_and_is_off(spec: object, error: str) -> None:
    policy = decode_policy({"metadata": {"name": "mine"}, "spec": spec})
    assert policy.error.startswith(error)
    assert (policy.name, policy.mode) == ("mine", PolicyMode.OFF)


@pytest.mark.parametrize("garbage", [{}, {"metadata": 7}, {"metadata": {"name": 7, "labels": [], "annotations": "x"}}])
def test_garbage_is_decoded_to_an_object_with_an_error_or_without_knowledge(garbage: dict[str, object]) -> None:
    assert decode_image_cache(garbage).error
    assert decode_policy(garbage).error
    assert decode_node_images(garbage | {"status": {"images": [{"image": 1}]}}).images == ()


def test_defaults_of_the_schema_are_those_of_the_model() -> None:
    cache = decoded({"cacheSpec": [ENTRY]})
    bare = ImageCache("shop", "web", lists=cache.lists)
    assert cache == bare
    assert decode_policy({"metadata": {"name": "default"}, "spec": {}}) == Policy()


def test_every_field_of_the_full_example_is_read() -> None:
    cache = decode_image_cache(yaml.safe_load((ROOT / "examples/image-cache-full.yaml").read_text()))
    assert cache.error == ""
    assert cache.lists[0].node_names == ("node-1", "node-2")
    assert cache.lists[0].node_selector == (("kubernetes.io/os", "linux"),)
    assert cache.pull_secrets == ("registry-credentials",)
    assert cache.service_account == "web"
    assert cache.pull_policy is PullPolicy.ALWAYS
    assert cache.tolerations == (
        Toleration("dedicated", "Equal", "web", "NoExecute"),
        Toleration("gpu", "Exists"),
    )
    assert (cache.parallelism, cache.attempt_timeout_seconds, cache.attempt_limit) == (5, 1800, 3)
    assert (cache.priority, cache.needed_by) == (100, 1_796_104_800.0)


def test_identity_owner_and_origin_of_a_planned_one_are_read() -> None:
    cache = decode_image_cache(
        {
            "metadata": {
                "namespace": "shop",
                "name": "web",
                "uid": "u",
                "generation": 3,
                "resourceVersion": "17",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-01T00:01:00Z",
                "labels": {"prewarm.dev/planned": "true"},
                "annotations": {"prewarm.dev/workload": "deployment/shop/web", "prewarm.dev/plan": "{}"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "w"}],
            },
            "spec": {"cacheSpec": [ENTRY]},
            "status": {"desired": 4, "failures": "broken"},
        }
    )
    assert cache.planned
    assert (cache.workload, cache.plan_annotation) == ("deployment/shop/web", "{}")
    assert cache.owner is not None
    assert (cache.owner.kind, cache.owner.uid) == ("Deployment", "w")
    assert (cache.uid, cache.generation, cache.resource_version) == ("u", 3, "17")
    assert (cache.created_at, cache.deleted_at) == (1_767_225_600.0, 1_767_225_660.0)
    assert cache.status == ImageCacheStatus()


@pytest.mark.parametrize(
    "time", ["9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00+10:00"]
)
def test_a_status_with_times_at_the_ends_of_the_calendar_is_read_and_written(time: str) -> None:
    """Whoever may write a status may write these; the API server takes them."""
    condition = {"type": "Ready", "status": "True", "reason": "Warm", "message": "", "lastTransitionTime": time}
    raw = {"conditions": [condition], "startedAt": time, "failures": [{"image": "a", "node": "n", "at": time}]}
    status = decode_status(raw)
    assert status.started_at is not None
    again = decode_status(encode_status(status))
    assert again.started_at is not None
    assert abs(again.started_at - status.started_at) <= 36_000


def test_an_annotation_that_is_too_long_to_be_ours_is_not_kept() -> None:
    cache = decode_image_cache(
        {
            "metadata": {"name": "web", "annotations": {"prewarm.dev/plan": "x" * 100_000}},
            "spec": {"cacheSpec": [ENTRY]},
        }
    )
    assert cache.plan_annotation == ""


def test_ready_made_policies_are_valid_and_named_like_their_files() -> None:
    files = sorted((ROOT / "policies").glob("*.yaml"))
    policies = {file.stem: decode_policy(yaml.safe_load(file.read_text())) for file in files}
    assert {name: (policy.name, policy.error) for name, policy in policies.items()} == {
        name: (name, "") for name in policies
    }
    assert policies[DEFAULT_POLICY] == Policy(), "the file spells out what holds without it"
    assert policies["shadow"].mode is PolicyMode.SHADOW
    assert policies["shadow"].namespace_selector == LabelSelector((("prewarm.dev/shadow", "true"),))
