"""How many small images share a pod?

A pod says nothing until all of its images were tried, and pods that begin together with as many images end together:
then everything that is to follow from their ends waits for the API server at once, and until the next end it is idle.
"""

SPREAD_PAIRS = 100
"""Of a cache with so many pairs to pull, the first pods are smaller: they cost a few pods more, in all."""
_FEWEST = 2


def most_together(begun: int, due: int, places: int, most: int) -> int:
    """Images that the next pod of a cache may hold.

    One in the first, two in the second and so on: so people see soon that something comes, and go on seeing it, and a
    wrong image is known before it is asked for everywhere. Where there are more pairs than places, those that fill
    the places first hold two up to the most in turn: they end one after the other, and so do those behind them.

    Args:
        begun: pairs of the cache that are there, or for which a pod was ordered.
        due: pairs for which a pod may be ordered.
        places: pods that may be at work at once; 0 if those that fill them need not end one after the other.
        most: images that a pod may hold.
    """
    if begun + due < SPREAD_PAIRS:
        return most
    if begun < _sum(1, most - 1):
        return _turn(begun, 1, most)
    turn = _sum(_FEWEST, most)
    fill = places * turn / max(1, most - _FEWEST + 1)
    if begun >= fill or begun + due <= places * most:
        return most
    return _turn(begun % turn, _FEWEST, most)


def _sum(fewest: int, most: int) -> int:
    """Images in pods that hold the fewest up to the most."""
    return sum(range(fewest, most + 1))


def _turn(begun: int, fewest: int, most: int) -> int:
    """Whose turn it is in a sequence of pods that hold the fewest up to the most, once so many images are in pods."""
    for images in range(fewest, most):
        begun -= images
        if begun < 0:
            return images
    return most
