"""Array types and the arithmetic that several of the scheduler's scores share."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_NODE_SCORE = 100
"""framework.MaxNodeScore: every plugin's score lies between 0 and this."""


def row_extremes(values: Floats, selected: Mask) -> tuple[Floats, Floats]:
    """Smallest and largest value among the selected nodes of each row, as columns; 0 where none is selected."""
    low = np.where(selected, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(selected, values, -np.inf).max(axis=1, keepdims=True)
    none = np.isinf(low)
    return np.where(none, 0.0, low), np.where(none, 0.0, high)


def normalized(values: Floats, selected: Mask, *, reverse: bool = False) -> Floats:
    """Scores from counts as helper.DefaultNormalizeScore makes them, with the integer division of Go."""
    _, high = row_extremes(values, selected)
    scaled = np.floor(MAX_NODE_SCORE * values / np.where(high == 0, 1.0, high))
    if reverse:
        return np.where(high == 0, float(MAX_NODE_SCORE), MAX_NODE_SCORE - scaled)
    return np.where(high == 0, 0.0, scaled)
