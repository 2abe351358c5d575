"""Which workloads does a policy gate? The admission policy cannot know what covers a workload: it is told by a list."""

from collections.abc import Collection, Mapping

from prewarm.api.names import ANNOTATION_GATE
from prewarm.demand import covering_policy
from prewarm.model.image_caches import PolicyMode
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey

KINDS = frozenset({"Deployment", "StatefulSet"})
"""What the gate can hold."""
MAX_LENGTH = 32 * 1024
"""Characters of the list: it is written with every renewal of the Lease, and etcd keeps each version for a while."""

Gated = Mapping[WorkloadKey, float]
"""For how many seconds at most, by workload."""


def gated_by_policy(
    snapshot: ClusterSnapshot, known: Gated | None = None, only: Collection[WorkloadKey] | None = None
) -> Gated:
    """Workloads whose policy asks for the gate. One that is annotated is left out: its annotation says it all.

    Args:
        snapshot: the cluster.
        known: what was found before; None if nothing was yet.
        only: workloads that may stand differently since; None looks at all.
    """
    if not any(policy.gate_seconds and not policy.error for policy in snapshot.policies.values()):
        return {}
    found = {} if known is None or only is None else {key: seconds for key, seconds in known.items() if key not in only}
    for key in snapshot.workloads if known is None or only is None else only:
        workload = snapshot.workloads.get(key)
        if workload is None or key.kind not in KINDS or ANNOTATION_GATE in workload.annotations:
            continue
        policy = covering_policy(snapshot, workload)
        if policy is not None and policy.mode is PolicyMode.ACTIVE and policy.rollout and policy.gate_seconds:
            found[key] = policy.gate_seconds
    return found


def gated_text(gated: Gated) -> tuple[str, int]:
    """The list as the admission policy reads it, in order, and how many workloads it has no room for."""
    entries: list[str] = []
    length = 0
    for key, seconds in sorted(gated.items()):
        entry = f"{key}={max(1, round(seconds))}"
        length += len(entry) + 1
        if length > MAX_LENGTH:
            break
        entries.append(entry)
    return ",".join(entries), len(gated) - len(entries)
