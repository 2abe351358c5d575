"""A mesh's injector: a mutating webhook over TLS that adds a proxy to every pod, as sidecar injectors do."""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from e2e.caching import Shop
from e2e.cluster.certificates import CertificateAuthority
from e2e.lane import eventually

ADDRESS = "127.0.0.1"
REPOSITORY = "registry.test/mesh/proxy"
PROXY: Mapping[str, object] = {
    "name": "mesh-proxy",
    "image": f"{REPOSITORY}:v1",
    "args": ["proxy", "sidecar"],
    "ports": [{"containerPort": 15090, "name": "metrics"}],
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 1337,
    },
}
"""As meshes with a CNI plugin add it: it needs no rights on the node."""


def opted_out(pod: Mapping[str, object]) -> bool:
    """Whether a pod asks to be left alone in the words of Istio (label before annotation) or of Linkerd."""
    metadata = pod.get("metadata")
    assert isinstance(metadata, Mapping)
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    istio = labels.get("sidecar.istio.io/inject") or annotations.get("sidecar.istio.io/inject")
    return istio == "false" or annotations.get("linkerd.io/inject") == "disabled"


class Injector:
    """What it was asked about, by names of pods."""

    def __init__(self, *, polite: bool) -> None:
        self.polite = polite
        self.injected: list[str] = []
        self.left_alone: list[str] = []

    async def review(self, request: web.Request) -> web.Response:
        """Answer an AdmissionReview."""
        asked = (await request.json())["request"]
        pod = asked["object"]
        answer: dict[str, object] = {"uid": asked["uid"], "allowed": True}
        if self.polite and opted_out(pod):
            self.left_alone.append(pod["metadata"]["name"])
        else:
            patch = [{"op": "add", "path": "/spec/containers/-", "value": PROXY}]
            answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
            self.injected.append(pod["metadata"]["name"])
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
        return web.json_response(review)


@asynccontextmanager
async def injecting(shop: Shop, folder: Path, *, polite: bool) -> AsyncIterator[Injector]:
    """An injector for the test's namespace, in force for the length of the block."""
    authority = CertificateAuthority("prewarm-test-mesh")
    files = authority.server("mesh", ("localhost",), (ADDRESS,)).write(folder, f"mesh-{shop.namespace}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    injector = Injector(polite=polite)
    application = web.Application()
    application.router.add_post("/inject", injector.review)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, ADDRESS, 0, ssl_context=context)
        await site.start()
        _, port = runner.addresses[0][:2]
        await shop.kubectl("create", "-f", "-", manifest=_configuration(shop, authority, port))
        await eventually(lambda: _asked(shop, injector), 30)
        yield injector
    finally:
        await shop.kubectl("delete", "mutatingwebhookconfiguration", shop.namespace, "--ignore-not-found")
        await runner.cleanup()


def _configuration(shop: Shop, authority: CertificateAuthority, port: int) -> str:
    webhook = {
        "name": "inject.mesh.test",
        "clientConfig": {
            "url": f"https://{ADDRESS}:{port}/inject",
            "caBundle": base64.b64encode(authority.certificate).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
    }
    return json.dumps(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": shop.namespace},
            "webhooks": [webhook],
        }
    )


async def _asked(shop: Shop, injector: Injector) -> bool:
    """Whether the API server asks the injector already, about an ordinary pod that is not kept."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "ordinary"},
        "spec": {"containers": [{"name": "c", "image": "registry.test/shop:v1"}]},
    }
    await shop.kubectl("create", "--dry-run=server", "-f", "-", manifest=json.dumps(pod))
    return "ordinary" in injector.injected
