"""One clear line for what is wrong in an object: where, what, what would be right."""

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from prewarm.api.fields import HEADROOM_PATTERN, NAME_PATTERN, TIME_WORDS

_MAX_SHOWN = 80
_PATTERNS = {
    NAME_PATTERN: "write a name in lower case letters, digits, '-' and '.', with a letter or digit at both ends",
    HEADROOM_PATTERN: "write a percentage from 0% to 1000%",
}
_WORDS = {
    "dict_type": "write an object with fields",
    "model_type": "write an object with fields",
    "list_type": "write a list",
    "string_type": "write a text (in quotes where it looks like something else)",
    "bool_type": "write true or false",
    "int_type": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "timezone_aware": TIME_WORDS,
    "datetime_parsing": TIME_WORDS,
    "datetime_from_date_parsing": TIME_WORDS,
}


def explain(error: ValidationError, root: str = "spec") -> str:
    """The first problem of an object in words, and how many more there are; `root` is the field that was validated."""
    problems = error.errors(include_url=False, include_context=True)
    first = _problem(problems[0], root)
    return first if len(problems) == 1 else f"{first} (and {len(problems) - 1} more)"


def _problem(details: ErrorDetails, root: str) -> str:
    where = _path(details["loc"], root)
    kind = details["type"]
    if kind == "missing":
        return f"{where}: this field is required"
    if kind == "value_error":
        return f"{where}: {details['msg'].removeprefix('Value error, ')}"
    given = details["input"]
    shown = "" if isinstance(given, (list, tuple, Mapping)) else f"{_shown(given)}: "
    return f"{where}: {shown}{_right(details)}"


def _right(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "string_pattern_mismatch":
            return _PATTERNS.get(str(context.get("pattern")), str(details["msg"]))
        case "enum" | "literal_error":
            return f"write {context.get('expected')}"
        case "too_short":
            return f"at least {context.get('min_length')} entry is needed"
        case "too_long" | "string_too_long":
            return f"at most {context.get('max_length')} are allowed"
        case "string_too_short":
            return "write something"
        case kind:
            return _WORDS.get(kind, details["msg"][:1].lower() + details["msg"][1:])


def _path(location: tuple[int | str, ...], root: str) -> str:
    path = root
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step != "[key]" and step:
            path += f".{step}"
    return path


def _shown(value: object) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
