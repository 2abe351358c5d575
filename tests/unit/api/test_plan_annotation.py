"""An ImageCache is found by the workload and the revision that it was planned for."""

import pytest
from msgspec.structs import replace

from prewarm.api.plan_annotation import encode_summary, planned_for, summary
from prewarm.model.image_caches import ImageCache
from prewarm.model.workloads import WorkloadKey

WEB = WorkloadKey("Deployment", "shop", "web")
LONG = "7d9c6b5f4" * 10


def cache(revision: str = "v10", namespace: str = "shop") -> ImageCache:
    said = encode_summary(summary("Rollout", revision, pods=1, predictability=1.0, coverage=1.0, nodes=[]))
    return ImageCache(namespace, "web-0", planned=True, workload=str(WEB), plan_annotation=said)


def test_what_was_planned_for_a_revision_is_found_with_why() -> None:
    (found,) = planned_for([cache("v9"), cache("v10")], WEB, "v10")
    assert found[0] == cache("v10")
    assert (found[1].trigger, found[1].revision) == ("Rollout", "v10")


def test_a_hash_of_which_the_annotation_keeps_the_head_is_found() -> None:
    assert [found for found, _ in planned_for([cache(LONG)], WEB, LONG)] == [cache(LONG)]


@pytest.mark.parametrize(
    "other",
    [
        cache("v1"),
        cache("v101"),
        cache(""),
        cache(namespace="other"),
        replace(cache(), planned=False),
        replace(cache(), workload="deployment/shop/api"),
        replace(cache(), deleted_at=1000.0),
        replace(cache(), plan_annotation="of no plan"),
    ],
    ids=["head", "longer", "none", "namespace", "own", "workload", "leaves", "unreadable"],
)
def test_what_was_not_planned_for_it_is_not(other: ImageCache) -> None:
    assert not list(planned_for([other], WEB, "v10"))


def test_a_workload_without_a_revision_has_none_planned_for_it() -> None:
    assert not list(planned_for([cache("")], WEB, ""))
