"""The ImageCaches that the benchmark of pulls fills, the goals, and what others were measured at."""

from msgspec import Struct

OPENKRUISE = "OpenKruise 1.9"


class Case(Struct, frozen=True):
    """One ImageCache to fill."""

    key: str
    title: str
    nodes: int
    images: int
    image_seconds: float
    """What pulling one image takes on a node."""
    parallelism: int
    per_node: int = 1
    sharing: bool = False
    """Whether images are known to be small, so that five share a pod."""
    within: float | None = None
    """Goal in seconds."""
    of_ideal: float | None = None
    """Goal as a multiple of the ideal."""
    per_second: float | None = None
    """Goal in pulls a second."""
    known: str = ""
    """What others were measured at."""

    @property
    def pairs(self) -> int:
        """Images times nodes."""
        return self.nodes * self.images


CASES = (
    Case(
        "hundred",
        "1 image, 1,000 nodes, 5 s, 100 at once",
        nodes=1000,
        images=1,
        image_seconds=5.0,
        parallelism=100,
        within=55.0,
        known=f"{OPENKRUISE}: 56.5 s",
    ),
    Case(
        "thousand",
        "1 image, 1,000 nodes, 5 s, 1,000 at once",
        nodes=1000,
        images=1,
        image_seconds=5.0,
        parallelism=1000,
        within=15.0,
        known=f"{OPENKRUISE}: 37.0 s, no progress shown for 32 s",
    ),
    Case(
        "many",
        "10 images, 800 nodes, 1 s each, 5 in a pod, 2 pods on a node",
        nodes=800,
        images=10,
        image_seconds=1.0,
        parallelism=200,
        per_node=2,
        sharing=True,
        of_ideal=1.1,
        per_second=96.0,
        known=f"{OPENKRUISE}: 338 s, 24 pulls/s, no progress shown for 280 s",
    ),
)
