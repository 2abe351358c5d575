"""What a control plane was asked and how its store grew, from the components' own metrics."""

import re
from collections import Counter
from collections.abc import Mapping

import aiohttp
from msgspec import Struct

from e2e.cluster.control_plane import ControlPlane

_REQUEST = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_IN_USE = re.compile(r"^etcd_mvcc_db_total_size_in_use_in_bytes (\S+)$", re.MULTILINE)
_WRITTEN = re.compile(r"^etcd_disk_wal_write_bytes_total (\S+)$", re.MULTILINE)
WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})


class ServerSample(Struct, frozen=True):
    """Counters at one moment."""

    requests: Mapping[tuple[str, str], int]
    """Answers by verb and resource (subresource behind a slash), whoever asked."""
    refused: int
    """Answers 429."""
    store_bytes: int
    """What etcd keeps in use, all versions that are not compacted yet included."""
    log_bytes: int
    """What etcd wrote to its log since it started; 0 where it does not say."""

    def since(self, before: "ServerSample") -> "ServerSample":
        """The difference to an earlier sample."""
        requests = {key: count - before.requests.get(key, 0) for key, count in self.requests.items()}
        return ServerSample(
            {key: count for key, count in requests.items() if count},
            self.refused - before.refused,
            self.store_bytes - before.store_bytes,
            self.log_bytes - before.log_bytes,
        )


async def sample(plane: ControlPlane) -> ServerSample:
    """Ask the API server and etcd now."""
    connector = aiohttp.TCPConnector(ssl=plane.ssl_context())
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"{plane.server}/metrics") as answer:
            served = await answer.text()
        async with session.get(f"{plane.etcd}/metrics") as answer:
            stored = await answer.text()
    requests: Counter[tuple[str, str]] = Counter()
    refused = 0
    for found in _REQUEST.finditer(served):
        labels = dict(_LABEL.findall(found[1]))
        resource = "/".join(filter(None, (labels.get("resource", ""), labels.get("subresource", ""))))
        requests[labels.get("verb", ""), resource] += int(float(found[2]))
        if labels.get("code") == "429":
            refused += int(float(found[2]))
    return ServerSample(requests, refused, _number(_IN_USE, stored), _number(_WRITTEN, stored))


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(float(found[1])) if found else 0
