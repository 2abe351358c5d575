"""What is left of a round of removals is the same, whether it was followed step by step or is read anew."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from prewarm.model.nodes import Evidence, PresentImage
from prewarm.model.removals import RemovalResult
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.purge_open import OpenRound
from prewarm.puller.purge_rounds import deletion_of

ROUND = deletion_of("uid", "shop", "base")
NOTHING = ClusterSnapshot(taken_at=0.0)
Claims = Mapping[str, tuple[PresentImage, ...]]

entries = st.builds(
    lambda image, identity, stays: PresentImage(
        image,
        Evidence.OUR_PULL,
        pull_identity=identity,
        since=1.0,
        cache="shop/base",
        stays=stays,
        stays_in=ROUND.id if stays is not None else "",
    ),
    st.sampled_from(["a:v1", "b:v1", "c:v1"]),
    st.sampled_from(["", "secret"]),
    st.sampled_from([None, RemovalResult.IN_USE, RemovalResult.WANTED]),
)
claims = st.dictionaries(
    st.sampled_from(["n1", "n2", "n3"]), st.lists(entries, min_size=1, max_size=4).map(tuple), max_size=3
)


@given(st.lists(claims, min_size=1, max_size=6))
def test_followed_step_by_step_or_read_anew(steps: list[Claims]) -> None:
    followed = OpenRound(ROUND)
    seen: set[tuple[str, str]] = set()
    total = 0
    for version, step in enumerate(steps):
        followed.follow(step, version, None, NOTHING)
        there = {(node, entry.image) for node, found in step.items() for entry in found}
        total = max(total + (len(there - seen) if version else 0), len(there))
        seen = there
        fresh = OpenRound(ROUND)
        fresh.follow(step, version, None, NOTHING)
        assert followed.open == fresh.open
        assert +followed.stays == +fresh.stays
        assert followed.opened == sum(len(images) for images in followed.open.values())
        assert followed.opened + followed.stays.total() == len(there)
        assert followed.total == total
