"""The kubelet's and containerd's own words (kubelet 1.36.3; pkg/kubelet/images/image_manager.go and events)."""

from enum import StrEnum

from prewarm.model.images import ImageReference
from prewarm.simulation.registry import RegistryAnswer, RemoteImage


class Runtime(StrEnum):
    """Container runtimes whose error texts are known."""

    CONTAINERD_2 = "containerd://2.4.2"
    CONTAINERD_1_6 = "containerd://1.6.20"

    @property
    def mounts_image_volumes(self) -> bool:
        """Whether a container that mounts an image volume can be created (containerd 2.1 and later)."""
        return self is Runtime.CONTAINERD_2


class EventType(StrEnum):
    """type of an Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


QPS_EXCEEDED = "pull QPS exceeded"
DEADLINE_EXCEEDED = "Pod was active on the node longer than the specified deadline"
CONTAINER_LOST = "The container could not be located when the pod was terminated"
COMBINED = "(combined from similar events): "
NO_IMAGE_MOUNT = (
    'failed to generate container "{id}" spec: failed to generate spec: '
    'failed to mkdir "": mkdir : no such file or directory'
)


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, truncated to milliseconds: 98ms, 6.23s, 1m2.5s."""
    milliseconds = int(seconds * 1000 + 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def pulling(image: str) -> str:
    """Normal Pulling."""
    return f'Pulling image "{image}"'


def pulled(image: str, pull_seconds: float, total_seconds: float, size: int) -> str:
    """Normal Pulled after a pull."""
    return (
        f'Successfully pulled image "{image}" in {go_duration(pull_seconds)} '
        f"({go_duration(total_seconds)} including waiting). Image size: {size} bytes."
    )


def already_present(image: str) -> str:
    """Normal Pulled without a pull."""
    return f'Container image "{image}" already present on machine and can be accessed by the pod'


def never_pull(image: str) -> str:
    """Warning ErrImageNeverPull, and the waiting message."""
    return f'Container image "{image}" is not present with pull policy of Never'


def invalid_name(image: str) -> str:
    """Warning InspectFailed, and the waiting message of InvalidImageName."""
    return (
        f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": invalid reference format'
    )


def back_off(image: str) -> str:
    """Normal BackOff."""
    return f'Back-off pulling image "{image}"'


def failed_to_pull(image: str, error: str) -> str:
    """Warning Failed."""
    return f'Failed to pull image "{image}": {error}'


def missing_secrets(names: list[str]) -> str:
    """Warning FailedToRetrieveImagePullSecret."""
    return (
        f"Unable to retrieve some image pull secrets ({', '.join(names)}); "
        "attempting to pull the image may not succeed."
    )


def start_error(command: str, runtime: Runtime) -> str:
    """Why a container whose command does not exist did not start."""
    text = (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
        f'runc create failed: unable to start container process: exec: "{command}": '
        f"stat {command}: no such file or directory"
    )
    return text if runtime is Runtime.CONTAINERD_2 else f"{text}: unknown"


def cannot_verify_non_root(user: str, pod: str, container: str) -> str:
    """Why a container that has to run as non-root was not created (kuberuntime security_context.go)."""
    where = f'(pod: "{pod}", container: {container})'
    if user and not user.isdigit():
        return (
            f"container has runAsNonRoot and image has non-numeric user ({user}), "
            f"cannot verify user is non-root {where}"
        )
    return f"container has runAsNonRoot and image will run as root {where}"


def pull_error(
    image: str, reference: ImageReference, answer: RegistryAnswer, remote: RemoteImage | None, runtime: Runtime
) -> str:
    """Containerd's error for a reference that could not be resolved; `image` as the pod spells it."""
    modern = runtime is Runtime.CONTAINERD_2
    resolved = image if reference.tag != "latest" or image.endswith(":latest") else f"{image}:latest"
    prefix = f'failed to pull and unpack image "{resolved}": '
    resolve = prefix + ("failed to resolve image: " if modern else f'failed to resolve reference "{resolved}": ')
    version = reference.digest or reference.tag
    path = f"v2/{reference.repository}/manifests/{version}"
    host = reference.registry
    namespace = "%5BREDACTED%5D" if modern else host
    match answer:
        case RegistryAnswer.NOT_FOUND:
            return f"rpc error: code = NotFound desc = {resolve}{resolved}: not found"
        case RegistryAnswer.WRONG_PLATFORM:
            if not modern:
                return f"rpc error: code = NotFound desc = {prefix}no match for platform in manifest: not found"
            digest = remote.digest if remote else ""
            return (
                "rpc error: code = NotFound desc = get image config descriptor: "
                f"no match for platform in manifest {digest}: not found"
            )
        case RegistryAnswer.REFUSED:
            return (
                f'{resolve}failed to do request: Head "http://{host}:80/{path}?ns={namespace}": '
                f"dial tcp {host}:80: connect: connection refused"
            )
        case RegistryAnswer.UNKNOWN_HOST:
            return (
                f'{resolve}failed to do request: Head "https://{host}/{path}": '
                f"dial tcp: lookup {host} on node-a:53: no such host"
            )
        case RegistryAnswer.TIMED_OUT:
            return (
                f"rpc error: code = DeadlineExceeded desc = {resolve}failed to do request: "
                f'Head "http://{host}:80/{path}?ns={namespace}": net/http: timeout awaiting response headers'
            )
        case RegistryAnswer.NO_CREDENTIALS | RegistryAnswer.WRONG_CREDENTIALS:
            return resolve + _refused_credentials(host, path, version, answer, modern=modern)
        case RegistryAnswer.FOUND:
            raise ValueError(f"image {image!r} was found: there is no error to word")


def _refused_credentials(host: str, path: str, version: str, answer: RegistryAnswer, *, modern: bool) -> str:
    if not modern:
        return f"pulling from host {host}:80 failed with status code [manifests {version}]: 401 Unauthorized"
    if answer is RegistryAnswer.WRONG_CREDENTIALS:
        return f"unexpected status from HEAD request to http://{host}:80/{path}?ns={host}: 401 Unauthorized"
    return (
        "pull access denied, repository does not exist or may require authorization: "
        "authorization failed: no basic auth credentials"
    )
