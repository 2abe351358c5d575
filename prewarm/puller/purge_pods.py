"""What does a pod look like that removes images from a node, and how is one read back?"""

import hashlib
from collections.abc import Sequence

from msgspec import Struct

from prewarm.api import names
from prewarm.api.removal import REMOVALS_VARIABLE, decode_removals, decode_report, encode_removals
from prewarm.model.intents import PODS, Create, Json
from prewarm.model.nodes import Node
from prewarm.model.pods import ContainerPhase, Pod
from prewarm.model.removals import Removal, RemovalReport
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.sockets import usual_sockets
from prewarm.puller.settings import PurgeSettings

CONTAINER = "remove-images"
COMMAND = ("prewarm", "remove-images")
DEADLINE_SECONDS = 300
"""For a whole pod: pulling its own image, waiting for the socket, removing."""
_GRACE_SECONDS = 60.0
"""After its deadline, a pod of which the kubelet says nothing is given up."""
_SOCKET = "/run/prewarm/runtime.sock"
"""Where the pod finds the socket."""


class PurgeReading(Struct, frozen=True):
    """What a pod of ours that removes images shows."""

    pod: Pod
    removals: tuple[Removal, ...]
    report: RemovalReport | None = None
    """What it reported; None while it works, and if it ended without a word."""
    ended_at: float = 0.0
    """When its container ended, in whole seconds as the API has them."""
    problem: str = ""
    """Why it ended without a word, in the kubelet's words; "" while it works."""


def socket_of(node: Node, settings: PurgeSettings, attempt: int) -> str:
    """Path of the runtime's socket on a node: as it is set, else the usual ones, another one at each attempt."""
    if settings.socket:
        return settings.socket
    usual = usual_sockets(node.runtime_version)
    return usual[(attempt - 1) % len(usual)]


def pod_name(node: Node, removals: Sequence[Removal], rounds: Sequence[str], attempt: int) -> str:
    """Name of the pod for one attempt: the same for the same removals, so a repeated create changes nothing."""
    parts = (node.uid, *rounds, *(removal.image for removal in removals), str(attempt))
    return f"prewarm-purge-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"


def create(node: Node, removals: Sequence[Removal], name: str, attempt: int, settings: PurgeSettings) -> Create:
    """The intent that has images removed from a node."""
    encoded = encode_removals(removals)
    metadata: dict[str, Json] = {
        "namespace": settings.namespace,
        "name": name,
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_PURGER: names.TRUE},
        "annotations": {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
            "sidecar.istio.io/inject": "false",
            "linkerd.io/inject": "disabled",
            names.ANNOTATION_REMOVALS: encoded,
        },
    }
    manifest: dict[str, Json] = {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": metadata,
        "spec": _spec(node, encoded, attempt, settings),
    }
    return Create(PODS, settings.namespace, name, manifest)


def _spec(node: Node, encoded: str, attempt: int, settings: PurgeSettings) -> Json:
    container: dict[str, Json] = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(COMMAND),
        "args": ["--socket", _SOCKET],
        "env": [{"name": REMOVALS_VARIABLE, "value": encoded}],
        "resources": {
            "requests": {"cpu": "10m", "memory": "48Mi"},
            "limits": {"cpu": "1", "memory": "192Mi"},
        },
        "securityContext": {
            # The socket belongs to root; no capability and no privilege is needed beside that.
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "runtime", "mountPath": _SOCKET}],
    }
    spec: dict[str, Json] = {
        "nodeName": node.name,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "Default",
        "hostNetwork": settings.host_network,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "runtime", "hostPath": {"path": socket_of(node, settings, attempt), "type": "Socket"}}],
    }
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in settings.pull_secrets]
    if settings.priority_class:
        spec["priorityClassName"] = settings.priority_class
    return spec


def pods_of(snapshot: ClusterSnapshot, namespace: str) -> dict[ObjectKey, Pod]:
    """Pods of ours that remove images: only those in our own namespace, where nobody else may label pods."""
    found = snapshot.pods_by_namespace.get(namespace, {})
    return {key: pod for key, pod in found.items() if pod.labels.get(names.LABEL_PURGER) == names.TRUE}


def read(pod: Pod, now: float) -> PurgeReading:
    """What a pod shows."""
    try:
        removals = decode_removals(pod.annotations.get(names.ANNOTATION_REMOVALS, ""))
    except ValueError as error:
        return PurgeReading(pod, (), problem=str(error))
    status = next((status for status in pod.containers if status.name == CONTAINER), None)
    if status is not None and status.phase is ContainerPhase.TERMINATED:
        report = decode_report(status.message)
        if report is not None and len(report.results) == len(removals) and not report.error:
            return PurgeReading(pod, removals, report, ended_at=status.finished_at or now)
        words = report.error if report is not None and report.error else status.message or status.reason
        return PurgeReading(pod, removals, problem=words or f"exit code {status.exit_code}")
    if pod.finished:
        return PurgeReading(pod, removals, problem=" ".join(part for part in (pod.reason, pod.message) if part) or "?")
    if pod.created_at + DEADLINE_SECONDS + _GRACE_SECONDS <= now:
        return PurgeReading(pod, removals, problem="the kubelet said nothing")
    return PurgeReading(pod, removals)
