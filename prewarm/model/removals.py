"""Images that are to leave a node, and what became of each."""

from enum import StrEnum

from msgspec import Struct


class RemovalResult(StrEnum):
    """What became of an image that was to be removed from a node."""

    REMOVED = "Removed"
    """The runtime removed it, and does not know it any more."""
    ABSENT = "Absent"
    """The runtime did not have it."""
    IN_USE = "InUse"
    """It stays: a container uses it, an exited one or an image volume included, or a pod on the node needs it."""
    PINNED = "Pinned"
    """It stays: the runtime has it pinned."""
    OTHER_NAMES = "OtherNames"
    """It stays: the runtime knows it by another name, too, and removing one name removes them all."""
    WANTED = "Wanted"
    """It stays: another ImageCache asks for it on this node, perhaps by another name."""
    HELD = "Held"
    """It stays: a finished puller pod holds it against garbage collection."""
    FAILED = "Failed"
    """It stays: the runtime could not be reached, or refused."""
    INVALID = "Invalid"
    """It is no image reference; the runtime was not asked."""

    @property
    def gone(self) -> bool:
        """Whether the image is not on the node any more."""
        return self in {RemovalResult.REMOVED, RemovalResult.ABSENT}


class Removal(Struct, frozen=True):
    """An image to be removed from a node; canonical spellings."""

    image: str
    names: tuple[str, ...] = ()
    """Further names of the same image that may go with it: nobody wants them either."""


class Removed(Struct, frozen=True):
    """What became of one image, with the runtime's own words if it refused."""

    result: RemovalResult
    message: str = ""


class RemovalReport(Struct, frozen=True):
    """What became of a node's removals, in their order; `error` says why none could be tried."""

    results: tuple[Removed, ...] = ()
    error: str = ""
