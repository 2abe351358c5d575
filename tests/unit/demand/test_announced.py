"""Images that a workload's owner announces by annotation."""

import pytest
from msgspec.structs import replace

from prewarm.demand import Coverage, coverage, demands
from prewarm.history import History
from prewarm.model.image_caches import Policy
from prewarm.model.plans import Demand, Trigger
from prewarm.model.progressive import ImagePolicy
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload
from tests.support.clusters import ENABLED, WEB, cluster, deployment, template
from tests.support.player import Player, varied_nodes

V1 = template("registry.test/web:v1", "registry.test/proxy:v1")
V2 = template("registry.test/web:v2", "registry.test/proxy:v1")


def announcing(text: str, replicas: int = 6) -> Player:
    workload = deployment(V1, replicas=replicas, annotations={**ENABLED, "prewarm.dev/next-images": text})
    player = Player(varied_nodes(12, 1), workload, pull_seconds=1.0)
    player.reconcile()
    player.settle()
    player.now += 600
    return player


def asked(snapshot: ClusterSnapshot, policy: Policy | None = None) -> tuple[Demand, ...]:
    return demands(snapshot, WEB, policy or Policy(), History())


def problem(text: str, pod_template: object = V1) -> str:
    workload = deployment(template("registry.test/web:v1"), annotations={**ENABLED, "prewarm.dev/next-images": text})
    if pod_template is V1:
        workload = replace(workload, template=V1)
    return coverage(cluster(workloads=[workload]), workload).problem


def changed_to(workload: Workload, pod_template: object) -> Workload:
    return replace(workload, template=pod_template, template_hash="v2-v1")


def test_all_pods_of_the_announced_revision_are_planned_for() -> None:
    player = announcing("c0=registry.test/web:v2")
    (demand,) = asked(player.snapshot())
    assert demand.trigger is Trigger.ANNOUNCED
    assert demand.images == ("registry.test/web:v2", "registry.test/proxy:v1")
    assert demand.pods == 6
    assert demand.batches[0].needed_at > player.now + 3600
    assert len(demand.leaving) == 6


def test_what_is_there_already_is_no_announcement() -> None:
    assert asked(announcing("c0=registry.test/web:v1").snapshot()) == ()


def test_an_announcement_is_over_once_the_template_has_it() -> None:
    player = announcing("c0=registry.test/web:v2")
    player.change(V2)
    (demand,) = asked(player.snapshot())
    assert demand.trigger is Trigger.ROLLOUT


def test_the_next_images_are_announced_while_the_last_ones_roll_out() -> None:
    player = announcing("c0=registry.test/web:v3")
    player.change(V2)
    rolling, ahead = asked(player.snapshot())
    assert (rolling.trigger, ahead.trigger) == (Trigger.ROLLOUT, Trigger.ANNOUNCED)
    assert ahead.images[0] == "registry.test/web:v3"
    assert rolling.revision != ahead.revision


def test_a_policy_without_rollouts_heeds_no_announcement() -> None:
    assert asked(announcing("c0=registry.test/web:v2").snapshot(), Policy(rollout=False)) == ()


@pytest.mark.parametrize(
    "text", ["c0=registry.test/web:v2, c1=registry.test/proxy:v2", "c0=registry.test/web:v2\nc1=registry.test/proxy:v2"]
)
def test_several_images_are_separated_by_commas_or_white_space(text: str) -> None:
    (demand,) = asked(announcing(text).snapshot())
    assert demand.images == ("registry.test/web:v2", "registry.test/proxy:v2")


def test_a_lone_container_needs_no_name() -> None:
    workload = deployment(
        template("registry.test/web:v1"), annotations={**ENABLED, "prewarm.dev/next-images": "registry.test/web:v2"}
    )
    announced = coverage(cluster(workloads=[workload]), workload).announced
    assert announced is not None
    assert announced.template.shape.images == ("registry.test/web:v2",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("registry.test/web:v2", "names no container"),
        ("web=registry.test/web:v2", "there is no container 'web'; there are: c0, c1"),
        ("c0=", "container=image"),
        ("c0=registry.test/web:v2:v3", "container=image"),
        ("c0=$(reboot)", "container=image"),
        ("c0=registry.test/web:v2 " * 65, "at most 64"),
        ("x" * 100_000, "characters"),
    ],
)
def test_a_bad_announcement_is_one_clear_line_for_the_owner(text: str, told: str) -> None:
    line = problem(text)
    assert "annotation prewarm.dev/next-images of deployment/shop/web" in line
    assert told in line
    assert "\n" not in line
    assert len(line) < 500


def flux(annotation: str, *found: ImagePolicy, image: str = "registry.test/web:v1", **said: str) -> Coverage:
    """What is announced for a Deployment with one container whose annotation names ImagePolicies."""
    annotations = {**ENABLED, "prewarm.dev/image-policies": annotation, **said}
    workload = deployment(template(image), annotations=annotations)
    return coverage(cluster(workloads=[workload], image_policies=found), workload)


def images(found: Coverage) -> tuple[str, ...]:
    assert not found.problem
    return () if found.announced is None else found.announced.template.shape.images


LATEST = ImagePolicy("flux-system", "web", "registry.test/web:v2")


@pytest.mark.parametrize("annotation", ["flux-system/web", "c0=flux-system/web"])
def test_what_flux_has_found_is_announced(annotation: str) -> None:
    assert images(flux(annotation, LATEST)) == ("registry.test/web:v2",)


def test_an_image_policy_without_a_namespace_is_in_the_workloads_own() -> None:
    assert images(flux("web", replace(LATEST, namespace="shop"))) == ("registry.test/web:v2",)
    assert images(flux("web", LATEST)) == ()


@pytest.mark.parametrize("found", [(), (replace(LATEST, image=""),), (replace(LATEST, image="registry.test/web:v1"),)])
def test_an_image_policy_that_is_absent_or_brings_nothing_new_announces_nothing(found: tuple[ImagePolicy, ...]) -> None:
    assert images(flux("flux-system/web", *found)) == ()


def test_the_same_image_spelt_differently_is_nothing_new() -> None:
    found = replace(LATEST, image="docker.io/library/web:v1")
    assert images(flux("flux-system/web", found, image="web:v1")) == ()


def test_a_digest_counts_where_the_template_has_one() -> None:
    digest = "@sha256:" + "a" * 64
    found = replace(LATEST, image=f"registry.test/web:v2{digest}")
    assert images(flux("flux-system/web", found)) == ("registry.test/web:v2",)
    pinned = "registry.test/web:v1@sha256:" + "b" * 64
    assert images(flux("flux-system/web", found, image=pinned)) == (f"registry.test/web:v2{digest}",)


def test_what_the_owner_announces_goes_first() -> None:
    said = {"prewarm.dev/next-images": "registry.test/web:v9"}
    assert images(flux("flux-system/web", LATEST, **said)) == ("registry.test/web:v9",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("web=flux-system/web", "there is no container 'web'"),
        ("c0=Flux/web", "names no ImagePolicy"),
        ("c0=a/b/c", "names no ImagePolicy"),
        ("c0=", "names no ImagePolicy"),
        ("c0=web " * 65, "at most 64"),
        ("x" * 100_000, "characters"),
    ],
)
def test_a_bad_name_of_an_image_policy_is_one_clear_line(text: str, told: str) -> None:
    line = flux(text, LATEST).problem
    assert "annotation prewarm.dev/image-policies of deployment/shop/web" in line
    assert told in line
    assert len(line) < 500
