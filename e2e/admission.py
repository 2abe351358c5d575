"""What else admits pods in a namespace: policies that play a mesh's injector, a mirror, or an operator's rule."""

import json
from typing import Literal

from e2e.caching import Shop
from e2e.lane import eventually

ENFORCE_RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
_API = "admissionregistration.k8s.io/v1"
WEBHOOK = "ValidatingWebhookConfiguration"
Kind = Literal["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"]

SIDECAR = """[
  JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
    name: "mesh-proxy", image: "registry.test/mesh:v1", command: ["/proxy"],
    securityContext: Object.spec.containers.securityContext{
      allowPrivilegeEscalation: false,
      capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}}}},
  JSONPatch{op: "add", path: "/spec/initContainers/-", value: Object.spec.initContainers{
    name: "mesh-agent", image: "registry.test/mesh:v1", command: ["/agent"], restartPolicy: "Always",
    securityContext: Object.spec.initContainers.securityContext{
      allowPrivilegeEscalation: false,
      capabilities: Object.spec.initContainers.securityContext.capabilities{drop: ["ALL"]}}}}]"""
"""Adds a container, and a sidecar that never ends."""
PRIVILEGED = """[JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
    name: "mesh-proxy", image: "registry.test/mesh:v1"}}]"""
"""Adds a container that restricted pod security does not admit."""
MIRROR = """[JSONPatch{op: "replace", path: "/spec/containers/0/image", value: "mirror.test/shop:v1"}]"""
FORGETFUL = """[JSONPatch{op: "remove", path: "/metadata/annotations"}]"""


def _policy(shop: Shop, kind: Kind, name: str, spec: dict[str, object]) -> str:
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    policy = {
        "apiVersion": _API,
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"matchConstraints": {**where, "resourceRules": rules}, **spec},
    }
    binding: dict[str, object] = {"policyName": name}
    if kind == "ValidatingAdmissionPolicy":
        binding["validationActions"] = ["Deny"]
    bound = {"apiVersion": _API, "kind": f"{kind}Binding", "metadata": {"name": name}, "spec": binding}
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, bound]})


async def mutate(shop: Shop, patch: str) -> None:
    """Change every pod that is created in the test's namespace; returns once that is in force."""
    change = {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}
    spec: dict[str, object] = {"reinvocationPolicy": "Never", "mutations": [change], "failurePolicy": "Fail"}
    before = await _probe(shop)
    await shop.kubectl("create", "-f", "-", manifest=_policy(shop, "MutatingAdmissionPolicy", shop.namespace, spec))
    await _in_force(shop, before)


async def forbid(shop: Shop, message: str) -> None:
    """Admit no pod in the test's namespace."""
    spec: dict[str, object] = {"validations": [{"expression": "false", "message": message}]}
    before = await _probe(shop)
    await shop.kubectl("create", "-f", "-", manifest=_policy(shop, "ValidatingAdmissionPolicy", shop.namespace, spec))
    await _in_force(shop, before)


async def break_webhook(shop: Shop) -> None:
    """Have the API server ask a service that does not exist about every pod of the test's namespace."""
    where = {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": "pods.example.com",
        "clientConfig": {"service": {"namespace": shop.namespace, "name": "gone"}},
        "namespaceSelector": where,
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    found = {
        "apiVersion": _API,
        "kind": WEBHOOK,
        "metadata": {"name": shop.namespace},
        "webhooks": [webhook],
    }
    before = await _probe(shop)
    await shop.kubectl("create", "-f", "-", manifest=json.dumps(found))
    await _in_force(shop, before)


async def mend_webhook(shop: Shop) -> None:
    """Take it away; returns once pods are created again."""
    before = await _probe(shop)
    await shop.kubectl("delete", WEBHOOK, shop.namespace)
    await _in_force(shop, before)


async def lift(shop: Shop, kind: Kind) -> None:
    """Take the policy of the test's namespace away."""
    await shop.kubectl("delete", f"{kind}Binding,{kind}", shop.namespace, "--ignore-not-found")


async def _in_force(shop: Shop, before: str) -> None:
    """Return once the API server treats pods differently."""

    async def different() -> bool:
        return await _probe(shop) != before

    await eventually(different, 30)


async def _probe(shop: Shop) -> str:
    """What the API server makes of a small pod now, without creating it: parts of the pod, or the refusal's words."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    container = {"name": "c", "image": "registry.test/shop:v1", "securityContext": security}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {"a": "b"}},
        "spec": {
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [container],
            "containers": [{**container, "name": "d"}],
        },
    }
    shape = "jsonpath={.spec.containers[*].image} {.spec.initContainers[*].name} {.metadata.annotations.a}"
    try:
        return await shop.kubectl("create", "--dry-run=server", "-o", shape, "-f", "-", manifest=json.dumps(pod))
    except RuntimeError as error:
        return str(error)
