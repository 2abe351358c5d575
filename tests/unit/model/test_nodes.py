"""Under whose credentials an image is pulled, and whose a pod's may be."""

import pytest

from prewarm.model.nodes import MAX_IDENTITY, may_become, pull_identity

LONG = tuple(f"registry-credentials-of-a-team-with-a-long-name-{number:02}" for number in range(32))


def test_nobody_in_particular_is_no_identity() -> None:
    assert pull_identity("shop", "", ()) == pull_identity("shop", "default", ()) == ""
    assert pull_identity("shop", "default", ("a",)) != pull_identity("other", "default", ("a",))


def test_many_long_secrets_are_bounded_and_told_apart_in_any_order() -> None:
    identity = pull_identity("shop", "web", LONG)
    assert len(identity) <= MAX_IDENTITY
    assert identity == pull_identity("shop", "web", LONG[::-1])
    assert identity != pull_identity("shop", "web", LONG[1:])


@pytest.mark.parametrize(
    ("became", "declared", "possible"),
    [
        (("web", ()), ("web", ()), True),
        (("web", ("added",)), ("web", ()), True),
        (("default", ("added",)), ("", ()), True),
        (("", ()), ("", ()), True),
        (("web", LONG), ("web", ()), True),
        (("web2", ()), ("web", ()), False),
        (("web", ()), ("", ()), False),
        (("web", ("a", "b")), ("web", ("a",)), False),
        (("", ()), ("web", ()), False),
    ],
)
def test_only_secrets_of_the_account_may_come_on_top(
    became: tuple[str, tuple[str, ...]], declared: tuple[str, tuple[str, ...]], possible: bool
) -> None:
    assert may_become(pull_identity("shop", *became), "shop", *declared) is possible
