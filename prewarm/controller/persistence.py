"""What was learnt and judged, kept in one ConfigMap over restarts and between instances."""

import asyncio
import base64
from http import HTTPStatus

import msgspec
import structlog
from msgspec import Struct

from prewarm.accounting import Ledger, decode_ledger, encode_ledger
from prewarm.api.names import HISTORY_CONFIG_MAP, PURGE_CONFIG_MAP
from prewarm.cluster.client import Client
from prewarm.cluster.errors import ApiError, ClusterError
from prewarm.history import History, decode, encode
from prewarm.model.intents import CONFIG_MAPS, Manifest
from prewarm.puller import MAX_REMEMBERED, RememberedCache, decode_remembered, encode_remembered

HISTORY_KEY = "history"
LEDGER_KEY = "ledger"
PURGE_KEY = "caches"
HISTORY_BYTES = 600_000
"""A ConfigMap holds 1 MiB in all; the ledger takes at most 300,000."""

log = structlog.stdlib.get_logger(__name__)


class Memory(Struct, frozen=True):
    """What one instance hands to the next."""

    history: History = History()
    ledger: Ledger = Ledger()
    purges: tuple[RememberedCache, ...] = ()
    """ImageCaches whose images are to go when they are deleted."""


class _ConfigMap(Struct):
    binary_data: dict[str, str] | None = msgspec.field(default=None, name="binaryData")
    data: dict[str, str] | None = None


class Persistence:
    """Loads and stores the memory."""

    def __init__(self, client: Client, namespace: str, name: str = HISTORY_CONFIG_MAP, *, purge: bool = False) -> None:
        """`purge`: whether what is to be purged is kept, too; only then there is a ConfigMap for it."""
        self._purge = purge
        self._client = client
        self._namespace = namespace
        self._name = name

    async def load(self) -> Memory:
        """The stored memory; an empty one if there is none or it cannot be read.

        Raises:
            ClusterError: if the server cannot be asked: acting without memory would count starts twice.
        """
        data = (await self._read(self._name)).binary_data or {}
        history, ledger = History(), Ledger()
        if HISTORY_KEY in data:
            history = decode(base64.b64decode(data[HISTORY_KEY]))
            if history.reason:
                log.warning("history not usable", reason=history.reason)
        if LEDGER_KEY in data:
            ledger, problem = decode_ledger(base64.b64decode(data[LEDGER_KEY]))
            if problem:
                log.warning("ledger not usable", reason=problem)
        log.info("memory loaded", plans=len(history.plans_in_force), images=len(history.image_sizes))
        return Memory(history, ledger, await self._purges() if self._purge else ())

    async def _read(self, name: str) -> _ConfigMap:
        try:
            return msgspec.json.decode(await self._client.get(CONFIG_MAPS, self._namespace, name), type=_ConfigMap)
        except ApiError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return _ConfigMap()
            raise

    async def _purges(self) -> tuple[RememberedCache, ...]:
        stored = (await self._read(PURGE_CONFIG_MAP)).data or {}
        try:
            return decode_remembered(stored.get(PURGE_KEY, "[]"))
        except ValueError as error:
            log.warning("caches deleted meanwhile are not purged", reason=str(error))
            return ()

    async def store_purges(self, caches: tuple[RememberedCache, ...]) -> bool:
        """Write which ImageCaches are purged once they are deleted; False if that failed."""
        if len(caches) > MAX_REMEMBERED:
            log.warning("too many caches to be purged", caches=len(caches), kept=MAX_REMEMBERED)
        manifest: Manifest = {
            "metadata": {"name": PURGE_CONFIG_MAP, "namespace": self._namespace},
            "data": {PURGE_KEY: encode_remembered(caches)},
        }
        try:
            await self._client.apply(CONFIG_MAPS, self._namespace, PURGE_CONFIG_MAP, manifest)
        except ClusterError as error:
            log.warning("purges not stored", namespace=self._namespace, configmap=PURGE_CONFIG_MAP, error=str(error))
            return False
        return True

    async def store(self, memory: Memory, now: float) -> bool:
        """Write the memory; False if that failed, which costs knowledge at the next restart and nothing now."""
        try:
            # Packing a large cluster's memory takes a while; lease and probes go on meanwhile.
            manifest = await asyncio.to_thread(self._manifest, memory, now)
            await self._client.apply(CONFIG_MAPS, self._namespace, self._name, manifest)
        except ClusterError as error:
            log.warning("memory not stored", namespace=self._namespace, configmap=self._name, error=str(error))
            return False
        return True

    def _manifest(self, memory: Memory, now: float) -> Manifest:
        data = {
            HISTORY_KEY: encode(memory.history, HISTORY_BYTES),
            LEDGER_KEY: encode_ledger(memory.ledger, now),
        }
        # No label: the chart's ConfigMap has Helm's, and a second opinion on one is a conflict at its next upgrade.
        return {
            "metadata": {"name": self._name, "namespace": self._namespace},
            "binaryData": {key: base64.b64encode(value).decode("ascii") for key, value in data.items()},
        }
