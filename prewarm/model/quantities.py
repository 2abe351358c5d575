"""Kubernetes quantities and durations as integers."""

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)(?P<suffix>[numkMGTPE]|[KMGTPE]i)?", re.ASCII
)
"""apimachinery/pkg/api/resource/quantity.go; "1e3" and "1E3" have an exponent, "1E" is exa."""

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}


@lru_cache(maxsize=8192)
def _parse(quantity: str) -> Decimal:
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"quantity {quantity!r} is not a Kubernetes quantity such as 250m, 1.5 or 2Gi")
    return Decimal(match["number"]) * _SUFFIXES[match["suffix"] or ""]


@lru_cache(maxsize=8192)
def whole(quantity: str) -> int:
    """A quantity in its base unit (bytes, pieces), rounded up as Kubernetes' Value() does.

    Raises:
        ValueError: if the text is not a quantity.
    """
    return int(_parse(quantity).to_integral_value(rounding=ROUND_CEILING))


@lru_cache(maxsize=8192)
def milli(quantity: str) -> int:
    """A quantity in thousandths (millicores), rounded up as Kubernetes' MilliValue() does.

    Raises:
        ValueError: if the text is not a quantity.
    """
    return int((_parse(quantity) * 1000).to_integral_value(rounding=ROUND_CEILING))


def int_or_percent(value: int | str, of: int, *, round_up: bool) -> int:
    """A number, or a percentage of `of`, as maxSurge (rounded up) and maxUnavailable (rounded down) are written.

    Raises:
        ValueError: if a text is neither a number nor a percentage.
    """
    if isinstance(value, int):
        return value
    text = value.strip()
    try:
        if text.endswith("%"):
            scaled = int(text[:-1]) * of
            return -(-scaled // 100) if round_up else scaled // 100
        return int(text)
    except ValueError:
        shown = value if len(value) <= 64 else value[:64] + "..."
        raise ValueError(f"{shown!r} is neither a whole number nor a percentage such as 25%") from None
