"""Names of steering: the label on warm nodes, and the entries by which the admission policy knows a workload's pods."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from prewarm.model.progressive import api_kind
from prewarm.model.workloads import WorkloadKey

PREFIX: Final = "steer.prewarm.dev/"
"""Of every node label of ours."""
ENTRIES_NAME: Final = "prewarm-steer"
"""ConfigMap in the controller's namespace that the admission policy has as its parameter."""
MAX_ENTRIES: Final = 1000
"""Workloads steered at once: a ConfigMap holds 1 MiB, an entry at most 400 bytes."""
_LONGEST_KEY = 253
"""Of a ConfigMap's data."""


@lru_cache(maxsize=16_384)
def label_key(workload: WorkloadKey) -> str:
    """The node label of a workload: of fixed length, and telling nobody who may read nodes what runs there."""
    digest = hashlib.sha256(f"{workload.kind}/{workload.namespace}/{workload.name}".encode()).hexdigest()
    return f"{PREFIX}{digest[:16]}"


def label_value(revision: str) -> str:
    """The revision as a label's value."""
    return re.sub(r"[^0-9A-Za-z]", "", revision)[:40] or "none"


def our_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a node's labels that steer."""
    return {key: value for key, value in labels.items() if key.startswith(PREFIX)}


def entry_key(workload: WorkloadKey) -> str | None:
    """Key of a workload's entry, as the policy finds it from a pod's owner; None if it would be too long."""
    key = f"{api_kind(workload.kind).lower()}.{workload.namespace}.{workload.name}"
    return key if len(key) <= _LONGEST_KEY else None


def entry_value(label: str, value: str, until: float) -> str:
    """Label, value, and until when (Unix seconds) the policy acts by it: an entry nobody renews ends by itself."""
    end = datetime.fromtimestamp(int(until), UTC).isoformat().replace("+00:00", "Z")
    return f"{label} {value} {end}"


def labels_in_force(data: Mapping[str, str], now: float) -> frozenset[tuple[str, str]]:
    """Key and value of the labels of entries that have not ended; what is no entry of ours counts for nothing."""
    found = set()
    for text in data.values():
        match text.split(" "):
            case [label, value, end] if label.startswith(PREFIX) and _unix(end) > now:
                found.add((label, value))
    return frozenset(found)


def _unix(moment: str) -> float:
    """Unix seconds; 0 if it is no time."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        return 0.0
