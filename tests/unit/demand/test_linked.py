"""What has to be planned again though nothing of its own changed."""

import pytest
from msgspec.structs import replace

from prewarm.demand import linked
from prewarm.model.image_caches import Canaries, Policy
from prewarm.model.pods import PodTemplate
from prewarm.model.selectors import LabelSelector
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Workload, WorkloadKey
from tests.support.clusters import ENABLED, cluster, deployment, shape, template

CANARIES = Policy(canaries=Canaries(LabelSelector(match_labels=(("track", "canary"),)), "app"))


def key(name: str, namespace: str = "shop") -> WorkloadKey:
    return WorkloadKey("Deployment", namespace, name)


def one(name: str, app: str, track: str, namespace: str = "shop") -> Workload:
    labels = {"app": app, "track": track}
    return deployment(PodTemplate(labels, shape("registry.test/web:v1")), key=key(name, namespace))


SHOP = cluster(
    workloads=[
        one("web", "web", "stable"),
        one("web-canary", "web", "canary"),
        one("cart", "cart", "stable"),
        one("web", "web", "stable", "other"),
    ],
    policies=[CANARIES],
)


@pytest.mark.parametrize(
    ("snapshot", "touched", "intended", "expected"),
    [
        (SHOP, {key("web-canary")}, set(), {key("web")}),
        (SHOP, {key("cart")}, set(), set()),
        (SHOP, {key("cart")}, {key("cart")}, {key("web"), key("web-canary")}),
        (SHOP, {key("gone")}, {key("gone")}, {key("web"), key("web-canary"), key("cart")}),
        (SHOP, {key("web-canary"), key("web")}, set(), set()),
        (replace(SHOP, policies={"default": Policy()}), {key("web-canary")}, set(), set()),
    ],
    ids=[
        "a canary's pods changed",
        "no canary",
        "it may have been one before",
        "it is gone",
        "both are planned anyway",
        "no policy",
    ],
)
def test_a_canary_concerns_those_that_it_is_on_trial_for(
    snapshot: ClusterSnapshot, touched: set[WorkloadKey], intended: set[WorkloadKey], expected: set[WorkloadKey]
) -> None:
    assert linked(snapshot, touched, intended, ()) == expected


def test_an_image_policy_concerns_those_that_name_it() -> None:
    named = {**ENABLED, "prewarm.dev/image-policies": "c0=flux-system/web"}
    broken = {**ENABLED, "prewarm.dev/image-policies": "?"}
    workloads = [
        deployment(template("registry.test/web:v1"), key=key("web"), annotations=named),
        deployment(template("registry.test/web:v1"), key=key("cart"), annotations=broken),
        deployment(template("registry.test/web:v1"), key=key("plain")),
    ]
    snapshot = cluster(workloads=workloads)
    assert linked(snapshot, (), (), {("flux-system", "web")}) == {key("web")}
    assert linked(snapshot, (), (), {("flux-system", "other")}) == set()
