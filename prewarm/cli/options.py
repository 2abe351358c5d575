"""Options that several commands share, and what is typed in them."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prewarm.cli.errors import usage
from prewarm.model.images import parse_reference
from prewarm.model.workloads import WorkloadKey

_KINDS = {
    "deployment": "Deployment",
    "deployments": "Deployment",
    "deploy": "Deployment",
    "statefulset": "StatefulSet",
    "statefulsets": "StatefulSet",
    "sts": "StatefulSet",
    "daemonset": "DaemonSet",
    "daemonsets": "DaemonSet",
    "ds": "DaemonSet",
    "cloneset": "CloneSet",
    "clonesets": "CloneSet",
    "clone": "CloneSet",
    "advancedstatefulset": "AdvancedStatefulSet",
    "statefulset.apps.kruise.io": "AdvancedStatefulSet",
    "statefulsets.apps.kruise.io": "AdvancedStatefulSet",
    "asts": "AdvancedStatefulSet",
    "advanceddaemonset": "AdvancedDaemonSet",
    "daemonset.apps.kruise.io": "AdvancedDaemonSet",
    "daemonsets.apps.kruise.io": "AdvancedDaemonSet",
    "ads": "AdvancedDaemonSet",
    "rollout": "Rollout",
    "rollouts": "Rollout",
    "ro": "Rollout",
    "replicaset": "ReplicaSet",
    "replicasets": "ReplicaSet",
    "rs": "ReplicaSet",
    "cronjob": "CronJob",
    "cronjobs": "CronJob",
    "cj": "CronJob",
    "job": "Job",
    "jobs": "Job",
    "canary": "Canary",
    "canaries": "Canary",
}


class OutputFormat(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Kubeconfig = Annotated[
    Path | None, typer.Option(help="File to connect with, as kubectl takes it.", show_default="as kubectl")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.", show_default="the current one")]
SystemNamespace = Annotated[
    str, typer.Option(envvar="PREWARM_NAMESPACE", help="Where the controller keeps what it has learnt.")
]
SYSTEM_NAMESPACE = "prewarm-system"
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print the result.")]
SetImage = Annotated[
    list[str] | None,
    typer.Option("--set-image", metavar="CONTAINER=IMAGE", help="As if this container had this image; repeatable."),
]


def is_kind(word: str) -> bool:
    """Whether a word names a kind of workload."""
    return word.lower() in _KINDS


def parse_workload(text: str) -> WorkloadKey:
    """KIND/NAMESPACE/NAME, kinds as kubectl abbreviates them.

    Raises:
        CommandError: if it is something else.
    """
    kind, slash, rest = text.partition("/")
    namespace, second, name = rest.partition("/")
    if not (slash and second and namespace and name) or "/" in name:
        raise usage(f"{text!r} is no workload: write KIND/NAMESPACE/NAME, such as deployment/shop/web")
    known = _KINDS.get(kind.lower())
    if known is None:
        kinds = "deployment, statefulset, daemonset, cloneset, asts, ads, rollout, replicaset, cronjob or job"
        raise usage(f"kind {kind!r} of {text!r} is not known: write {kinds}")
    return WorkloadKey(known, namespace, name)


def parse_set_images(pairs: Iterable[str]) -> dict[str, str]:
    """Images by container, from CONTAINER=IMAGE.

    Raises:
        CommandError: if one is written otherwise, or two are for one container.
    """
    images: dict[str, str] = {}
    for pair in pairs:
        container, equals, image = pair.partition("=")
        if not equals or not container:
            raise usage(f"--set-image {pair!r}: write CONTAINER=IMAGE, such as web=registry.example/web:v2")
        if container in images:
            raise usage(f"--set-image names container {container!r} twice")
        images[container] = checked_image(image)
    return images


def checked_image(text: str) -> str:
    """The text, if it is an image reference.

    Raises:
        CommandError: if it is not.
    """
    try:
        parse_reference(text)
    except ValueError as error:
        raise usage(str(error)) from None
    return text


def parse_seconds(text: str) -> float:
    """A duration such as 90s, 10m or 1h30m, in seconds; a bare number is in seconds.

    Raises:
        CommandError: if it is none, or not positive.
    """
    import durationpy

    try:
        seconds = float(text) if text.replace(".", "", 1).isdigit() else durationpy.from_str(text).total_seconds()
    except (durationpy.DurationError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 < seconds <= 86_400 * 7:
        raise usage(f"duration {text!r}: write something such as 90s, 10m or 1h30m, at most a week")
    return seconds
