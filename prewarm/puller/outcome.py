"""What does a puller pod's status say about each of its images?"""

import re
from enum import StrEnum

from msgspec import Struct

from prewarm.api.fields import both_ends
from prewarm.model.images import canonical
from prewarm.model.nodes import pull_identity
from prewarm.model.pods import ContainerKind, ContainerPhase, ContainerStatus, Pod, PodPhase
from prewarm.presence import pulls_for
from prewarm.presence.evidence import mounts_its_images, proves_presence
from prewarm.puller.alterations import is_ours, targets
from prewarm.puller.pods import HELPER_CONTAINER, attempt_of
from prewarm.puller.reasons import FailureReason

MAX_MESSAGE = 512
"""Characters kept of the kubelet's words."""
GRACE_SECONDS = 60.0
"""How long at most after its deadline a pod without any verdict is given up; no longer than its timeout was."""


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
    settled: bool
    """Whether every image has its verdict: the pod has nothing more to do."""
    failed: bool
    """Whether an image failed."""
    pulling: tuple[str, ...] = ()
    """Images without a verdict, canonical."""
    identity: str = ""
    """Under whose credentials it pulls."""
    turn: tuple[float, int] = (0.0, 0)
    """When it was tried among the pods of its node: for which refresh, and which attempt it is."""


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
    return both_ends(_BACK_OFF.sub("", message).strip(), MAX_MESSAGE)


def read(pod: Pod, now: float, timeout_seconds: float, missing_secret: str = "") -> Reading:
    """Judge every image of a puller pod by the pod's own status.

    Args:
        pod: a pod of ours.
        now: Unix seconds.
        timeout_seconds: how long an attempt may take (attempts.timeoutSeconds).
        missing_secret: what the kubelet said of image pull secrets that it did not find, which no status tells.
    """
    statuses = {status.name: status for status in pod.containers}
    helper = statuses.get(HELPER_CONTAINER)
    shapes = {shape.name: shape.image for shape in pod.shape.containers if shape.kind is ContainerKind.MAIN}
    mounted = mounts_its_images(pod)
    ended = _ended(pod, helper, now, timeout_seconds)
    results = []
    for name, image, actual in targets(pod):
        if canonical(image) != canonical(actual):
            message = f"admission changed the image of container {name} to {actual}"
            results.append(ImageResult(image, PullState.FAILED, FailureReason.ALTERED, message[:MAX_MESSAGE]))
            continue
        result = _result(image, statuses.get(name), ended, pod, shapes.get(name, "") if mounted else "")
        results.append(_with_secret(result, missing_secret))
    begun = helper is not None and helper.phase is ContainerPhase.TERMINATED
    # In form Volume nothing comes before the pulls but the sandbox.
    begun = begun or (mounted and (pod.sandbox_ready_at is not None or bool(pod.containers)))
    pulling = tuple(canonical(result.image) for result in results if result.state is PullState.PULLING)
    return Reading(
        pod,
        tuple(results),
        begun=begun or len(pulling) < len(results),
        settled=not pulling,
        failed=any(result.state is PullState.FAILED for result in results),
        pulling=pulling,
        identity=pull_identity(pod.namespace, pod.shape.service_account, pod.shape.pull_secrets),
        turn=(pulls_for(pod), attempt_of(pod)),
    )


def given_up_at(pod: Pod, timeout_seconds: float) -> float:
    """After which time a pod without any verdict counts as failed.

    A kubelet that pulls tells nothing at the deadline: it ends what it began, and tells then that the image is there.
    """
    return pod.created_at + timeout_seconds + min(timeout_seconds, GRACE_SECONDS)


def _with_secret(result: ImageResult, missing_secret: str) -> ImageResult:
    if not missing_secret or result.reason is not FailureReason.UNAUTHORIZED:
        return result
    message = f"{missing_secret.rstrip('.')}. {result.message}"[:MAX_MESSAGE]
    return ImageResult(result.image, result.state, FailureReason.MISSING_SECRET, message, result.at)


def _result(
    image: str, status: ContainerStatus | None, ended: tuple[FailureReason, str] | None, pod: Pod, helper_image: str
) -> ImageResult:
    """What became of one image; `helper_image` is the image of the container that mounts it, "" in form Container."""
    if status is not None:
        if proves_presence(status):
            return ImageResult(image, PullState.PULLED, at=status.started_at or pod.created_at)
        if status.phase is ContainerPhase.WAITING and status.reason in _PULL_FAILURES:
            message = words(status.message) or status.reason
            if helper_image and _speaks_of(status.message, helper_image) and not _speaks_of(status.message, image):
                said = f"helper image {helper_image}: {message}"[:MAX_MESSAGE]
                return ImageResult(image, PullState.FAILED, FailureReason.HELPER_FAILED, said)
            reason = classify(status.message or status.reason, image)
            if status.reason == "InvalidImageName":
                reason = FailureReason.INVALID_IMAGE
            return ImageResult(image, PullState.FAILED, reason, message)
    if ended is not None:
        reason, message = ended
        return ImageResult(image, PullState.FAILED, reason, message)
    return ImageResult(image, PullState.PULLING)


def _speaks_of(message: str, image: str) -> bool:
    return f'"{image}"' in message or f'"{canonical(image)}"' in message


_REJECTED = "Pod was rejected"
_EVICTIONS = frozenset({"Evicted", "Preempting", "Terminated", "NodeShutdown", "Shutdown"})
"""status.reason of pods that a node took and ended (pkg/kubelet: eviction, preemption, nodeshutdown)."""
_CREATED = frozenset({"CreateContainerError", "CreateContainerConfigError", "RunContainerError"})


def _ended(
    pod: Pod, helper: ContainerStatus | None, now: float, timeout_seconds: float
) -> tuple[FailureReason, str] | None:
    """Why nothing more will come from the pod for images without a verdict of their own; None if something may."""
    stopped = _before_ours(pod, helper)
    if stopped is not None:
        return stopped
    if pod.phase is PodPhase.FAILED:
        said = pod.message or pod.reason or "the pod failed without a message"
        reason = FailureReason.DEADLINE if pod.reason == "DeadlineExceeded" else FailureReason.REJECTED
        if pod.reason in _EVICTIONS and not pod.message.startswith(_REJECTED):
            reason = FailureReason.EVICTED
        prefix = f"{pod.reason}: " if pod.reason and pod.message else ""
        return reason, f"{prefix}{said}"[:MAX_MESSAGE]
    if pod.phase is PodPhase.SUCCEEDED:
        return FailureReason.UNKNOWN, "the pod succeeded without a status for this image"
    if now > given_up_at(pod, timeout_seconds):
        return FailureReason.DEADLINE, f"no verdict from the kubelet within {timeout_seconds:g} s"
    return None


def _before_ours(pod: Pod, helper: ContainerStatus | None) -> tuple[FailureReason, str] | None:
    """What keeps our containers from starting: the helper, or an init container that admission added."""
    for status in pod.containers:
        added = status.init and not is_ours(status.name)
        if not (added or status is helper):
            continue
        who = f"added init container {status.name}" if added else "helper"
        reason = FailureReason.ALTERED if added else FailureReason.HELPER_FAILED
        if status.phase is ContainerPhase.WAITING and status.reason in _PULL_FAILURES | _CREATED:
            said = words(status.message) or status.reason
            what = f"{who}: {said}" if added else f"helper image {status.image or ''}: {said}".strip()
            return reason, what[:MAX_MESSAGE]
        ended = status.phase is ContainerPhase.TERMINATED and status.exit_code not in {0, None}
        if ended and not pod.reason:
            what = who if added else "helper container"
            return reason, f"{what} ended with {status.exit_code}: {status.message or status.reason}"[:MAX_MESSAGE]
    return None
