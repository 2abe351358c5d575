"""Which PrewarmPolicy speaks for the ImageCaches of a namespace? Each of its fields may be another policy's."""

from collections.abc import Callable
from typing import TypeVar

from prewarm.api.names import DEFAULT_POLICY
from prewarm.model.image_caches import Limits, Policy, PullerForm
from prewarm.model.snapshot import ClusterSnapshot

_Value = TypeVar("_Value")


def limits_by_namespace(snapshot: ClusterSnapshot) -> Callable[[str], Limits | None]:
    """What the ImageCaches of a namespace may have together; None: no limits."""
    return _said(snapshot, lambda policy: policy.limits)


def puller_forms(snapshot: ClusterSnapshot) -> Callable[[str], PullerForm | None]:
    """The form of puller for ImageCaches of a namespace that ask for none; None: as the controller is set."""
    return _said(snapshot, lambda policy: policy.puller_form)


def _said(snapshot: ClusterSnapshot, field: Callable[[Policy], _Value | None]) -> Callable[[str], _Value | None]:
    """From the first policy by name that says something and selects the namespace, else from `default`.

    Policies are looked through once, not for each of thousands of namespaces.
    """
    said = ((policy, field(policy)) for _, policy in sorted(snapshot.policies.items()))
    saying = [(policy.namespace_selector, value) for policy, value in said if value is not None]
    last = snapshot.policies.get(DEFAULT_POLICY)
    default = field(last) if last is not None else None

    def of(namespace: str) -> _Value | None:
        found = snapshot.namespaces.get(namespace)
        labels = found.labels if found is not None else {}
        for selector, value in saying:
            if selector is not None and selector.matches(labels):
                return value
        return default

    return of
