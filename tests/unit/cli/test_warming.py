"""What `prewarm warm` writes, and how it reads the status."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from prewarm.api.image_cache import decode_image_cache, image_cache_manifest
from prewarm.cli.asks import ImagesOnNodes, WorkloadAhead
from prewarm.cli.errors import CommandError, ExitCode
from prewarm.cli.warming import Nothing, Progress, images_cache, progress, verdict, workload_cache
from prewarm.demand.what_if import PREDICTED_KINDS
from prewarm.history import History
from prewarm.model.image_caches import Condition, ImageCache, ImageCacheStatus, PullFailure
from prewarm.model.nodes import NodeImageStatus
from prewarm.model.pods import OwnerReference, Pod, PodPhase
from prewarm.model.snapshot import ClusterSnapshot
from tests.support.clusters import WEB, cluster, deployment, node, replica_set, template

NEW = "registry.test/web:v2"


def shop(nodes: int = 10, replicas: int = 4, present: int = 0) -> ClusterSnapshot:
    """A Deployment that runs and that nobody opted in; the first `present` nodes have the next image."""
    there = (NodeImageStatus((NEW,), 10**8),)
    workload = deployment(template("registry.test/web:v1"), replicas=replicas, annotations={})
    current = replica_set(workload, workload.template, replicas)
    pods = [
        Pod(
            "shop",
            f"web-{number}",
            uid=f"web-{number}",
            node_name=f"n{number:03d}",
            labels=current.labels,
            owner=OwnerReference("ReplicaSet", current.key.name, current.uid),
            shape=workload.template.shape,
            phase=PodPhase.RUNNING,
            ready_at=900.0,
        )
        for number in range(replicas)
    ]
    return cluster(
        nodes=[node(f"n{i:03d}", cpu=8 + i, images=there if i < present else ()) for i in range(nodes)],
        pods=pods,
        workloads=[workload],
        replica_sets=[current],
    )


def ahead(images: Mapping[str, str] | None = None, replicas: int | None = None, name: str = "") -> WorkloadAhead:
    return WorkloadAhead(WEB, dict({"c0": NEW} if images is None else images), replicas, 0.99, name)


def test_a_workloads_cache_covers_the_whole_rollout_and_goes_with_the_workload() -> None:
    cache = workload_cache(ahead(), shop(), History())
    assert isinstance(cache, ImageCache)
    assert (cache.namespace, cache.name, cache.planned) == ("shop", "warm-deploy-web", False)
    assert cache.workload == str(WEB)
    assert cache.owner is not None
    assert cache.owner.uid == "uid-web"
    (entry,) = cache.lists
    assert entry.images == (NEW,)
    assert entry.node_names is not None
    assert 4 <= len(entry.node_names) <= 8


def test_what_is_written_is_what_the_api_reads_back() -> None:
    cache = workload_cache(ahead(name="mine"), shop(), History())
    assert isinstance(cache, ImageCache)
    read = decode_image_cache(image_cache_manifest(cache))
    assert read.error == ""
    assert (read.name, read.lists, read.priority) == ("mine", cache.lists, cache.priority)


def test_nothing_is_written_where_nothing_is_to_be_pulled() -> None:
    same = workload_cache(ahead({}), shop(), History())
    assert isinstance(same, Nothing)
    everywhere = workload_cache(ahead(), shop(present=10), History())
    assert isinstance(everywhere, Nothing)
    assert NEW in everywhere.message


def test_unpredictable_landings_are_an_error_with_advice() -> None:
    workload = deployment(template("registry.test/web:v1"), replicas=3, annotations={})
    equal = cluster(nodes=[node(f"n{i:03d}") for i in range(300)], workloads=[workload])
    with pytest.raises(CommandError, match="cannot be predicted") as raised:
        workload_cache(ahead(), equal, History())
    assert raised.value.code is ExitCode.FAILED
    assert f"--image {NEW} -n shop" in str(raised.value)


def test_a_workload_that_is_not_there_is_wrong_usage() -> None:
    with pytest.raises(CommandError) as raised:
        workload_cache(ahead(), cluster(nodes=[node("a")]), History())
    assert raised.value.code is ExitCode.USAGE


def test_workloads_with_long_names_that_begin_alike_have_caches_of_their_own() -> None:
    def named(name: str) -> ImageCache:
        found = shop()
        key = replace(WEB, name=name)
        (workload,) = found.workloads.values()
        found = replace(found, workloads={key: replace(workload, key=key)})
        cache = workload_cache(replace(ahead(), workload=key), found, History())
        assert isinstance(cache, ImageCache)
        assert len(cache.name) <= 63
        assert decode_image_cache(image_cache_manifest(cache)).error == ""
        return cache

    assert named("web").name == "warm-deploy-web"
    assert named("w" * 60 + "-blue").name != named("w" * 60 + "-green").name


@pytest.mark.parametrize("kind", PREDICTED_KINDS)
def test_any_kind_whose_next_pods_are_predicted_can_be_warmed(kind: str) -> None:
    key = replace(WEB, kind=kind)
    found = shop()
    (workload,) = found.workloads.values()
    found = replace(found, workloads={key: replace(workload, key=key)})
    try:
        made = workload_cache(replace(ahead(), workload=key), found, History())
    except CommandError:
        return
    assert isinstance(made, Nothing) or made.name.startswith("warm-")


def test_equal_questions_about_images_have_one_name() -> None:
    def asked(*images: str, nodes: tuple[str, ...] | None = None) -> ImageCache:
        return images_cache(ImagesOnNodes("shop", images, nodes, (("pool", "web"),), (), ""))

    assert asked("a:1").name == asked("a:1").name
    assert len({asked("a:1").name, asked("b:1").name, asked("a:1", nodes=("n",)).name}) == 3
    names = {
        images_cache(ImagesOnNodes("shop", ("a:1",), None, (), secrets, account)).name
        for secrets, account in [((), ""), (("one",), ""), (("two",), ""), ((), "puller")]
    }
    assert len(names) == 4, "who pulls as somebody else does not change what others asked for"
    assert decode_image_cache(image_cache_manifest(asked("a:1", nodes=("n",)))).error == ""


def cache(generation: int = 2, observed: int = 2, **conditions: tuple[bool, str]) -> ImageCache:
    status = ImageCacheStatus(
        observed_generation=observed,
        conditions=tuple(Condition(name, on, "Because", text, 0.0) for name, (on, text) in conditions.items()),
        failures=(PullFailure("a:1", "n1", "ImageNotFound", "manifest unknown"),) if "Degraded" in conditions else (),
    )
    return ImageCache("shop", "web", generation=generation, status=status)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (cache(observed=0), Progress.UNSEEN),
        (cache(observed=1, Ready=(True, "all there")), Progress.UNSEEN),
        (cache(Ready=(False, ""), Progressing=(True, "")), Progress.PULLING),
        (cache(Ready=(True, ""), Progressing=(False, "")), Progress.WARM),
        (cache(Ready=(False, "1 failed"), Progressing=(False, ""), Degraded=(True, "")), Progress.FAILED),
    ],
)
def test_progress_follows_the_conditions_of_this_generation(found: ImageCache, expected: Progress) -> None:
    assert progress(found) is expected


def test_the_verdict_names_failures_in_one_line() -> None:
    said = verdict(cache(Ready=(False, "0 of 1 there"), Degraded=(True, "")))
    assert said == "0 of 1 there; a:1 on n1: ImageNotFound manifest unknown"
    assert "is prewarm running?" in verdict(cache(observed=0))
