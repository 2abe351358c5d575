from decimal import ROUND_CEILING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from prewarm.model.quantities import int_or_percent, milli, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("1500m", 2),
        ("1Ki", 1024),
        ("1.5Gi", 1610612736),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("12k", 12000),
    ],
)
def test_whole_rounds_up_to_the_base_unit(text: str, expected: int) -> None:
    assert whole(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("250m", 250), ("2", 2000), ("0.1", 100), ("1u", 1), ("1e-2", 10)])
def test_milli_counts_thousandths(text: str, expected: int) -> None:
    assert milli(text) == expected


@pytest.mark.parametrize("text", ["", "ten", "1 Gi", "1Gib", "--1", "NaN", "Infinity", "1Zi"])
def test_what_is_no_quantity_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        whole(text)


@given(
    number=st.decimals(min_value=0, max_value=10**6, allow_nan=False, places=3),
    suffix=st.sampled_from(["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]),
)
def test_agrees_with_the_official_client(number: object, suffix: str) -> None:
    text = f"{number}{suffix}"
    expected = parse_quantity(text)  # type: ignore[no-untyped-call]
    assert whole(text) == int(expected.to_integral_value(rounding=ROUND_CEILING))


@pytest.mark.parametrize(
    ("value", "of", "up", "down"),
    [
        ("25%", 10, 3, 2),
        ("25%", 40, 10, 10),
        (3, 10, 3, 3),
        ("0%", 7, 0, 0),
        ("100%", 7, 7, 7),
    ],
)
def test_percentages_round_as_the_deployment_controller_rounds_surge_and_unavailable(
    value: int | str, of: int, up: int, down: int
) -> None:
    assert int_or_percent(value, of, round_up=True) == up
    assert int_or_percent(value, of, round_up=False) == down


def test_a_percentage_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="25%"):
        int_or_percent("a quarter", 10, round_up=True)
    with pytest.raises(ValueError, match="25%") as refused:
        int_or_percent("9" * 5000 + "%", 10, round_up=True)
    assert len(str(refused.value)) < 200
