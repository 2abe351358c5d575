"""What does a puller pod's status say about each of its images?"""

import re
from enum import StrEnum

from msgspec import Struct

from prewarm.model.images import canonical
from prewarm.model.pods import ContainerPhase, ContainerStatus, Pod, PodPhase
from prewarm.presence.evidence import proves_presence
from prewarm.puller.pods import HELPER_CONTAINER, images_of
from prewarm.puller.reasons import FailureReason

MAX_MESSAGE = 512
"""Characters kept of the kubelet's words."""
GRACE_SECONDS = 60.0
"""How long after its deadline a pod without any verdict is given up: its kubelet does not answer."""


class PullState(StrEnum):
    """How far a pod is with one of its images."""

    PULLING = "Pulling"
    PULLED = "Pulled"
    FAILED = "Failed"


class ImageResult(Struct, frozen=True):
    """What became of one image of a pod; `image` as the pod spells it."""

    image: str
    state: PullState
    reason: FailureReason | None = None
    message: str = ""
    at: float = 0.0


class Reading(Struct, frozen=True):
    """One puller pod, read."""

    pod: Pod
    results: tuple[ImageResult, ...]
    begun: bool
    """Whether it may have begun to pull: from then on nothing stops it (neither deletion nor its deadline)."""

    @property
    def settled(self) -> bool:
        """Whether every image has its verdict: the pod has nothing more to do."""
        return all(result.state is not PullState.PULLING for result in self.results)


_PULL_FAILURES = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""Waiting reasons of pkg/kubelet/images/types.go and of the CRI errors (k8s.io/cri-api pkg/errors)."""

_PHRASES: tuple[tuple[FailureReason, tuple[str, ...]], ...] = (
    (FailureReason.QPS_EXCEEDED, ("pull QPS exceeded",)),
    (FailureReason.WRONG_PLATFORM, ("no match for platform", "no matching manifest for")),
    (FailureReason.RATE_LIMITED, (r"\b429\b", "toomanyrequests", "too many requests", "rate limit")),
    (
        FailureReason.UNAUTHORIZED,
        (r"\b40[13]\b", "unauthorized", "access denied", "authorization failed", "no basic auth", "forbidden"),
    ),
    (FailureReason.NO_SPACE, ("no space left on device",)),
    (
        FailureReason.REGISTRY_SILENT,
        (
            "timeout awaiting response headers",
            "DeadlineExceeded",
            "deadline exceeded",
            "i/o timeout",
            r"Client\.Timeout",
            "TLS handshake timeout",
        ),
    ),
    (
        FailureReason.REGISTRY_UNAVAILABLE,
        (
            "connection refused",
            "no such host",
            "server misbehaving",
            "connection reset",
            "no route to host",
            "network is unreachable",
            r"\bEOF\b",
            r"\b50[0-9]\b",
            "x509:",
            "HTTP response to HTTPS client",
        ),
    ),
    (FailureReason.NOT_FOUND, ("not found", "manifest unknown", "name unknown", r"\b404\b")),
)
"""Words of containerd, CRI-O and the registries; the first line that matches counts."""
_PATTERNS = tuple((reason, re.compile("|".join(phrases), re.IGNORECASE)) for reason, phrases in _PHRASES)
_NAMES_INSIDE = re.compile(r"\"[^\"]*\"|https?://\S+")
_BACK_OFF = re.compile(r"^Back-off pulling image \"[^\"]*\"(: ErrImagePull)?:? ?")


def classify(message: str, image: str) -> FailureReason:
    """The reason that a runtime's error message speaks of.

    Names are taken out first: an image may be called "not-found", and a URL hold any number.
    """
    text = _NAMES_INSIDE.sub(" ", message)
    for name in (image, canonical(image)):
        text = text.replace(name, " ")
    for reason, pattern in _PATTERNS:
        if pattern.search(text):
            return reason
    return FailureReason.UNKNOWN


def words(message: str) -> str:
    """The runtime's own words, without the kubelet's back-off prefix, which comes and goes between two syncs."""
    return _BACK_OFF.sub("", message).strip()[:MAX_MESSAGE]


def read(pod: Pod, now: float, timeout_seconds: float) -> Reading:
    """Judge every image of a puller pod by the pod's own status.

    Args:
        pod: a pod of ours.
        now: Unix seconds.
        timeout_seconds: how long an attempt may take (attempts.timeoutSeconds).
    """
    statuses = {status.name: status for status in pod.containers}
    helper = statuses.get(HELPER_CONTAINER)
    ended = _ended(pod, helper, now, timeout_seconds)
    results = tuple(_result(image, statuses.get(name), ended, pod) for name, image in images_of(pod))
    begun = helper is not None and helper.phase is ContainerPhase.TERMINATED
    return Reading(pod, results, begun or any(result.state is not PullState.PULLING for result in results))


def _result(
    image: str, status: ContainerStatus | None, ended: tuple[FailureReason, str] | None, pod: Pod
) -> ImageResult:
    if status is not None:
        if proves_presence(status):
            return ImageResult(image, PullState.PULLED, at=status.started_at or pod.created_at)
        if status.phase is ContainerPhase.WAITING and status.reason in _PULL_FAILURES:
            message = words(status.message) or status.reason
            reason = classify(message, image)
            if status.reason == "InvalidImageName":
                reason = FailureReason.INVALID_IMAGE
            return ImageResult(image, PullState.FAILED, reason, message)
    if ended is not None:
        reason, message = ended
        return ImageResult(image, PullState.FAILED, reason, message)
    return ImageResult(image, PullState.PULLING)


def _ended(
    pod: Pod, helper: ContainerStatus | None, now: float, timeout_seconds: float
) -> tuple[FailureReason, str] | None:
    """Why nothing more will come from the pod for images without a verdict of their own; None if something may."""
    if helper is not None:
        if helper.phase is ContainerPhase.WAITING and helper.reason in _PULL_FAILURES:
            return FailureReason.HELPER_FAILED, f"helper image {helper.image or ''}: {words(helper.message)}".strip()
        if helper.phase is ContainerPhase.TERMINATED and helper.exit_code not in {0, None} and not pod.reason:
            detail = helper.message or helper.reason
            return FailureReason.HELPER_FAILED, f"helper container ended with {helper.exit_code}: {detail}"[
                :MAX_MESSAGE
            ]
    if pod.phase is PodPhase.FAILED:
        said = pod.message or pod.reason or "the pod failed without a message"
        reason = FailureReason.DEADLINE if pod.reason == "DeadlineExceeded" else FailureReason.REJECTED
        prefix = f"{pod.reason}: " if pod.reason and pod.message else ""
        return reason, f"{prefix}{said}"[:MAX_MESSAGE]
    if pod.phase is PodPhase.SUCCEEDED:
        return FailureReason.UNKNOWN, "the pod succeeded without a status for this image"
    if now > pod.created_at + timeout_seconds + GRACE_SECONDS:
        return FailureReason.DEADLINE, f"no verdict from the kubelet within {timeout_seconds:g} s"
    return None
