"""Which policy speaks for a namespace, and what an ImageCache that says nothing gets: policy first, then setting."""

import pytest
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, Limits, Policy, PullerForm
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Namespace
from prewarm.puller.defaults import Defaults
from prewarm.puller.policies import limits_by_namespace
from prewarm.puller.settings import PullerSettings
from tests.support.clusters import cluster

TENANT = LabelSelector((("tenant", "a"),))
SHOP = [Namespace("shop", {"tenant": "a"})]
CONTAINER, VOLUME = PullerForm.CONTAINER, PullerForm.VOLUME


def policy(name: str, images: int | None, selector: LabelSelector | None = None) -> Policy:
    limits = None if images is None else Limits(images=images)
    return Policy(name, namespace_selector=selector, limits=limits)


@pytest.mark.parametrize(
    ("policies", "images"),
    [
        ([], None),
        ([policy("default", 1)], 1),
        ([policy("default", 1), policy("b", 2, TENANT)], 2),
        ([policy("b", 2, TENANT), policy("a", 3, TENANT)], 3),
        ([policy("a", None, TENANT), policy("b", 2, TENANT)], 2),
        ([policy("a", 2, LabelSelector((("tenant", "b"),)))], None),
        ([policy("a", 2)], None),
        ([policy("a", 2, LabelSelector())], 2),
    ],
    ids=["none", "default", "selected before default", "by name", "without limits", "others", "unselected", "all"],
)
def test_the_first_policy_with_limits_that_selects_the_namespace_counts(
    policies: list[Policy], images: int | None
) -> None:
    limits = limits_by_namespace(cluster(policies=policies, namespaces=SHOP))("shop")
    assert (limits.images if limits is not None else None) == images


def test_a_namespace_that_is_not_known_yet_has_the_default_limits() -> None:
    told = limits_by_namespace(cluster(policies=[policy("default", 1), policy("a", 2, TENANT)]))
    assert told("new") == Limits(images=1)


def form_in(snapshot: ClusterSnapshot, setting: PullerForm, defaults: Defaults | None = None) -> PullerForm | None:
    completed = (defaults or Defaults()).apply(snapshot, PullerSettings(puller_form=setting))
    return completed.image_caches["shop", "warm"].puller_form


def saying(form: PullerForm | None, *policies: Policy) -> ClusterSnapshot:
    return cluster(
        policies=policies, namespaces=SHOP, image_caches=[ImageCache("shop", "warm", uid="uid-warm", puller_form=form)]
    )


@pytest.mark.parametrize("setting", PullerForm)
@pytest.mark.parametrize("said", [*PullerForm, None])
@pytest.mark.parametrize("asked", [*PullerForm, None])
def test_form_of_the_cache_goes_before_the_policys_and_that_before_the_setting(
    asked: PullerForm | None, said: PullerForm | None, setting: PullerForm
) -> None:
    tenant = Policy("a", namespace_selector=TENANT, puller_form=said)
    assert form_in(saying(asked, tenant), setting) is (asked or said or setting)


@pytest.mark.parametrize(
    ("policies", "form"),
    [
        ([Policy("default", puller_form=VOLUME)], VOLUME),
        ([Policy("default", puller_form=VOLUME), Policy("b", namespace_selector=TENANT, puller_form=CONTAINER)], None),
        ([Policy("default", puller_form=VOLUME), Policy("b", namespace_selector=TENANT)], VOLUME),
        ([Policy("b", puller_form=VOLUME)], None),
        ([Policy("b", namespace_selector=LabelSelector((("tenant", "b"),)), puller_form=VOLUME)], None),
    ],
    ids=["default", "selected before default", "of those that say it", "unselected", "others"],
)
def test_form_comes_from_the_policy_that_concerns_the_namespace(
    policies: list[Policy], form: PullerForm | None
) -> None:
    assert form_in(saying(None, *policies), CONTAINER) is (form or CONTAINER)


def test_changed_policy_changes_the_form_of_a_cache_that_did_not_change() -> None:
    defaults, before = Defaults(), saying(None)
    assert form_in(before, CONTAINER, defaults) is CONTAINER
    mounting = replace(before, policies={"default": Policy("default", puller_form=VOLUME)})
    assert form_in(mounting, CONTAINER, defaults) is VOLUME
    assert form_in(before, CONTAINER, defaults) is CONTAINER


def test_cache_stays_the_same_object_while_nothing_of_it_changes() -> None:
    """What is known of a cache is kept by its identity: at rest nothing is worked out anew."""
    defaults, settings, snapshot = Defaults(), PullerSettings(), saying(None, Policy("default", puller_form=VOLUME))
    first, again = (defaults.apply(snapshot, settings).image_caches["shop", "warm"] for _ in range(2))
    assert first is again
