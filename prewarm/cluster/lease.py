"""One active instance at a time, by a coordination.k8s.io Lease, with client-go's rules (tools/leaderelection).

Own code: the official client's elector is a thread over its synchronous client, which is kept out of the controller.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast

import msgspec
import structlog
from msgspec import Struct, field

from prewarm.cluster.client import Client
from prewarm.cluster.decoding.common import WireMeta
from prewarm.cluster.errors import ApiError, ClusterError, ConfigurationError
from prewarm.model.intents import LEASES, Json, Manifest

_LOG = structlog.get_logger(__name__)


class LeadershipLost(Exception):  # noqa: N818 - an outcome, not an error of ours
    """The Lease could not be renewed in time, or somebody else holds it: the work was stopped."""


class LeaseTimes(Struct, frozen=True):
    """Seconds; the defaults are client-go's."""

    duration: float = 15.0
    """How long others wait after the last renewal that they saw."""
    renew_deadline: float = 10.0
    """The holder stops this long after its last successful renewal: well before others may start."""
    retry: float = 2.0
    """Between tries to acquire or to renew."""


class WireLeaseSpec(Struct, rename="camel", omit_defaults=True):
    """coordination.k8s.io/v1 LeaseSpec."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class WireLease(Struct):
    """coordination.k8s.io/v1 Lease."""

    metadata: WireMeta
    spec: WireLeaseSpec = field(default_factory=WireLeaseSpec)


class _Whole(Struct):
    """A Lease's metadata in full, to be written back: labels and annotations of others stay."""

    metadata: dict[str, object]


class LeaderLease:
    """Runs work only while the Lease is held.

    Clocks of different machines are never compared: a Lease is free once its record has not changed for its duration
    by our own monotonic clock.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to compete.

        Raises:
            ConfigurationError: if the times contradict each other.
        """
        self._times = times or LeaseTimes()
        if not self._times.duration > self._times.renew_deadline > self._times.retry > 0:
            raise ConfigurationError(
                f"lease times {self._times.duration:g} > {self._times.renew_deadline:g} > {self._times.retry:g} s: "
                "duration has to exceed the renew deadline, and that the retry period"
            )
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self.holder = ""
        self._monotonic = monotonic
        self._observed: WireLeaseSpec | None = None
        self._observed_at = 0.0
        self._renewed_at = 0.0
        self._version = ""
        self._metadata: dict[str, Json] = {}
        self._annotations: dict[str, str] = {}
        self.leading = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether it is ours beyond doubt at this moment, also for a process that was stopped for a while."""
        return self.leading.is_set() and self._monotonic() < self._renewed_at + self._times.renew_deadline

    def annotate(self, name: str, value: str) -> None:
        """Have the Lease carry an annotation from the next renewal on, for those who judge by it; "" takes it away."""
        self._annotations[name] = value

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `work` while renewing; returns when `work` does, and frees the Lease.

        Raises:
            LeadershipLost: if the Lease was lost; `work` has been cancelled and has ended by then.
        """
        await self.acquire()
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew(), name=f"renew lease {self._namespace}/{self._name}")
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            lost = not working.done()
        finally:
            for task in (working, renewing):
                task.cancel()
            _, ended = await asyncio.gather(working, renewing, return_exceptions=True)
            self.leading.clear()
            await self._release()
        if lost:
            cause = ended if isinstance(ended, Exception) else None
            raise LeadershipLost(f"lease {self._namespace}/{self._name} could not be renewed in time") from cause
        working.result()

    async def acquire(self) -> None:
        """Return once the Lease is ours."""
        while True:
            started = self._monotonic()
            if await self._try_in_time(self._times.renew_deadline):
                break
            await asyncio.sleep(self._times.retry * (1 + 0.2 * random.random()))  # noqa: S311 - spreads candidates
        # Counted from before the request: others count from the record, which may be older than its answer.
        self._renewed_at = started
        _LOG.info("leading", lease=f"{self._namespace}/{self._name}", identity=self.identity)
        self.leading.set()

    async def _renew(self) -> None:
        """Renew until that fails for too long or somebody else holds the Lease."""
        while (ends_at := self._renewed_at + self._times.renew_deadline) > self._monotonic():
            await asyncio.sleep(self._times.retry)
            started = self._monotonic()
            if await self._try_in_time(max(self._times.retry, ends_at - started)):
                self._renewed_at = started
            elif self.holder not in {"", self.identity}:
                return

    async def _try_in_time(self, seconds: float) -> bool:
        """One look at the Lease; an answer that takes longer than this counts as none."""
        try:
            async with asyncio.timeout(seconds):
                return await self._try()
        except TimeoutError:
            return False
        except msgspec.DecodeError as error:
            _LOG.warning("lease not understood", lease=f"{self._namespace}/{self._name}", problem=str(error))
            return False
        except ClusterError as error:
            _LOG.warning("lease not reached", lease=f"{self._namespace}/{self._name}", problem=str(error))
            return False

    async def _try(self) -> bool:
        """One look at the Lease: take it if it is free, renew it if it is ours; True if it is ours now."""
        try:
            body = await self._client.get(LEASES, self._namespace, self._name)
        except ApiError as error:
            if not error.not_found:
                raise
            return await self._write(WireLeaseSpec(), create=True)
        spec = self._take(body)
        if spec != self._observed:
            self._observed, self._observed_at = spec, self._monotonic()
        lasts = self._observed_at + (spec.lease_duration_seconds or 0)
        if self.holder not in {"", self.identity} and self._monotonic() < lasts:
            return False
        return await self._write(spec, create=False)

    def _take(self, body: bytes) -> WireLeaseSpec:
        """Remember the Lease as the server has it."""
        lease = msgspec.json.decode(body, type=WireLease)
        self._metadata = cast("dict[str, Json]", msgspec.json.decode(body, type=_Whole).metadata)
        self.holder = lease.spec.holder_identity or ""
        self._version = lease.metadata.resource_version
        return lease.spec

    async def _write(self, before: WireLeaseSpec, *, create: bool) -> bool:
        """Write our record over `before`; False if somebody was quicker."""
        now = _timestamp()
        ours = before.holder_identity == self.identity
        transitions = (before.lease_transitions or 0) + (0 if ours or create else 1)
        spec = WireLeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, round(self._times.duration)),
            acquire_time=before.acquire_time if ours else now,
            renew_time=now,
            lease_transitions=transitions,
        )
        try:
            await self._put(spec, create=create)
        except ApiError as error:
            if error.reason in {"Conflict", "AlreadyExists"}:
                return False
            raise
        self.holder = self.identity
        self._observed, self._observed_at = spec, self._monotonic()
        return True

    async def _put(self, spec: WireLeaseSpec, *, create: bool) -> None:
        metadata: dict[str, Json] = {"name": self._name, "namespace": self._namespace}
        if not create:
            metadata = {**self._metadata, **metadata, "resourceVersion": self._version}
        if self._annotations:
            before = metadata.get("annotations")
            annotations = {**(before if isinstance(before, dict) else {}), **self._annotations}
            metadata["annotations"] = {name: value for name, value in annotations.items() if value}
        manifest: Manifest = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": msgspec.to_builtins(spec),
        }
        if create:
            body = await self._client.create(LEASES, self._namespace, manifest)
        else:
            body = await self._client.replace(LEASES, self._namespace, self._name, manifest)
        self._version = msgspec.json.decode(body, type=WireLease).metadata.resource_version

    async def _release(self) -> None:
        """Free the Lease for the next instance, if it is ours; without an answer it runs out by itself."""
        if self.holder != self.identity or self._observed is None:
            return
        spec = WireLeaseSpec(
            holder_identity="",
            lease_duration_seconds=1,
            acquire_time=self._observed.acquire_time,
            renew_time=_timestamp(),
            lease_transitions=self._observed.lease_transitions,
        )
        try:
            async with asyncio.timeout(self._times.renew_deadline):
                await self._put_again(spec)
        except (ClusterError, TimeoutError) as error:
            problem = str(error) or "no answer in time"
            _LOG.warning("lease not released, it runs out", lease=f"{self._namespace}/{self._name}", problem=problem)
        self.holder = ""

    async def _put_again(self, spec: WireLeaseSpec) -> None:
        """Write a last record; a renewal that was cut off may have reached the server, and its answer not us."""
        try:
            await self._put(spec, create=False)
        except ApiError as error:
            if error.reason != "Conflict":
                raise
            self._take(await self._client.get(LEASES, self._namespace, self._name))
            if self.holder == self.identity:
                await self._put(spec, create=False)


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
