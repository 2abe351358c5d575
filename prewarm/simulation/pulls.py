"""The kubelet's image manager on one node: is the image there, may the pod use it, else pull it in turn.

After pkg/kubelet/images/image_manager.go and pkg/kubelet/images/pullmanager (KEP-2535), kubelet 1.36.3.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping

from msgspec import Struct

from prewarm.model.images import ImageReference, PullPolicy, parse_reference
from prewarm.simulation import messages
from prewarm.simulation.agenda import Agenda, Signal
from prewarm.simulation.bandwidth import Egress, Flow, NodeLink
from prewarm.simulation.messages import EventType
from prewarm.simulation.outputs import PullFinished
from prewarm.simulation.registry import Registries, RegistryAnswer, RemoteImage
from prewarm.simulation.specs import NodeProfile, PodSpec, PullSecret
from prewarm.simulation.store import ImageStore, PullRecord, StoredImage

_BACK_OFF_FIRST = 10.0
_BACK_OFF_MOST = 300.0

Credential = tuple[tuple[str, str], str]
"""Namespace and name of a secret, and what it holds for the registry."""


class ImageProblem(Struct, frozen=True):
    """Why an image cannot be used: the waiting reason and its message."""

    reason: str
    message: str


class EnsureRequest(Struct, frozen=True):
    """Labels of kubelet_image_manager_ensure_image_requests_total."""

    pull_policy: str
    present_locally: str
    pull_required: str


class _BackOff:
    """client-go's flowcontrol.Backoff for one pod and image."""

    __slots__ = ("error", "seconds", "since")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.since = float("-inf")
        self.error = ""

    def active(self, now: float) -> bool:
        return now - self.since < self.seconds

    def fail(self, now: float, error: str) -> None:
        expired = now - self.since > 2 * _BACK_OFF_MOST
        self.seconds = _BACK_OFF_FIRST if expired or not self.seconds else min(self.seconds * 2, _BACK_OFF_MOST)
        self.since = now
        self.error = error


class _Slots:
    """Pulls at once, first come first served."""

    def __init__(self, slots: int | None) -> None:
        self._free = slots
        self._queue: deque[Signal] = deque()

    def enter(self) -> Signal:
        turn = Signal()
        if self._free is None:
            turn.fire()
        elif self._free:
            self._free -= 1
            turn.fire()
        else:
            self._queue.append(turn)
        return turn

    def leave(self) -> None:
        if self._free is None:
            return
        if self._queue:
            self._queue.popleft().fire()
        else:
            self._free += 1


class _PullRate:
    """registryPullQPS and registryBurst: a token bucket in front of the runtime; what does not get one fails."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps, self._burst = qps, burst
        self._tokens, self._at = float(burst), 0.0

    def take(self, now: float) -> bool:
        if self._qps <= 0:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Pulled(Struct):
    """Result of one call to the runtime."""

    image: StoredImage | None = None
    error: str = ""
    bytes_downloaded: int = 0
    credential: Credential | None = None


class ImageManager:
    """Images and pulls of one node. Its queue, back-off and rate are lost when the kubelet restarts."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        profile: NodeProfile,
        store: ImageStore,
        link: NodeLink,
        registries: Registries,
        egress: Callable[[str], Egress],
        secrets: Mapping[tuple[str, str], PullSecret],
        record: Callable[[PodSpec, EventType, str, str, str], None],
        report: Callable[[PullFinished], None],
        stored: Callable[[], None],
    ) -> None:
        self._agenda, self._profile, self._store, self._link = agenda, profile, store, link
        self._registries, self._egress, self._secrets = registries, egress, secrets
        self._record, self._report, self._stored = record, report, stored
        self._slots = _Slots(profile.pull_slots)
        self._rate = _PullRate(profile.registry_qps, profile.registry_burst)
        self._back_off: dict[tuple[str, str], _BackOff] = {}
        self._in_flight: dict[str, Signal] = {}
        self.requests: Counter[EnsureRequest] = Counter()
        self.pulls = 0
        """kubelet_image_pull_duration_seconds_count."""

    def forget(self, uid: str) -> None:
        """Drop what is known of a pod that is gone."""
        for key in [key for key in self._back_off if key[0] == uid]:
            del self._back_off[key]

    def missing_secrets(self, pod: PodSpec) -> list[str]:
        """Names of pull secrets that the pod names and nobody created."""
        return [name for name in pod.pull_secrets if (pod.namespace, name) not in self._secrets]

    def ensure(
        self, pod: PodSpec, image: str, policy: PullPolicy, field_path: str
    ) -> Generator[float | Signal, None, ImageProblem | StoredImage]:
        """Make an image usable for a pod (EnsureImageExists): the stored image, or why not."""
        try:
            reference = parse_reference(image)
        except ValueError:
            self._record(pod, EventType.WARNING, "InspectFailed", messages.invalid_name(image), field_path)
            return ImageProblem("InvalidImageName", messages.invalid_name(image))
        stored = self._store.find(reference)
        must_pull = stored is not None and not self._may_use(pod, reference, stored)
        self._count(policy, present=stored is not None, required=must_pull)
        if policy is PullPolicy.NEVER and (stored is None or must_pull):
            self._record(pod, EventType.WARNING, "ErrImageNeverPull", messages.never_pull(image), field_path)
            return ImageProblem("ErrImageNeverPull", messages.never_pull(image))
        if stored is not None and not must_pull and policy is not PullPolicy.ALWAYS:
            self._record(pod, EventType.NORMAL, "Pulled", messages.already_present(image), field_path)
            return stored
        back_off = self._back_off.setdefault((pod.uid, image), _BackOff())
        if back_off.active(self._agenda.now):
            self._record(pod, EventType.NORMAL, "BackOff", messages.back_off(image), field_path)
            return ImageProblem("ImagePullBackOff", f"{messages.back_off(image)}: ErrImagePull: {back_off.error}")
        return (yield from self._pull_in_turn(pod, image, reference, back_off, field_path))

    def _pull_in_turn(
        self, pod: PodSpec, image: str, reference: ImageReference, back_off: _BackOff, field_path: str
    ) -> Generator[float | Signal, None, ImageProblem | StoredImage]:
        self._record(pod, EventType.NORMAL, "Pulling", messages.pulling(image), field_path)
        queued_at = self._agenda.now
        yield self._slots.enter()
        started_at = self._agenda.now
        pulled = yield from self._pull(pod, image, reference)
        now = self._agenda.now
        stored = pulled.image
        size = 0 if stored is None else stored.remote.size
        self._report(
            PullFinished(
                now,
                self._profile.name,
                pod.namespace,
                pod.name,
                pod.uid,
                image,
                queued_at,
                started_at,
                pulled.bytes_downloaded,
                size,
                pulled.error,
            )
        )
        if stored is None:
            back_off.fail(now, pulled.error)
            self._record(pod, EventType.WARNING, "Failed", messages.failed_to_pull(image, pulled.error), field_path)
            self._slots.leave()
            return ImageProblem("ErrImagePull", pulled.error)
        _remember(reference, stored, pulled.credential)
        self.pulls += 1
        self._record(
            pod,
            EventType.NORMAL,
            "Pulled",
            messages.pulled(image, now - started_at, now - queued_at, size),
            field_path,
        )
        self._slots.leave()
        return stored

    def _pull(self, pod: PodSpec, image: str, reference: ImageReference) -> Generator[float | Signal, None, _Pulled]:
        """One PullImage call to the runtime."""
        if not self._rate.take(self._agenda.now):
            return _Pulled(error=messages.QPS_EXCEEDED)
        registry = self._registries.registry(reference.registry)
        candidates: list[Credential | None] = [*self._credentials(pod, reference.registry)]
        credential: Credential | None = None
        answer: RegistryAnswer = RegistryAnswer.NOT_FOUND
        remote: RemoteImage | None = None
        architecture = self._profile.labels.get("kubernetes.io/arch", "amd64")
        for credential in candidates or [None]:
            answer, remote = self._registries.resolve(reference, credential[1] if credential else None, architecture)
            if answer not in {RegistryAnswer.NO_CREDENTIALS, RegistryAnswer.WRONG_CREDENTIALS}:
                break
        timings = self._profile.timings
        if answer is RegistryAnswer.TIMED_OUT:
            yield timings.silent_timeout * registry.endpoints
        else:
            yield timings.resolve
        if answer is not RegistryAnswer.FOUND or remote is None:
            return _Pulled(error=messages.pull_error(image, reference, answer, remote, self._profile.runtime))
        while (running := self._in_flight.get(remote.digest)) is not None:
            yield running
        downloaded = 0
        if not self._store.has(remote):
            downloaded = yield from self._download(reference, remote)
        stored = self._store.add(reference, remote)
        self._stored()
        return _Pulled(stored, "", downloaded, credential)

    def _download(self, reference: ImageReference, remote: RemoteImage) -> Generator[float | Signal, None, int]:
        """Fetch missing layers at the rate that node and registry allow, unpacking each while the next one comes."""
        done = self._in_flight[remote.digest] = Signal()
        egress = self._egress(reference.registry)
        flow: Flow | None = None
        unpacked_at = self._agenda.now
        downloaded = remote.other_bytes
        try:
            for layer in self._store.missing_layers(remote):
                flow = egress.start(self._link, layer.size)
                yield flow.done
                downloaded += layer.size
                unpacked_at = max(unpacked_at, self._agenda.now) + layer.size / self._profile.unpack_rate
            flow = None
            yield max(0.0, unpacked_at - self._agenda.now)
            # Stored before those go on that wait for this download.
            self._store.add(reference, remote)
        finally:
            if flow is not None:
                egress.cancel(flow)
            del self._in_flight[remote.digest]
            done.fire()
        return downloaded

    def _credentials(self, pod: PodSpec, host: str) -> list[Credential]:
        found: list[Credential] = []
        for name in pod.pull_secrets:
            secret = self._secrets.get((pod.namespace, name))
            if secret is not None and host in secret.credentials:
                found.append(((pod.namespace, name), secret.credentials[host]))
        return found

    def _may_use(self, pod: PodSpec, reference: ImageReference, stored: StoredImage) -> bool:
        """Policy NeverVerifyPreloadedImages: preloaded, or pulled with credentials that this pod has too."""
        if stored.records is None:
            return True
        record = stored.records.get(reference.name)
        if record is None:
            return False
        if record.node_accessible:
            return True
        held = self._credentials(pod, reference.registry)
        return any(key in record.secrets or text in record.secrets.values() for key, text in held)

    def _count(self, policy: PullPolicy, *, present: bool, required: bool) -> None:
        match policy:
            case PullPolicy.ALWAYS:
                request = EnsureRequest("always", "unknown", "true")
            case PullPolicy.NEVER:
                required_text = ("true" if required else "false") if present else "unknown"
                request = EnsureRequest("never", str(present).lower(), required_text)
            case PullPolicy.IF_NOT_PRESENT:
                request = EnsureRequest("ifnotpresent", str(present).lower(), str(required or not present).lower())
        self.requests[request] += 1


def _remember(reference: ImageReference, stored: StoredImage, credential: Credential | None) -> None:
    """Note under which credentials an image was pulled."""
    if stored.records is None:
        stored.records = {}
    record = stored.records.setdefault(reference.name, PullRecord())
    if credential is None:
        record.node_accessible = True
    else:
        record.secrets[credential[0]] = credential[1]
