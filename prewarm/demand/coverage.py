"""Which workloads are covered, and how? Annotations of the workload and its namespace, and PrewarmPolicy objects."""

import re

from msgspec import Struct
from msgspec.structs import replace

from prewarm.api.names import (
    ANNOTATION_ENABLED,
    ANNOTATION_EXCLUDE_CONTAINERS,
    ANNOTATION_HEADROOM,
    ANNOTATION_POLICY,
)
from prewarm.demand.announced import announced
from prewarm.demand.flagger import canary_of
from prewarm.demand.revisions import with_template
from prewarm.model.image_caches import Policy, PolicyMode
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import Namespace, Workload

MAX_EXCLUDED = 64
"""Container names that one annotation may list."""
MAX_HEADROOM_PERCENT = 1000
_SHOWN = 64
"""Characters of a refused value that a message repeats."""
_CONTAINER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Coverage(Struct, frozen=True):
    """What a workload asks for. With a `problem` nothing is planned until its owner has mended the annotation."""

    policy: Policy | None = None
    """None = not covered, or the problem hides it."""
    headroom_percent: int | None = None
    """From the annotation, which also asks for headroom without an autoscaler; None = not set."""
    excluded: frozenset[str] = frozenset()
    """Names of containers whose images are left to the kubelet."""
    announced: Workload | None = None
    """The workload as its owner says it will be changed; None if nothing is announced."""
    problem: str = ""


class _BadAnnotationError(ValueError):
    """An annotation's value cannot be used; the message is for the workload's owner."""


def covering_policy(snapshot: ClusterSnapshot, workload: Workload) -> Policy | None:
    """The policy under which a workload is prewarmed; None if it has none, a policy of mode Off, or a problem."""
    policy = coverage(snapshot, workload).policy
    return None if policy is None or policy.mode is PolicyMode.OFF else policy


def coverage(snapshot: ClusterSnapshot, workload: Workload) -> Coverage:
    """What the annotations and policies say of a workload.

    The workload's annotation decides before its namespace's label, and both before a policy that selects the namespace.
    A policy named by annotation applies; else the first by name that selects the workload; else the one named default;
    else the built-in defaults. A policy of mode Off is returned, so that it can be told from no coverage.
    """
    namespace = snapshot.namespaces.get(workload.key.namespace, Namespace(workload.key.namespace))
    if workload.deleted_at is not None or namespace.terminating:
        return Coverage()
    asked = workload.key in snapshot.asked
    workload = _with_canary(snapshot, with_template(snapshot, workload))
    selecting = _selecting(snapshot, workload, namespace)
    try:
        enabled = True if asked else _enabled(workload, namespace)
        if enabled is False or (enabled is None and selecting is None):
            return Coverage()
        policy = _policy(snapshot, workload, selecting)
        ahead = None if asked else _announced(snapshot, workload)
        return Coverage(policy, _headroom(workload), _excluded(workload), ahead)
    except _BadAnnotationError as problem:
        return Coverage(problem=str(problem))


def _with_canary(snapshot: ClusterSnapshot, workload: Workload) -> Workload:
    """Annotations of a Flagger Canary count for its primary, which Flagger made; the primary's own come first."""
    canary = canary_of(snapshot, workload)
    return workload if canary is None else replace(workload, annotations={**canary.annotations, **workload.annotations})


def _enabled(workload: Workload, namespace: Namespace) -> bool | None:
    for where, value in (
        (f"annotation {ANNOTATION_ENABLED} of {workload.key}", workload.annotations.get(ANNOTATION_ENABLED)),
        (f"label {ANNOTATION_ENABLED} of namespace {namespace.name}", namespace.labels.get(ANNOTATION_ENABLED)),
    ):
        match value:
            case None:
                continue
            case "true":
                return True
            case "false":
                return False
            case _:
                raise _BadAnnotationError(f'{where} is {_shown(value)}: write "true" or "false"')
    return None


def _selecting(snapshot: ClusterSnapshot, workload: Workload, namespace: Namespace) -> Policy | None:
    for _, policy in sorted(snapshot.policies.items()):
        if policy.error or policy.namespace_selector is None or not policy.namespace_selector.matches(namespace.labels):
            continue
        if policy.workload_selector is None or policy.workload_selector.matches(workload.labels):
            return policy
    return None


def _policy(snapshot: ClusterSnapshot, workload: Workload, selecting: Policy | None) -> Policy:
    name = workload.annotations.get(ANNOTATION_POLICY)
    if name is None:
        policy = selecting or snapshot.policies.get("default", Policy())
    else:
        named = snapshot.policies.get(name)
        if named is None:
            known = ", ".join(sorted(snapshot.policies)[:10]) or "none"
            raise _BadAnnotationError(
                f"annotation {ANNOTATION_POLICY} of {workload.key} names {_shown(name)}, which is no PrewarmPolicy "
                f"(there are: {known})"
            )
        policy = named
    if policy.error:
        raise _BadAnnotationError(f"PrewarmPolicy {policy.name} of {workload.key} is invalid: {policy.error}")
    return policy


def _headroom(workload: Workload) -> int | None:
    value = workload.annotations.get(ANNOTATION_HEADROOM)
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,4})%?", value.strip(), re.ASCII)
    if match is None or int(match[1]) > MAX_HEADROOM_PERCENT:
        raise _BadAnnotationError(
            f"annotation {ANNOTATION_HEADROOM} of {workload.key} is {_shown(value)}: write a percentage from 0% to "
            f"{MAX_HEADROOM_PERCENT}%"
        )
    return int(match[1])


def _announced(snapshot: ClusterSnapshot, workload: Workload) -> Workload | None:
    try:
        return announced(snapshot, workload)
    except ValueError as error:
        raise _BadAnnotationError(str(error)) from None


def _excluded(workload: Workload) -> frozenset[str]:
    value = workload.annotations.get(ANNOTATION_EXCLUDE_CONTAINERS)
    if value is None or not value.strip():
        return frozenset()
    names = [name.strip() for name in value[: 65 * MAX_EXCLUDED].split(",")]
    if len(names) > MAX_EXCLUDED or len(value) > 65 * MAX_EXCLUDED or not all(map(_CONTAINER_NAME.fullmatch, names)):
        raise _BadAnnotationError(
            f"annotation {ANNOTATION_EXCLUDE_CONTAINERS} of {workload.key} is {_shown(value)}: write container names "
            f"separated by commas, at most {MAX_EXCLUDED}"
        )
    return frozenset(names)


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
