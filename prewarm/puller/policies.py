"""Which PrewarmPolicy speaks for the ImageCaches of a namespace? Each of its fields may be another policy's."""

from collections.abc import Callable
from typing import TypeVar

from prewarm.api.names import DEFAULT_POLICY
from prewarm.model.image_caches import Limits, Policy, PullerForm
from prewarm.model.snapshot import ClusterSnapshot

_Value = TypeVar("_Value")


def limits_for(namespace: str, snapshot: ClusterSnapshot) -> Limits | None:
    """What the ImageCaches of a namespace may have together; None: no limits."""
    return _said(namespace, snapshot, lambda policy: policy.limits)


def puller_form_for(namespace: str, snapshot: ClusterSnapshot) -> PullerForm | None:
    """The form of puller for ImageCaches that ask for none; None: as the controller is set."""
    return _said(namespace, snapshot, lambda policy: policy.puller_form)


def _said(namespace: str, snapshot: ClusterSnapshot, field: Callable[[Policy], _Value | None]) -> _Value | None:
    """From the first policy by name that says something and selects the namespace, else from `default`."""
    found = snapshot.namespaces.get(namespace)
    labels = found.labels if found is not None else {}
    for name in sorted(snapshot.policies):
        policy = snapshot.policies[name]
        value = field(policy)
        if value is not None and policy.namespace_selector is not None and policy.namespace_selector.matches(labels):
            return value
    default = snapshot.policies.get(DEFAULT_POLICY)
    return field(default) if default is not None else None
