"""How far are probabilities to be trusted that a few replays gave?"""

from collections.abc import Mapping


def tempered(shares: Mapping[str, float], replays: int) -> dict[str, float]:
    """Shares of replays in which a node was taken, moved towards their mean as far as they differ by chance alone.

    The likeliest of many nodes are so by luck in part, and whoever picks them again and again, in plan after plan,
    picks the luck: of sixty equal nodes that take a pod in two of three courses of events, some do in nine of ten of
    the few that are played. Shrunk as under a beta distribution of the true probabilities whose moments fit: where
    nodes differ in truth, little changes.
    """
    if not shares or replays < 1:
        return dict(shares)
    mean = sum(shares.values()) / len(shares)
    variance = sum((share - mean) ** 2 for share in shares.values()) / len(shares)
    by_chance = sum(share * (1 - share) for share in shares.values()) / len(shares) / replays
    left = variance - by_chance
    if left <= 0:
        return dict.fromkeys(shares, mean)
    weight = max(0.0, mean * (1 - mean) / left - 1)
    return {name: (share * replays + weight * mean) / (replays + weight) for name, share in shares.items()}
