"""Injectors of sidecars leave a puller pod alone by the marks that they document, in either form of puller."""

import pytest

from prewarm.model.image_caches import ImageCache, PullerForm
from prewarm.puller.pods import create, order_for
from prewarm.puller.settings import PullerSettings


@pytest.mark.parametrize("form", PullerForm)
def test_injectors_are_told_to_leave_the_pod_alone(form: PullerForm) -> None:
    cache = ImageCache("shop", "warm", uid="uid-warm")
    order = order_for(cache, "n0", "uid-n0", ("registry.test/web:v1",), 1, 1000.0, form=form)
    metadata = create(order, cache, PullerSettings()).manifest["metadata"]
    assert isinstance(metadata, dict)
    labels = {
        "sidecar.istio.io/inject": "false",
        "kuma.io/sidecar-injection": "disabled",
        "admission.datadoghq.com/enabled": "false",
        "azure.workload.identity/use": "false",
    }
    annotations = {
        "sidecar.istio.io/inject": "false",
        "linkerd.io/inject": "disabled",
        "kuma.io/sidecar-injection": "disabled",
        "openservicemesh.io/sidecar-injection": "disabled",
        "consul.hashicorp.com/connect-inject": "false",
        "vault.hashicorp.com/agent-inject": "false",
        "appmesh.k8s.aws/sidecarInjectorWebhook": "disabled",
        "dapr.io/enabled": "false",
        "sidecar.opentelemetry.io/inject": "false",
        "sidecar.jaegertracing.io/inject": "false",
    }
    assert labels.items() <= metadata["labels"].items()
    assert annotations.items() <= metadata["annotations"].items()
