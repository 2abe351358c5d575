"""What does a puller pod look like, and how is one read back?"""

import hashlib
import json
from collections.abc import Mapping

from msgspec import Struct

from prewarm.api import names
from prewarm.model.image_caches import ImageCache, PullerForm
from prewarm.model.images import PullPolicy, canonical
from prewarm.model.intents import IMAGE_CACHES, PODS, Create, Json
from prewarm.model.nodes import pull_identity
from prewarm.model.pods import Pod, Toleration
from prewarm.model.snapshot import ObjectKey
from prewarm.presence import PULL_CONTAINER_PREFIX
from prewarm.puller.refresh import moves
from prewarm.puller.resources import USUAL, ContainerResources
from prewarm.puller.settings import HELPER_DIRECTORY, PullerSettings
from prewarm.puller.targets import POD_TOLERATIONS

HELPER_CONTAINER = "helper"
SENTINEL_CONTAINER = "sentinel"
"""Starts after the targets, if only to end: that makes the kubelet look at the pod and report what failed.

Without it a pod whose only image failed says nothing until the next periodic sync, 10 to 15 s later, which tries the
image again before anyone could stop it.
"""
_VOLUME = "prewarm"
_USER = 65534
"""nobody: a numeric user, or images whose USER is a name end in CreateContainerConfigError after the pull."""

_NO_SIDECARS: Mapping[str, str] = {
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
"""How the known injectors are told to leave a pod alone, as annotations."""
_NO_SIDECAR_LABELS: Mapping[str, str] = {
    "sidecar.istio.io/inject": "false",
    "kuma.io/sidecar-injection": "disabled",
    "admission.datadoghq.com/enabled": "false",
    "azure.workload.identity/use": "false",
}
"""The same for those that look at labels."""

_MOUNT: Mapping[str, Json] = {"name": _VOLUME, "mountPath": HELPER_DIRECTORY}
_RESTRICTED: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


class Order(Struct, frozen=True):
    """A puller pod that is to be created, or was and has not been seen yet."""

    namespace: str
    name: str
    cache: str
    """Name of the ImageCache."""
    cache_uid: str
    node: str
    images: tuple[str, ...]
    """As the cache spells them."""
    pull_identity: str
    attempt: int
    ordered_at: float
    refreshed_at: float = 0.0
    """Beginning of the refresh for which it pulls."""
    watched: bool = True
    """Whether it has a sentinel, as it should unless its images are known to be sound: that costs 0.4 s a pod."""
    form: PullerForm = PullerForm.CONTAINER
    generation: int = 0
    """Of the spec that asks for it."""

    @property
    def containers(self) -> int:
        """Containers of the pod, the init container aside."""
        return len(self.images) + self.watched

    @property
    def key(self) -> ObjectKey:
        """Namespace and name of the pod."""
        return (self.namespace, self.name)


def identity_of(cache: ImageCache) -> str:
    """Under whose credentials a cache's images are pulled."""
    return pull_identity(cache.namespace, cache.service_account, cache.pull_secrets)


def pod_name(cache: ImageCache, node_uid: str, images: tuple[str, ...], attempt: int, refreshed_at: float = 0.0) -> str:
    """Name of the pod for one attempt: the same for the same pull, so a repeated create changes nothing."""
    # The policy belongs to what is inside: after an edit to Always, a finished pod of before is not the same pull.
    parts = (
        cache.uid,
        node_uid,
        *sorted(map(canonical, images)),
        identity_of(cache),
        cache.pull_policy or "",
        str(attempt),
        # A pod that was kept from before a refresh stands in nobody's way.
        str(int(refreshed_at)),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    readable = cache.name[:40].replace(".", "-").strip("-")
    return f"{readable}-pull-{digest}"


def order_for(
    cache: ImageCache,
    node_name: str,
    node_uid: str,
    images: tuple[str, ...],
    attempt: int,
    now: float,
    *,
    refreshed_at: float = 0.0,
    watched: bool = True,
    form: PullerForm = PullerForm.CONTAINER,
) -> Order:
    """One attempt of a cache at images on a node."""
    return Order(
        namespace=cache.namespace,
        name=pod_name(cache, node_uid, images, attempt, refreshed_at),
        cache=cache.name,
        cache_uid=cache.uid,
        node=node_name,
        images=images,
        pull_identity=identity_of(cache),
        attempt=attempt,
        ordered_at=now,
        refreshed_at=refreshed_at,
        watched=watched,
        form=form,
        generation=cache.generation,
    )


def annotations_of(order: Order) -> dict[str, str]:
    """What a pod says of its order, read back by `attempt_of` and others."""
    return {
        names.ANNOTATION_IMAGES: json.dumps(list(order.images)),
        names.ANNOTATION_ATTEMPT: str(order.attempt),
        names.ANNOTATION_REFRESHED_AT: str(int(order.refreshed_at)),
    }


def create(order: Order, cache: ImageCache, settings: PullerSettings, resources: ContainerResources = USUAL) -> Create:
    """The intent that makes an order true; `resources` are each container's."""
    metadata: dict[str, Json] = {
        "namespace": order.namespace,
        "name": order.name,
        "labels": {
            **_NO_SIDECAR_LABELS,
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_PULLER: names.TRUE,
            names.LABEL_CACHE_UID: order.cache_uid,
        },
        "annotations": {
            **_NO_SIDECARS,
            # A bare pod would keep the cluster autoscaler from removing its node.
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
            **annotations_of(order),
        },
        # "controller" because kubectl drain refuses pods that nobody manages.
        "ownerReferences": [
            {
                "apiVersion": IMAGE_CACHES.api_version,
                "kind": IMAGE_CACHES.kind,
                "name": cache.name,
                "uid": cache.uid,
                "controller": True,
            }
        ],
    }
    manifest: dict[str, Json] = {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": metadata,
        "spec": _spec(order, cache, settings, resources.manifest()),
    }
    return Create(PODS, order.namespace, order.name, manifest)


def _spec(order: Order, cache: ImageCache, settings: PullerSettings, resources: Json) -> Json:
    spec: dict[str, Json] = {
        "nodeName": order.node,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": cache.attempt_timeout_seconds or settings.attempt_timeout_seconds,
        # With more, a pod on a dead node could not be removed.
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "Default",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [_toleration(toleration) for toleration in (*POD_TOLERATIONS, *cache.tolerations)],
        **(_mounting if order.form is PullerForm.VOLUME else _running)(order, cache, settings, resources),
    }
    if cache.service_account:
        spec["serviceAccountName"] = cache.service_account
    if cache.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cache.pull_secrets]
    priority_class = cache.priority_class or settings.priority_class
    if priority_class:
        spec["priorityClassName"] = priority_class
    return spec


def _policy(image: str, cache: ImageCache, settings: PullerSettings) -> PullPolicy:
    # As the kubelet does for pods that name no policy: what is there by such a name may be old.
    return PullPolicy.ALWAYS if moves(image) else cache.pull_policy or settings.pull_policy


def _running(order: Order, cache: ImageCache, settings: PullerSettings, resources: Json) -> dict[str, Json]:
    """Form Container: the target images run a static binary that an init container copied."""
    helper = _container(HELPER_CONTAINER, settings.helper_image, settings.helper_command, resources, _MOUNT)
    mount = {**_MOUNT, "readOnly": True}
    containers: list[Json] = [
        _container(
            f"{PULL_CONTAINER_PREFIX}{number}",
            image,
            settings.hold_command,
            resources,
            mount,
            policy=_policy(image, cache, settings),
        )
        for number, image in enumerate(order.images)
    ]
    if order.watched:
        sentinel = _container(SENTINEL_CONTAINER, settings.helper_image, settings.hold_command, resources, mount)
        containers.append(sentinel)
    return {
        "volumes": [{"name": _VOLUME, "emptyDir": {"sizeLimit": "32Mi"}}],
        "initContainers": [helper],
        "containers": containers,
    }


def _mounting(order: Order, cache: ImageCache, settings: PullerSettings, resources: Json) -> dict[str, Json]:
    """Form Volume: containers of ours mount the target images. An unmounted volume would prove nothing."""
    volumes: list[Json] = []
    containers: list[Json] = []
    for number, image in enumerate(order.images):
        name = f"{PULL_CONTAINER_PREFIX}{number}"
        policy = _policy(image, cache, settings)
        volumes.append({"name": name, "image": {"reference": image, "pullPolicy": policy.value}})
        mount: Mapping[str, Json] = {"name": name, "mountPath": HELPER_DIRECTORY, "readOnly": True}
        containers.append(_container(name, settings.helper_image, settings.mount_command, resources, mount))
    if order.watched:
        containers.append(_container(SENTINEL_CONTAINER, settings.helper_image, settings.mount_command, resources))
    return {"volumes": volumes, "containers": containers}


def _container(
    name: str,
    image: str,
    command: tuple[str, ...],
    resources: Json,
    mount: Mapping[str, Json] | None = None,
    *,
    policy: PullPolicy = PullPolicy.IF_NOT_PRESENT,
) -> dict[str, Json]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": policy.value,
        "command": list(command),
        "resources": resources,
        "securityContext": _RESTRICTED,
        "volumeMounts": [] if mount is None else [mount],
    }


def _toleration(toleration: Toleration) -> Json:
    fields = {
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
        "effect": toleration.effect,
    }
    return {name: value for name, value in fields.items() if value}


def attempt_of(pod: Pod) -> int:
    """Which attempt a puller pod is, from 1; 1 where the annotation is missing or damaged."""
    text = pod.annotations.get(names.ANNOTATION_ATTEMPT, "")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 else 1
