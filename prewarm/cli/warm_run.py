"""Carries out `prewarm warm` on a live cluster: write the ImageCache, watch its status, say how it went."""

import asyncio
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
import typer
from msgspec.structs import replace

from prewarm.api.fields import api_time
from prewarm.api.image_cache import decode_image_cache, image_cache_manifest
from prewarm.api.image_cache_status import encode_status
from prewarm.cli.asks import ImagesOnNodes, WorkloadAhead
from prewarm.cli.errors import CommandError, ExitCode
from prewarm.cli.memory import read_history
from prewarm.cli.options import OutputFormat
from prewarm.cli.output import print_data
from prewarm.cli.warming import (
    Nothing,
    Progress,
    images_cache,
    progress,
    verdict,
    workload_cache,
)
from prewarm.cluster.client import Client
from prewarm.cluster.errors import ApiError
from prewarm.cluster.live import read_cluster
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import IMAGE_CACHES, Json

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_POLL_SECONDS = 0.5
_LINE_SECONDS = 10.0
"""Without a terminal: how often a line says how far it is."""


class WarmRun:
    """One `prewarm warm`."""

    def __init__(
        self,
        wanted: WorkloadAhead | ImagesOnNodes,
        *,
        timeout: float | None,
        output: OutputFormat,
        system_namespace: str,
    ) -> None:
        self._wanted = wanted
        self._system_namespace = system_namespace
        self._timeout = timeout
        self._output = output

    async def run(self, client: Client) -> ExitCode:
        """Write the ImageCache and, if asked to, wait.

        Raises:
            CommandError: if the pods' nodes cannot be predicted, or the CRDs are not installed.
            ClusterError: if the cluster refuses or does not answer.
        """
        cache = await self._cache(client)
        if isinstance(cache, Nothing):
            self._say(None, warm=True, message=cache.message)
            return ExitCode.DONE
        # The same question asked again is a new one: nodes came, images went.
        cache = replace(cache, refresh_request=api_time(time.time()))
        try:
            body = await client.apply(IMAGE_CACHES, cache.namespace, cache.name, image_cache_manifest(cache))
        except ApiError as error:
            if error.not_found:
                raise CommandError(
                    f"the server does not know ImageCaches, or namespace {cache.namespace} is not there: "
                    "install with prewarm crds | kubectl apply --server-side -f - and the chart"
                ) from None
            raise
        written = _decoded(body)
        if self._timeout is None:
            self._say(written, warm=None, message="ordered; --wait waits until everything is there")
            return ExitCode.DONE
        return await self._wait(client, written, self._timeout)

    async def _cache(self, client: Client) -> ImageCache | Nothing:
        if isinstance(self._wanted, ImagesOnNodes):
            return images_cache(self._wanted)
        history = await read_history(client, self._system_namespace)
        return workload_cache(self._wanted, await read_cluster(client, time.time()), history)

    async def _wait(self, client: Client, cache: ImageCache, seconds: float) -> ExitCode:
        started = time.monotonic()
        try:
            with _Display(cache) as display:
                async with asyncio.timeout(seconds):
                    while (state := progress(cache)) in {Progress.UNSEEN, Progress.PULLING}:
                        display.show(cache)
                        await asyncio.sleep(_POLL_SECONDS)
                        cache = _decoded(await client.get(IMAGE_CACHES, cache.namespace, cache.name))
                display.show(cache)
        except TimeoutError:
            self._say(cache, warm=False, message=f"not warm after {seconds:.0f} s: {verdict(cache)}; pulling goes on")
            return ExitCode.TIMEOUT
        took = time.monotonic() - started
        if state is Progress.WARM:
            self._say(cache, warm=True, message=f"warm after {took:.0f} s: {verdict(cache)}")
            return ExitCode.DONE
        self._say(cache, warm=False, message=f"failed: {verdict(cache)}")
        return ExitCode.FAILED

    def _say(self, cache: ImageCache | None, *, warm: bool | None, message: str) -> None:
        """The result on standard output; in a table run, failures go to standard error."""
        if self._output is OutputFormat.TABLE:
            where = "" if cache is None else f"imagecache {cache.namespace}/{cache.name}: "
            typer.echo(f"{where}{message}", err=warm is False)
            return
        data: dict[str, Json] = {"warm": warm, "message": message}
        if cache is not None:
            data["imageCache"] = {"namespace": cache.namespace, "name": cache.name}
            data["nodes"] = [name for entry in cache.lists for name in entry.node_names or ()]
            data["status"] = encode_status(cache.status)
        print_data(data, self._output)


class _Display:
    """A progress bar on a terminal's standard error; elsewhere a line now and then."""

    def __init__(self, cache: ImageCache) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._said_at = time.monotonic()
        self._title = f"{cache.namespace}/{cache.name}"

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, cache: ImageCache) -> None:
        """How far it is now."""
        status = cache.status
        total = status.desired - status.skipped
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total or None, completed=status.succeeded)
        elif time.monotonic() - self._said_at >= _LINE_SECONDS:
            self._said_at = time.monotonic()
            typer.echo(f"{self._title}: {status.succeeded} of {total} there, {status.active} being pulled", err=True)


def _decoded(body: bytes) -> ImageCache:
    raw: Mapping[str, object] = msgspec.json.decode(body, type=dict[str, object])
    return decode_image_cache(raw)
