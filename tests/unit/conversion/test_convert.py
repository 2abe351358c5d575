"""What becomes of every field of kube-fledged's and OpenKruise's kinds."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prewarm.api.image_cache import decode_image_cache
from prewarm.conversion import ConversionError, Converted, Document, convert, documents
from prewarm.model.image_caches import DeletionPolicy, ImageCache
from prewarm.model.images import PullPolicy
from prewarm.model.pods import Toleration
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement

DATA = Path(__file__).parents[2] / "data" / "foreign"
FLEDGED = "kubefledged.io/v1alpha2"
KRUISE = "apps.kruise.io/v1beta1"
IMAGE = "registry.example/web:v1"
Spec = Mapping[str, Any]


def made(api_version: str, kind: str, spec: object, **metadata: object) -> Converted:
    content = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "one", **metadata}, "spec": spec}
    return convert(Document("f", 1, content))


def cache(converted: Converted) -> ImageCache:
    decoded = decode_image_cache(converted.manifest)
    assert decoded.error == ""
    return decoded


def fledged(spec: object, **metadata: object) -> Converted:
    return made(FLEDGED, "ImageCache", spec, **metadata)


def pull_job(**spec: object) -> Converted:
    return made(KRUISE, "ImagePullJob", {"image": IMAGE, "completionPolicy": {"type": "Always"}, **spec})


def remarks(converted: Converted) -> dict[str, str]:
    return {remark.field: remark.why for remark in converted.remarks}


def of_file(name: str) -> list[Converted]:
    """What can be converted of a file; what a controller made is passed over."""
    found = []
    for document in documents((DATA / name).read_text(encoding="utf-8"), name):
        with suppress(ConversionError):
            found.append(convert(document))
    return found


# Documents that people have


def test_kube_fledgeds_sample() -> None:
    (converted,) = of_file("kube-fledged-sample.yaml")
    found = cache(converted)
    assert found.key == ("kube-fledged", "imagecache1")
    assert [entry.images for entry in found.lists] == [
        ("ghcr.io/jitesoft/nginx:1.23.1",),
        ("us.gcr.io/k8s-artifacts-prod/cassandra:v7", "us.gcr.io/k8s-artifacts-prod/etcd:3.5.4-0"),
    ]
    assert [entry.node_selector for entry in found.lists] == [(), (("tier", "backend"),)]
    assert found.pull_secrets == ("myregistrykey",)
    assert set(remarks(converted)) == {"spec.cacheSpec"}


def test_the_walk_throughs_object_after_its_first_list_was_emptied() -> None:
    (converted,) = of_file("kube-fledged-get.json")
    found = cache(converted)
    assert [entry.images for entry in found.lists] == [(), ("liruilong/hikvision-sdk-config-ftp:latest",)]
    assert found.lists[1].node_selector == (("kubernetes.io/hostname", "vms105.liruilongs.github.io"),)
    assert set(remarks(converted)) == {"spec.cacheSpec[0].images[0]", "spec.cacheSpec"}
    assert set(converted.manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert converted.manifest["metadata"] == {"name": "imagecache1", "namespace": "kube-fledged"}


def test_openkruises_three_patterns() -> None:
    base, sidecar, pool = (cache(converted) for converted in of_file("openkruise-patterns.yaml"))
    assert not base.completion.once
    assert base.refresh_seconds == 86_400
    assert (base.parallelism, base.attempt_timeout_seconds, base.attempt_limit) == (10, 300, 4)
    assert (sidecar.completion.once, sidecar.completion.deadline_seconds, sidecar.completion.ttl_seconds) == (
        True,
        1800,
        300,
    )
    assert pool.lists[0].node_selector == (("resource-pool", "serverless"),)


def test_a_whole_answer_of_kubectl_get() -> None:
    job, listed = of_file("openkruise-get.yaml")
    assert job.manifest["metadata"] == {
        "name": "warm-web",
        "namespace": "shop",
        "labels": {"team": "shop"},
        "annotations": {"team.example/contact": "shop-on-call"},
    }
    assert set(remarks(job)) == {"spec.sandboxConfig"}
    assert [entry.images for entry in cache(listed).lists] == [
        ("registry.example/base/java:21", "registry.example/base/python:3.14")
    ]


# kube-fledged, field by field


@pytest.mark.parametrize(
    "version", ["kubefledged.k8s.io/v1alpha1", "kubefledged.io/v1alpha2", "kubefledged.io/v1alpha3"]
)
def test_every_version_of_kube_fledged(version: str) -> None:
    assert cache(made(version, "ImageCache", {"cacheSpec": [{"images": [IMAGE]}]})).lists[0].images == (IMAGE,)


def test_images_of_v1alpha3_are_objects() -> None:
    images = [{"name": IMAGE, "forceFullCache": True}, {"name": "b:1", "forceFullCache": False}]
    converted = made("kubefledged.io/v1alpha3", "ImageCache", {"cacheSpec": [{"images": images}]})
    assert cache(converted).lists[0].images == (IMAGE, "b:1")
    assert set(remarks(converted)) == {"spec.cacheSpec[0].images[0].forceFullCache", "spec.cacheSpec"}


def test_both_projects_reach_tainted_nodes_and_so_does_the_result() -> None:
    everything = (Toleration(operator="Exists"),)
    assert cache(fledged({"cacheSpec": [{"images": [IMAGE]}]})).tolerations == everything
    assert cache(pull_job()).tolerations == everything


@pytest.mark.parametrize("group", ["kubefledged.io", "kubefledged.k8s.io"])
@pytest.mark.parametrize(("theirs", "ours"), [("refresh-imagecache", "refresh"), ("purge-imagecache", "purge")])
@pytest.mark.parametrize("value", ["", "now"])
def test_requests_are_kept_with_their_value(group: str, theirs: str, ours: str, value: str) -> None:
    converted = fledged({"cacheSpec": [{"images": [IMAGE]}]}, annotations={f"{group}/{theirs}": value})
    assert converted.manifest["metadata"] == {"name": "one", "annotations": {f"prewarm.dev/{ours}": value}}


def test_a_request_to_purge_wins_as_it_does_there() -> None:
    both = {"kubefledged.io/refresh-imagecache": "", "kubefledged.io/purge-imagecache": ""}
    converted = fledged({"cacheSpec": [{"images": [IMAGE]}]}, annotations=both)
    assert (cache(converted).refresh_request, cache(converted).purge_request) == (None, "")
    assert "metadata.annotations.refresh-imagecache" in remarks(converted)


@pytest.mark.parametrize("spec", [{}, {"cacheSpec": None}, {"cacheSpec": []}])
def test_a_cache_without_lists_asks_for_no_image(spec: Spec) -> None:
    converted = fledged(spec)
    assert [entry.images for entry in cache(converted).lists] == [()]
    assert "spec.cacheSpec" in remarks(converted)


def test_a_list_whose_images_are_all_commented_out_is_empty() -> None:
    converted = fledged({"cacheSpec": [{"images": None, "nodeSelector": None}]})
    assert cache(converted).lists[0].images == ()
    assert converted.remarks == ()


def test_an_image_that_stands_twice_is_kept_once() -> None:
    converted = fledged({"cacheSpec": [{"images": [IMAGE, IMAGE]}, {"images": [IMAGE]}]})
    assert [entry.images for entry in cache(converted).lists] == [(IMAGE,), (IMAGE,)]
    assert set(remarks(converted)) == {"spec.cacheSpec[0].images[1]", "spec.cacheSpec"}


def test_images_that_are_taken_out_stay_where_they_left_and_that_is_told() -> None:
    converted = fledged({"cacheSpec": [{"images": [IMAGE]}]})
    assert cache(converted).deletion_policy is DeletionPolicy.RETAIN
    why = remarks(converted)["spec.cacheSpec"]
    assert "an image that is taken out leaves the nodes, with us it stays" in why
    assert "deletionPolicy: Purge" in why


def test_a_list_that_is_longer_than_ours_may_be_is_split() -> None:
    images = [f"registry.example/app:{number}" for number in range(600)]
    found = cache(fledged({"cacheSpec": [{"images": images, "nodeSelector": {"a": "b"}}]}))
    assert [image for entry in found.lists for image in entry.images] == images
    assert {entry.node_selector for entry in found.lists} == {(("a", "b"),)}
    assert len(found.lists) == 3


def test_labels_by_which_tools_keep_their_books_stay_behind() -> None:
    labels = {
        "app": "kubefledged",
        "kubefledged": "imagecache",
        "app.kubernetes.io/instance": "fledged",
        "app.kubernetes.io/name": "images",
        "helm.sh/chart": "x-1",
        "team": "a",
    }
    converted = fledged({"cacheSpec": [{"images": [IMAGE]}]}, labels=labels)
    metadata = converted.manifest["metadata"]
    assert isinstance(metadata, Mapping)
    assert metadata["labels"] == {"app.kubernetes.io/name": "images", "team": "a"}


def test_a_generated_name_becomes_a_name() -> None:
    converted = fledged({"cacheSpec": [{"images": [IMAGE]}]}, name=None, generateName="warm-web-")
    assert cache(converted).name == "warm-web"
    assert "metadata.generateName" in remarks(converted)


# OpenKruise, field by field


@pytest.mark.parametrize("version", ["apps.kruise.io/v1alpha1", "apps.kruise.io/v1beta1"])
def test_every_version_of_openkruise(version: str) -> None:
    job = made(version, "ImagePullJob", {"image": IMAGE})
    listed = made(version, "ImageListPullJob", {"images": [IMAGE, "b:1"]})
    assert cache(job).lists[0].images == (IMAGE,)
    assert cache(listed).lists[0].images == (IMAGE, "b:1")


def test_a_digest_that_openkruise_cannot_pull_is_kept() -> None:
    image = "registry.example/web@sha256:" + "0" * 64
    assert cache(pull_job(image=image)).lists[0].images == (image,)


def test_nodes_by_name() -> None:
    assert cache(pull_job(selector={"names": ["b", "a", "b"]})).lists[0].node_names == ("b", "a")


@pytest.mark.parametrize("selector", [None, {}, {"names": []}, {"matchLabels": {}}])
def test_a_selector_without_conditions_means_every_node_as_it_does_there(selector: object) -> None:
    (entry,) = cache(pull_job(selector=selector)).lists
    assert (entry.node_names, entry.node_selector, entry.node_selector_terms) == (None, (), ())


def test_nodes_by_labels_and_expressions() -> None:
    expressions = [
        {"key": "zone", "operator": "In", "values": ["a", "b"]},
        {"key": "spot", "operator": "DoesNotExist"},
    ]
    (entry,) = cache(pull_job(selector={"matchLabels": {"pool": "web"}, "matchExpressions": expressions})).lists
    assert entry.node_selector == (("pool", "web"),)
    assert entry.node_selector_terms == (
        NodeSelectorTerm((Requirement("zone", Operator.IN, ("a", "b")), Requirement("spot", Operator.DOES_NOT_EXIST))),
    )


def test_nodes_of_pods() -> None:
    (entry,) = cache(pull_job(podSelector={"matchLabels": {"app": "web"}})).lists
    assert entry.pod_selector == LabelSelector((("app", "web"),))


@pytest.mark.parametrize(
    ("theirs", "parallelism", "suspend"),
    [
        (None, None, False),
        (10, 10, False),
        ("10", 10, False),
        ("10%", "10%", False),
        (0, None, True),
        ("0", None, True),
    ],
)
def test_parallelism(theirs: object, parallelism: object, suspend: bool) -> None:
    found = cache(pull_job(parallelism=theirs))
    assert (found.parallelism, found.suspend) == (parallelism, suspend)


def test_parallelism_of_a_list_counts_otherwise_and_is_remarked() -> None:
    spec = {"images": [IMAGE, "b:1"], "parallelism": 5}
    assert "spec.parallelism" in remarks(made(KRUISE, "ImageListPullJob", spec))
    assert remarks(made(KRUISE, "ImageListPullJob", {**spec, "images": [IMAGE]})) == {}


@pytest.mark.parametrize(
    ("policy", "timeout", "limit"),
    [
        (None, None, 5),
        ({}, None, 5),
        ({"timeoutSeconds": 300, "backoffLimit": 3}, 300, 4),
        ({"backoffLimit": 0}, None, 1),
        ({"timeoutSeconds": 5, "backoffLimit": 1000}, 10, 100),
    ],
)
def test_attempts(policy: object, timeout: int | None, limit: int) -> None:
    found = cache(pull_job(pullPolicy=policy))
    assert (found.attempt_timeout_seconds, found.attempt_limit) == (timeout, limit)


def test_numbers_beyond_our_bounds_are_remarked() -> None:
    converted = pull_job(
        pullPolicy={"timeoutSeconds": 1, "backoffLimit": 500}, completionPolicy={"activeDeadlineSeconds": 0}
    )
    assert set(remarks(converted)) == {
        "spec.pullPolicy.timeoutSeconds",
        "spec.pullPolicy.backoffLimit",
        "spec.completionPolicy.activeDeadlineSeconds",
    }


@pytest.mark.parametrize("policy", [None, {}, {"type": ""}, {"type": "Always"}])
def test_a_job_ends_unless_it_says_otherwise(policy: object) -> None:
    found = cache(pull_job(completionPolicy=policy))
    assert found.completion.once
    assert found.refresh_seconds is None


def test_a_job_that_never_ends_looks_once_a_day_and_has_no_deadline() -> None:
    policy = {"type": "Never", "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 60}
    converted = pull_job(completionPolicy=policy)
    assert not cache(converted).completion.once
    assert cache(converted).refresh_seconds == 86_400
    assert set(remarks(converted)) == {
        "spec.completionPolicy.activeDeadlineSeconds",
        "spec.completionPolicy.ttlSecondsAfterFinished",
    }


@pytest.mark.parametrize(
    ("theirs", "ours"), [(None, None), ("", None), ("IfNotPresent", None), ("Always", PullPolicy.ALWAYS)]
)
def test_image_pull_policy(theirs: object, ours: PullPolicy | None) -> None:
    assert cache(pull_job(imagePullPolicy=theirs)).pull_policy is ours


def test_pull_secrets() -> None:
    assert cache(pull_job(pullSecrets=["a", "b", "a"])).pull_secrets == ("a", "b")


def test_an_advanced_cron_job_of_images_becomes_a_schedule() -> None:
    template = {"spec": {"images": [IMAGE], "completionPolicy": {"type": "Always", "activeDeadlineSeconds": 60}}}
    spec = {
        "schedule": "0 5 * * *",
        "timeZone": "Europe/Berlin",
        "paused": True,
        "template": {"imageListPullJobTemplate": template},
    }
    converted = made(KRUISE, "AdvancedCronJob", spec)
    found = cache(converted)
    assert found.schedule is not None
    assert (found.schedule.cron, found.schedule.time_zone, found.suspend) == ("0 5 * * *", "Europe/Berlin", True)
    assert not found.completion.once
    assert set(remarks(converted)) == {
        "spec.template.imageListPullJobTemplate.spec.completionPolicy.activeDeadlineSeconds"
    }


def test_fields_that_the_kind_does_not_have_are_remarked_wherever_they_stand() -> None:
    converted = pull_job(
        images=["x"],
        selector={"name": "n1"},
        podSelector={"matchExpressions": [{"key": "a", "operator": "Exists", "x": 1}]},
    )
    assert set(remarks(converted)) == {"spec.images", "spec.selector.name", "spec.podSelector.matchExpressions[0].x"}


# What is not converted


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}, "apps/v1 Deployment is no list"),
        ({"apiVersion": "prewarm.dev/v1alpha1", "kind": "ImageCache"}, "prewarm's own"),
        ({"apiVersion": "apps.kruise.io/v1beta1", "kind": "NodeImage"}, "prewarm keeps its own"),
        ({"apiVersion": "apps.kruise.io/v1beta1", "kind": "CloneSet"}, "is no list"),
        ({"apiVersion": "apps.kruise.io/v1beta1", "kind": "AdvancedCronJob"}, "runs other jobs"),
        ({"replicas": 3}, "no apiVersion and kind"),
    ],
)
def test_other_kinds_are_passed_over_by_name(content: Spec, says: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(Document("f", 1, content))
    assert says in str(caught.value)
    assert caught.value.harmless


def test_what_a_controller_made_or_somebody_deletes_is_passed_over() -> None:
    owner = {"kind": "CloneSet", "name": "web", "controller": True}
    for metadata in ({"ownerReferences": [owner]}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}):
        with pytest.raises(ConversionError) as caught:
            made(KRUISE, "ImagePullJob", {"image": IMAGE}, **metadata)
        assert caught.value.harmless


@pytest.mark.parametrize(
    ("kind", "spec", "says"),
    [
        ("ImagePullJob", None, "spec: null: write an object"),
        ("ImagePullJob", {}, "spec.image: this field is required"),
        ("ImagePullJob", {"image": ""}, "spec.image: write an image"),
        ("ImagePullJob", {"image": "a b"}, "spec.image: image 'a b' is not an image reference"),
        ("ImagePullJob", {"image": 1.25}, "spec.image: 1.25: write a text"),
        ("ImagePullJob", {"image": IMAGE, "parallelism": "many"}, "spec.parallelism: 'many': write a number"),
        ("ImagePullJob", {"image": IMAGE, "parallelism": -1}, "spec.parallelism: -1: write a number"),
        ("ImagePullJob", {"image": IMAGE, "parallelism": [1]}, "spec.parallelism: write a number"),
        ("ImagePullJob", {"image": IMAGE, "parallelism": "500%"}, "spec.parallelism"),
        ("ImagePullJob", {"image": IMAGE, "imagePullPolicy": "Never"}, "spec.imagePullPolicy: 'Never': write"),
        ("ImagePullJob", {"image": IMAGE, "completionPolicy": {"type": "Once"}}, "spec.completionPolicy.type"),
        ("ImagePullJob", {"image": IMAGE, "pullPolicy": {"timeoutSeconds": "5m"}}, "spec.pullPolicy.timeoutSeconds"),
        ("ImagePullJob", {"image": IMAGE, "selector": {"names": ["No_Name"]}}, "spec.cacheSpec[0].nodeNames[0]"),
        ("ImagePullJob", {"image": IMAGE, "selector": {"matchLabels": {"gpu": True}}}, "write a text (in quotes"),
        ("ImageListPullJob", {"images": "a:1"}, "spec.images: 'a:1': write a list"),
        (
            "AdvancedCronJob",
            {"schedule": "@daily", "template": {"imageListPullJobTemplate": {"spec": {"images": [IMAGE]}}}},
            "spec.schedule.cron: write the five fields",
        ),
    ],
)
def test_a_wrong_job_says_what_would_be_right(kind: str, spec: object, says: str) -> None:
    with pytest.raises(ConversionError) as caught:
        made(KRUISE, kind, spec)
    assert says in str(caught.value)
    assert not caught.value.harmless


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"cacheSpec": [{"images": [IMAGE, 1]}]}, "spec.cacheSpec[0].images[1]: write an image as text"),
        ({"cacheSpec": [{"images": ["$(reboot)"]}]}, "spec.cacheSpec[0].images[0]: image '$(reboot)'"),
        ({"cacheSpec": [{"images": [IMAGE], "nodeSelector": ["a"]}]}, "spec.cacheSpec[0].nodeSelector: write"),
        ({"cacheSpec": [{"images": [IMAGE]}] * 40}, "spec.cacheSpec: at most 32"),
        ({"imagePullSecrets": ["a"]}, "spec.imagePullSecrets[0]"),
    ],
)
def test_a_wrong_cache_says_what_would_be_right(spec: object, says: str) -> None:
    with pytest.raises(ConversionError) as caught:
        fledged(spec)
    assert says in str(caught.value)


def test_an_unknown_version_is_no_guess() -> None:
    with pytest.raises(ConversionError) as caught:
        made("kubefledged.io/v2", "ImageCache", {"cacheSpec": []})
    assert "v1alpha1, v1alpha2, v1alpha3" in str(caught.value)
    assert not caught.value.harmless


def test_a_document_without_name_says_so() -> None:
    with pytest.raises(ConversionError, match=r"metadata\.name: this field is required"):
        fledged({"cacheSpec": [{"images": [IMAGE]}]}, name=None)
