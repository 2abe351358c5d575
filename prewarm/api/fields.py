"""Field types that the API kinds share: bounded, and described once."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

import durationpy
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from prewarm.model.images import MAX_REFERENCE_LENGTH, parse_reference

NAME_LENGTH = 253
"""Longest DNS subdomain: names of objects and nodes."""
LABEL_KEY_LENGTH = 317
"""Longest label key: prefix of 253, slash, name of 63 characters."""
LABEL_VALUE_LENGTH = 63
REASON_LENGTH = 64
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
"""DNS subdomain as apimachinery checks names, without the rule on dots next to dots."""
TIME_WORDS = "write a time with its zone, such as 2026-01-31T12:00:00Z"
DURATION_PATTERN = r"^([0-9]{1,7}(ms|s|m|h)){1,4}$"
"""Durations as Go writes them (time.ParseDuration), without signs, fractions and units below milliseconds. With so few
digits a time plus a duration is still a time that can be written (before the year 10,000)."""
DURATION_WORDS = "write a duration such as 30s, 15m or 1h30m"
_IMAGE_CHARACTERS = r"^[A-Za-z0-9_.:/@+\[\]-]*$"
"""Signs that references are made of. As a rule of CEL it would cost more than the API server allows for so many images;
the whole grammar is checked when the object is read."""
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_LABEL_VALUE = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_FIRST_TIME = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
HEADROOM_PATTERN = r"^(0|[1-9][0-9]{0,2}|1000)%$"


class ApiModel(BaseModel):
    """A part of an object: camelCase outside, unknown fields ignored as the API server prunes them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        use_attribute_docstrings=True,
        # Validators are built at first use: a command that meets none of our objects starts sooner.
        defer_build=True,
    )


def build_models(parent: type[ApiModel] = ApiModel) -> None:
    """Build the validators of all loaded models: who runs for long should not pause at the first object."""
    for model in parent.__subclasses__():
        model.model_rebuild()
        build_models(model)


def cel(rule: str, message: str) -> dict[str, str]:
    """One entry of x-kubernetes-validations; `message` says what would be right."""
    return {"rule": rule, "message": message}


def cel_text(pattern: str) -> str:
    """A pattern within quotes of CEL, where a backslash escapes."""
    return pattern.replace("\\", "\\\\")


def rules(*entries: dict[str, str]) -> dict[str, object]:
    """CEL rules as an extension of a schema."""
    return {"x-kubernetes-validations": list(entries)}


def _text_time(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or len(value) > 64 or value[10:11] not in {"T", "t"}:
        raise ValueError(TIME_WORDS)
    return value


def _duration(value: str) -> str:
    if re.fullmatch(DURATION_PATTERN, value, re.ASCII) is None:
        raise ValueError(DURATION_WORDS)
    return value


def _image(value: str) -> str:
    if not value:
        raise ValueError("an image is never empty; to ask for none, write images: []")
    parse_reference(value)
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_text_time)]
"""RFC 3339 with a time zone."""
Duration = Annotated[
    str,
    AfterValidator(_duration),
    Field(max_length=32, json_schema_extra=rules(cel(f"self.matches('{DURATION_PATTERN}')", DURATION_WORDS))),
]
"""A length of time as text."""
Count = Annotated[int, Field(strict=True, ge=0, json_schema_extra={"format": "int64"})]
ObjectName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH, pattern=NAME_PATTERN)]
OptionalName = Annotated[
    str,
    Field(
        max_length=NAME_LENGTH,
        json_schema_extra=rules(
            cel(
                f"self == '' || self.matches('{NAME_PATTERN}')",
                "write a name in lower case letters, digits, '-' and '.', with a letter or digit at both ends",
            )
        ),
    ),
]
"""Name of an object; empty for none."""
Reason = Annotated[str, Field(max_length=REASON_LENGTH)]
Image = Annotated[
    str,
    AfterValidator(_image),
    Field(
        max_length=MAX_REFERENCE_LENGTH,
        json_schema_extra={
            "pattern": _IMAGE_CHARACTERS,
            **rules(
                cel("self != ''", "an image is never empty; to ask for none, write images: []"),
                cel(
                    "!self.contains(' ') && !self.contains('://')",
                    "write an image as registry.example/team/app:v1, without blanks and without https://",
                ),
            ),
        },
    ),
]
LabelKey = Annotated[str, Field(min_length=1, max_length=LABEL_KEY_LENGTH)]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_LENGTH)]
LabelMap = Annotated[
    dict[LabelKey, LabelValue],
    Field(
        max_length=64,
        json_schema_extra=rules(
            cel(
                f"self.all(key, size(key) >= 1 && size(key) <= {LABEL_KEY_LENGTH})",
                f"a label key has 1 to {LABEL_KEY_LENGTH} characters",
            ),
            cel(
                f"self.all(key, key.matches('{cel_text(_LABEL_KEY)}'))",
                "write a label key as zone or topology.kubernetes.io/zone",
            ),
            cel(
                f"self.all(key, self[key] == '' || self[key].matches('{_LABEL_VALUE}'))",
                "write a label value in letters, digits, '-', '_' and '.', with a letter or digit at both ends",
            ),
        ),
    ),
]


def seconds_of(text: str | None) -> float | None:
    """Seconds of a duration such as 1h30m; None if there is none."""
    return None if text is None else durationpy.from_str(text).total_seconds()


def duration_text(seconds: float) -> str:
    """A duration as Go writes it, such as 1h30m; read back by `seconds_of`."""
    if seconds and seconds == round(seconds):
        return str(durationpy.to_str(timedelta(seconds=seconds)))
    # durationpy cuts fractions of a second off by floating point.
    return f"{round(seconds * 1000)}ms" if seconds else "0s"


def unix(time: datetime | None) -> float | None:
    """A time as Unix seconds."""
    return None if time is None else time.timestamp()


def api_time(seconds: float) -> str:
    """Unix seconds as objects write them: UTC, to the microsecond, fractions only where there are any.

    The API takes times, as the last hours of year 9999 west of Greenwich, that cannot be written in UTC: the nearest
    one is written that can.
    """
    moment = datetime.fromtimestamp(round(min(max(seconds, _FIRST_TIME), _LAST_TIME), 6), UTC)
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def parse_time(value: object) -> float | None:
    """Unix seconds of a time in an object's metadata; None if there is none or it cannot be read."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def one_line(text: str, limit: int) -> str:
    """Text of others (kubelet, server, registry) as one printable line of at most `limit` characters."""
    if len(text) <= limit and text.isprintable() and "  " not in text and text == text.strip():
        return text
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return both_ends(line, limit)


def both_ends(text: str, limit: int) -> str:
    """At most `limit` characters of a text, from both ends: errors name things first, and their cause last."""
    last = limit // 3
    return text if len(text) <= limit else f"{text[: limit - last - 3]}...{text[-last:]}"


def mapping(value: object) -> Mapping[str, object]:
    """A JSON object, or an empty one where something else stands."""
    return value if isinstance(value, Mapping) else {}


def text(value: object, limit: int = NAME_LENGTH) -> str:
    """A JSON string, or "" where something else stands or it is longer than allowed."""
    return value if isinstance(value, str) and len(value) <= limit else ""
