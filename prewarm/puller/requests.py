"""Annotations that ask for something once: prewarm.dev/refresh and prewarm.dev/purge."""

from msgspec import Struct

from prewarm.api.image_cache_status import MAX_REQUEST

EMPTY = "<empty>"
"""What is recorded of an empty request between acting on it and its removal."""


class Ask(Struct, frozen=True):
    """Such an annotation of an ImageCache, and what its status says of the last one that was acted on."""

    value: str | None
    """None without the annotation."""
    handled: str

    @property
    def mark(self) -> str | None:
        """What is to be recorded of a request that was not begun yet; None if there is none."""
        if self.value is None:
            return None
        mark = self.value[:MAX_REQUEST] or EMPTY
        return None if mark == self.handled else mark

    @property
    def recorded(self) -> str:
        """What the status says of the last request: an empty one is forgotten once the annotation is gone."""
        return "" if self.handled == EMPTY and self.value is None else self.handled

    @property
    def is_removable(self) -> bool:
        """Whether the annotation is empty and was acted on: then it goes, so that it can be set again."""
        return self.value == "" and self.handled == EMPTY
