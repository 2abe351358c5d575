"""What models of other projects' kinds share: nothing they hold gets lost without a remark."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from prewarm.api.image_cache import MAX_IMAGES
from prewarm.model.image_caches import ImageList
from prewarm.model.images import parse_reference
from prewarm.model.pods import Toleration

EVERYTHING = (Toleration(operator="Exists"),)
"""kube-fledged's Jobs and OpenKruise's daemon tolerate every taint, so they reach control-plane nodes too."""


class Remark(Struct, frozen=True):
    """Something that has no counterpart, or another meaning, with us."""

    field: str
    why: str


class FieldError(ValueError):
    """A field of a manifest cannot be converted; the message names it and says what would be right."""


class ForeignModel(BaseModel):
    """A part of an object of another project: fields that it does not know are kept, to be told of."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="allow", defer_build=True)


def unknown_fields(model: ForeignModel, path: str) -> Iterator[Remark]:
    """A remark for every field that the kind does not have, wherever it stands."""
    for name in model.model_extra or ():
        yield Remark(f"{path}.{name}", "unknown to its kind, left out")
    for name, field in type(model).model_fields.items():
        value: object = getattr(model, name)
        where = f"{path}.{field.alias or name}"
        if isinstance(value, ForeignModel):
            yield from unknown_fields(value, where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ForeignModel):
                    yield from unknown_fields(item, f"{where}[{index}]")


def images_at(images: Sequence[tuple[str, str]], remarks: list[Remark]) -> tuple[str, ...]:
    """Images of a list, each once; what is left out is remarked.

    Args:
        images: the field and the reference that stands there.
        remarks: taken further.

    Raises:
        FieldError: if a text is no image reference.
    """
    found: dict[str, str] = {}
    for field, image in images:
        if not image:
            remarks.append(Remark(field, "an empty image asks for none; with us a list without images does that"))
        elif image in found:
            remarks.append(Remark(field, f"stands at {found[image]} already, left out"))
        else:
            try:
                parse_reference(image)
            except ValueError as error:
                raise FieldError(f"{field}: {error}") from None
            found[image] = field
    return tuple(found)


def bounded(value: int, low: int, high: int, field: str, remarks: list[Remark]) -> int:
    """A number within our bounds; one outside of them is remarked."""
    within = min(max(value, low), high)
    if within != value:
        remarks.append(Remark(field, f"{value} becomes {within}: with us it is between {low} and {high}"))
    return within


def in_pieces(entry: ImageList) -> Iterator[ImageList]:
    """The entry, or several for the same nodes if it has more images than one of ours may have."""
    for start in range(0, max(1, len(entry.images)), MAX_IMAGES):
        yield replace(entry, images=entry.images[start : start + MAX_IMAGES])


def sorted_labels(labels: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Labels as our lists hold them."""
    return tuple(sorted((labels or {}).items()))
