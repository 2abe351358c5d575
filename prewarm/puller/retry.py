"""When is a failed pull tried again?"""

import hashlib
from collections.abc import Iterable, Mapping

from prewarm.model.images import registry_of
from prewarm.model.nodes import FailedPull, NodeImages
from prewarm.model.times import believed
from prewarm.puller.reasons import FailureReason

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 300.0
"""As the kubelet's own back-off for image pulls; a new pod would not have it (its key is pod and image)."""
SILENT_SECONDS = 60.0
"""First wait after a registry's silence, which blocked the node's other pulls for 30 s an endpoint."""
EXHAUSTED_SECONDS = 3600.0
"""Wait once attempts.limit is reached: what is broken may be mended, and a cache is kept warm, not filled once."""
_SPREAD = 0.2


def wait_seconds(attempts: int, limit: int, reason: str, key: str = "") -> float:
    """How long to wait after so many failed attempts; `key` spreads many pulls that failed together."""
    if attempts >= limit:
        wait = EXHAUSTED_SECONDS
    else:
        first = SILENT_SECONDS if reason == FailureReason.REGISTRY_SILENT else FIRST_SECONDS
        wait = min(first * 2.0 ** min(attempts - 1, 10), LONGEST_SECONDS)
    return wait * (1 + _SPREAD * _fraction(key))


def _fraction(key: str) -> float:
    """A number between 0 and 1 that depends on nothing but the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32 if key else 0.0


def retry_at(failure: FailedPull, limit: int, node: str, now: float) -> float:
    """When the next attempt is due, Unix seconds."""
    key = f"{node}/{failure.image}/{failure.attempts}"
    return believed(failure.at, now) + wait_seconds(failure.attempts, limit, failure.reason, key)


def registry_quiet_until(failures: Iterable[FailedPull], registry: str, now: float) -> float:
    """Until when nothing is tried from a registry on a node where it was silent; 0 if it was not."""
    return max(
        (
            believed(failure.at, now) + min(SILENT_SECONDS * 2.0 ** min(failure.attempts - 1, 10), LONGEST_SECONDS)
            for failure in failures
            if failure.reason == FailureReason.REGISTRY_SILENT and registry_of(failure.image) == registry
        ),
        default=0.0,
    )


def silent_registries(records: Mapping[str, NodeImages], now: float) -> frozenset[str]:
    """Registries that some node lately found silent."""
    return frozenset(
        registry_of(failure.image)
        for record in records.values()
        for failure in record.failures
        if failure.reason == FailureReason.REGISTRY_SILENT and believed(failure.at, now) + LONGEST_SECONDS > now
    )
