"""Keeps the API server watching what admission policies of ours take as parameter.

An API server (1.36.3) stops its one watch of a built-in kind when the last binding of a policy with a parameter of that
kind goes, and does not start it again for the next one (apiserver, admission/plugin/policy/generic/policy_source.go:
the informers are of a shared factory, which starts each once). Tests that install and uninstall policies on the same
server would find none of them in force.
"""

import json
from collections.abc import Mapping

from e2e.cluster.selection import Cluster

_API = "/apis/admissionregistration.k8s.io/v1"
_KINDS = {"test-keeps-lease": ("coordination.k8s.io/v1", "Lease"), "test-keeps-configmap": ("v1", "ConfigMap")}
"""API version and kind of the parameter by name of the policy that keeps it watched."""
_PATCH = '[JSONPatch{op: "test", path: "/kind", value: "Nothing"}]'


def keep(cluster: Cluster) -> bool:
    """Install policies that apply to nothing, one for each kind of parameter; say whether the cluster has such."""
    if '"mutatingadmissionpolicies"' not in cluster.kubectl("get", "--raw", _API):
        return False
    items = [part for name, (version, kind) in _KINDS.items() for part in _manifests(name, version, kind)]
    cluster.kubectl("apply", "-f", "-", manifest=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return True


def remove(cluster: Cluster) -> None:
    """Take them away."""
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        cluster.kubectl("delete", kind, *_KINDS, "--ignore-not-found")


def _manifests(name: str, version: str, kind: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
    nothing = {"apiGroups": ["test.prewarm.dev"], "apiVersions": ["v1"], "resources": ["nothing"]}
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "paramKind": {"apiVersion": version, "kind": kind},
            "failurePolicy": "Ignore",
            "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{**nothing, "operations": ["CREATE"]}]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": _PATCH}}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "paramRef": {"name": "none", "namespace": "default", "parameterNotFoundAction": "Allow"},
        },
    }
    return policy, binding
