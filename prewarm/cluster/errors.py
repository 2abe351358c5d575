"""What can go wrong between us and an API server, each as one line that says what, where and why."""

from http import HTTPStatus

import msgspec
from msgspec import Struct


class ClusterError(Exception):
    """The cluster cannot be used as asked; the message is one clear line."""


class ConfigurationError(ClusterError):
    """Kubeconfig or service account files are missing or wrong."""


class ServerUnreachable(ClusterError):  # noqa: N818 - says what is the case, as built-in ConnectionRefusedError does
    """No answer: connection refused, timed out, cut, or a TLS failure."""


class StreamSilent(ServerUnreachable):
    """A watch stands but brings nothing, not even bookmarks."""


class WireStatusCause(Struct, rename="camel"):
    """metav1.StatusCause."""

    reason: str | None = None
    message: str | None = None
    field: str | None = None


class WireStatusDetails(Struct, rename="camel"):
    """metav1.StatusDetails."""

    name: str | None = None
    kind: str | None = None
    """What `name` is of; for NotFound in the API machinery the plural, such as namespaces."""
    causes: list[WireStatusCause] | None = None
    retry_after_seconds: int | None = None


class WireStatus(Struct, rename="camel"):
    """metav1.Status, the body of every error answer."""

    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: WireStatusDetails | None = None


_STATUS = msgspec.json.Decoder(WireStatus)


class ApiError(ClusterError):
    """The API server refused; everything it said, decoded from metav1.Status.

    Attributes:
        code: HTTP status, or the code of an ERROR event in a watch.
        reason: metav1.StatusReason such as NotFound, AlreadyExists, Expired; "" if the server gave none.
        message: the server's own words.
        causes: field and message pairs of an Invalid answer.
        retry_after: seconds to wait before the next try, if the server named them.
        request: what was asked, for the message.
        namespace_ends: whether nothing can be created there, since the namespace is being terminated or is gone.
    """

    def __init__(
        self,
        code: int,
        reason: str = "",
        message: str = "",
        *,
        causes: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
        request: str = "",
        namespace_ends: bool = False,
    ) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after
        self.request = request
        self.namespace_ends = namespace_ends
        said = " ".join(message.split()) or reason or "no explanation given"
        super().__init__(f"{request}: {code} {reason}: {said}" if request else f"{code} {reason}: {said}")

    @property
    def not_found(self) -> bool:
        """Whether the object, its namespace or its kind does not exist."""
        return self.code == HTTPStatus.NOT_FOUND

    @property
    def expired(self) -> bool:
        """Whether a resourceVersion or continue token is too old: list again."""
        return self.code == HTTPStatus.GONE or self.reason in {"Expired", "Gone"}

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.code >= HTTPStatus.INTERNAL_SERVER_ERROR or self.code in {
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.REQUEST_TIMEOUT,
        }


def decode_status(
    body: bytes | msgspec.Raw, code: int, *, request: str = "", retry_after: float | None = None
) -> ApiError:
    """An ApiError from an error answer; a body that is no Status (a proxy's page) gives its first words."""
    try:
        status = _STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = bytes(body)[:200].decode("utf-8", "replace")
        return ApiError(code, message=words, retry_after=retry_after, request=request)
    details = status.details or WireStatusDetails()
    causes = tuple((cause.field or "", cause.message or "") for cause in details.causes or ())
    # As admission plugin NamespaceLifecycle answers: NamespaceTerminatingCause in k8s.io/api/core/v1.
    ends = any(cause.reason == "NamespaceTerminating" for cause in details.causes or ())
    ends = ends or (code == HTTPStatus.NOT_FOUND and details.kind == "namespaces")
    if retry_after is None and details.retry_after_seconds:
        retry_after = float(details.retry_after_seconds)
    return ApiError(
        status.code or code,
        status.reason or "",
        status.message or "",
        causes=causes,
        retry_after=retry_after,
        request=request,
        namespace_ends=ends,
    )
