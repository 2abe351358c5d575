"""Array types and the arithmetic that several of the scheduler's scores share.

Scores are whole numbers in 32-bit floats: exact up to 2^24, and the arrays of a thousand nodes stay in the CPU's cache.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAX_NODE_SCORE = 100
"""framework.MaxNodeScore: every plugin's score lies between 0 and this."""
_ABOVE = np.float32(2**20)
"""Larger than any count."""


def extremes(counts: Scores, selected: Mask, *, every: bool = False) -> tuple[Scores, Scores]:
    """Smallest and largest count (not negative, whole) among the selected nodes of each row, as columns.

    Where none is selected, both are 0. `every`: all are, which spares a look at each.
    """
    if every and counts.shape[1]:
        return counts.min(axis=1, keepdims=True), counts.max(axis=1, keepdims=True)
    high: Scores = (counts * selected).max(axis=1, keepdims=True)
    low: Scores = _ABOVE - ((_ABOVE - counts) * selected).max(axis=1, keepdims=True)
    return np.where(low == _ABOVE, np.float32(0), low), high


def normalized(counts: Scores, selected: Mask, *, reverse: bool = False) -> Scores:
    """Scores from counts as helper.DefaultNormalizeScore makes them, with the integer division of Go."""
    _, high = extremes(counts, selected)
    scaled: Scores = np.floor(MAX_NODE_SCORE * counts / np.where(high == 0, np.float32(1), high))
    if reverse:
        return np.where(high == 0, np.float32(MAX_NODE_SCORE), MAX_NODE_SCORE - scaled)
    return np.where(high == 0, np.float32(0), scaled)
