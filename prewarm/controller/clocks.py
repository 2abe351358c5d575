"""The clocks by which the controller works."""

import time
from collections.abc import Callable

from msgspec import Struct


class Clocks(Struct, frozen=True):
    """Wall-clock time, as objects carry it, a clock that never jumps, and the processor time that we have taken."""

    wall: Callable[[], float]
    steady: Callable[[], float]
    processor: Callable[[], float] = time.process_time
