"""What listing and watching pods costs: our reflector's path beside the official client, in the same run.

Each role is a process of its own against a server in another one. The official client is measured at a size that it
takes seconds for (stated in the table); figures per object are what is compared.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from e2e.bench.measuring import Usage, measured, report, run_role
from prewarm.cluster.client import Client, WatchOptions
from prewarm.cluster.connection import Connection
from prewarm.cluster.feeds import Feed, feeds
from prewarm.cluster.store import Store
from prewarm.model.intents import PODS

if TYPE_CHECKING:
    import kubernetes.client

_GOAL_MEBIBYTES = 500.0
_GOAL_PODS = 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all roles and print them; 1 if 100,000 pods take more than 500 MiB."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.list_watch")
    parser.add_argument("--pods", type=int, nargs="+", default=[10_000, _GOAL_PODS])
    parser.add_argument("--official-pods", type=int, default=5_000, help="the official client lists this many")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--official-events", type=int, default=2_000)
    parser.add_argument("--role", choices=("pages", "streamed", "official"), help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.role == "official":
        report(_official(parsed.server, parsed.official_events))
    elif parsed.role:
        report(asyncio.run(_ours(parsed.server, streamed=parsed.role == "streamed")))
    else:
        return _compare(parsed)
    return 0


def _compare(parsed: argparse.Namespace) -> int:
    rows: list[tuple[str, dict[str, Usage]]] = []
    for pods in parsed.pods:
        with _server(pods, parsed.events) as address:
            rows += [(f"prewarm, {role}", _run(role, address)) for role in ("pages", "streamed")]
    with _server(parsed.official_pods, parsed.official_events) as address:
        more = ["--official-events", str(parsed.official_events)]
        rows.append(("kubernetes (official client), pages", _run("official", address, *more)))
    _print(rows)
    largest = [row["list"] for _, row in rows[:-1] if row["list"].count >= _GOAL_PODS]
    missed = [usage for usage in largest if usage.peak > _GOAL_MEBIBYTES]
    if missed:
        print(f"goal missed: {missed[0].count} pods took {missed[0].peak:.0f} MiB, the goal is {_GOAL_MEBIBYTES:.0f}")
    return 1 if missed else 0


def _print(rows: Sequence[tuple[str, dict[str, Usage]]]) -> None:
    baseline = rows[-1][1]
    table = Table("client", "what", "objects", "wall s", "CPU s", "us CPU each", "peak MiB", "less CPU each")
    for name, usages in rows:
        for what, usage in usages.items():
            each = usage.cpu / usage.count
            times = (baseline[what].cpu / baseline[what].count) / each
            table.add_row(
                name,
                what,
                f"{usage.count:,}",
                f"{usage.wall:.2f}",
                f"{usage.cpu:.2f}",
                f"{each * 1e6:.0f}",
                f"{usage.peak:.0f} ({usage.before:.0f} before)",
                f"{times:.0f}x" if usages is not baseline else "1x",
            )
    Console(width=140).print(table)


def _run(role: str, address: str, *more: str) -> dict[str, Usage]:
    return run_role("e2e.bench.list_watch", ["--role", role, "--server", address, *more])


@contextmanager
def _server(pods: int, events: int) -> Iterator[str]:
    command = [sys.executable, "-m", "e2e.bench.pod_server", "--pods", str(pods), "--events", str(events)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


async def _ours(address: str, *, streamed: bool) -> dict[str, Usage]:
    """The path of the controller: list or stream into the store, then take changes of a watch."""
    store = Store()
    feed = next(feed for feed in feeds(store) if feed.resource == PODS)
    async with Client(Connection(address)) as client:
        with measured() as listing:
            if streamed:
                await _watch(client, feed, WatchOptions(initial_events=True))
            else:
                async for page in client.list_pages(PODS):
                    feed.load(page)
            listing.count = len(store.snapshot(0.0).pods)
        with measured() as watching:
            watching.count = await _watch(client, feed, WatchOptions(resource_version="1"))
    return {"list": listing.usage, "watch": watching.usage}


async def _watch(client: Client, feed: Feed, options: WatchOptions) -> int:
    taken = 0
    async for lines in client.watch(PODS, options):
        for line in lines:
            feed.take(line)
        taken += len(lines)
    return taken


def _official(address: str, events: int) -> dict[str, Usage]:
    """The same with the generated models of the official client, in pages of the same size."""
    import kubernetes.client
    import kubernetes.watch

    api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(kubernetes.client.Configuration(host=address)))
    pods: dict[str | None, object] = {}
    with measured() as listing:
        token = None
        while True:
            page = api.list_pod_for_all_namespaces(limit=500, _continue=token)
            pods.update((_uid(item), item) for item in page.items)
            token = page.metadata._continue if page.metadata else None  # noqa: SLF001 - the field's public name
            if not token:
                break
        listing.count = len(pods)
    watch = kubernetes.watch.Watch()  # type: ignore[no-untyped-call]
    with measured() as watching:
        for event in watch.stream(api.list_pod_for_all_namespaces, resource_version="1", timeout_seconds=300):  # type: ignore[no-untyped-call]
            pods[_uid(event["object"])] = event["object"]
            watching.count += 1
            if watching.count == events:
                watch.stop()  # type: ignore[no-untyped-call]
    return {"list": listing.usage, "watch": watching.usage}


def _uid(item: "kubernetes.client.V1Pod") -> str | None:
    return item.metadata.uid if item.metadata else None


if __name__ == "__main__":
    sys.exit(main())
