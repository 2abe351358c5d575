"""Puts the controller together and runs it until it is told to stop."""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import structlog
from msgspec.structs import replace
from prometheus_client import disable_created_metrics

from prewarm import __version__
from prewarm.api.fields import build_models
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.feeds import feeds
from prewarm.cluster.lease import LeaderLease, LeaseTimes
from prewarm.cluster.mirror import Mirror
from prewarm.cluster.server_clock import ServerClock
from prewarm.cluster.store import Store
from prewarm.cluster.writer import Writer
from prewarm.controller.clocks import Clocks
from prewarm.controller.execution import Execution
from prewarm.controller.health import Heartbeat, Sighting, Witness
from prewarm.controller.http import Probes, serve
from prewarm.controller.leader import Leader
from prewarm.controller.logs import configure_logging
from prewarm.controller.loop import Loop
from prewarm.controller.metrics import Metrics, watch_reflectors
from prewarm.controller.persistence import Persistence
from prewarm.controller.settings import Settings, unknown_variables
from prewarm.controller.steersman import unsteerable
from prewarm.controller.term import Services

YOUNG_OBJECTS = 20_000
"""New containers after which the collector looks at them (Python's default is 700). It follows all that they refer to,
and new versions of the store's tables refer to every pod: a pause of milliseconds, several in one rollout's burst."""

SWITCH_SECONDS = 0.001
"""How long a plan that is made in a thread keeps the event loop waiting each time (Python's default is 5 ms): between a
change and the look that follows from it the loop comes round some times."""

log = structlog.stdlib.get_logger(__name__)


def run(settings: Settings) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: if there is no cluster to connect to.
        OSError: if the HTTP port is taken.
    """
    configure_logging(settings)
    for line in unknown_variables(os.environ):
        log.warning(line)
    # Creation times of counters double the series and nobody asks for them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    build_models()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    connection = Connection.load(settings.kubeconfig, settings.context)
    asyncio.run(Controller(settings, connection).run())


class Controller:
    """One instance of the controller."""

    def __init__(self, settings: Settings, connection: Connection, *, clocks: Clocks | None = None) -> None:
        self._settings = settings
        self._connection = connection
        clocks = clocks or Clocks(time.time, time.monotonic)
        self._clock = ServerClock(clocks.wall, clocks.steady)
        self._clocks = replace(clocks, wall=self._clock.now)
        self._stop = asyncio.Event()
        self.http_port = 0
        """Port of the HTTP server, once it serves."""
        self.serving = asyncio.Event()

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            ExceptionGroup: if a part died of an error; the others are stopped first.
        """
        settings, clocks = self._settings, self._clocks
        metrics = Metrics(version=__version__, workload_labels=settings.workload_metrics)
        heartbeat = Heartbeat(clocks.steady, settings.stall_seconds)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(self._connection, heard=self._clock.heard))
            mirror = Mirror(client)
            watch_reflectors(metrics, mirror)
            store = mirror.store
            lease = LeaderLease(
                client,
                namespace=settings.namespace,
                name=settings.lease_name,
                identity=settings.identity or default_identity(),
                times=lease_times(settings.lease_duration_seconds),
            )
            writer = Writer(client, clock=clocks.wall, allowed=lambda: lease.holds)
            execution = Execution(writer, store, feeds(store), metrics)
            persistence = Persistence(client, settings.namespace, purge=settings.purge)
            steering = partial(unsteerable, client, enabled=settings.steer)
            services = Services(store, execution, persistence, metrics, clocks, steering, lease.annotate)
            loop = Loop(settings, services, heartbeat)
            leader = Leader(lease, loop, metrics, mirror.wait_synced)
            witness = Witness()
            probes = Probes(live=_liveness(heartbeat, witness, store, clocks), ready=lambda: _unready(mirror))
            self.http_port = await stack.enter_async_context(
                serve(settings.http_host, settings.http_port, metrics.registry, probes)
            )
            log.info("serving", port=self.http_port, version=__version__, server=self._connection.server)
            self.serving.set()
            await self._supervise(mirror, leader, loop, witness)
        log.info("stopped")

    async def _supervise(self, mirror: Mirror, leader: Leader, loop: Loop, witness: Witness) -> None:
        """Run the parts side by side; the first that dies, or the wish to stop, ends all."""
        from prewarm.controller.shell import OwnEvent, Shell

        def listen(event: OwnEvent) -> None:
            if event.kind == "ImageCache":
                sighting = Sighting(event.uid, event.generation, event.deleted, self._clocks.wall())
                witness.saw((event.namespace, event.name), sighting)
            loop.nudge()

        shell = Shell(self._connection, listen)
        async with asyncio.TaskGroup() as group, _signals(self._stop):
            tasks = [
                group.create_task(mirror.run(), name="reflectors"),
                group.create_task(shell.run(), name="kopf"),
                group.create_task(leader.run(), name="leader"),
            ]
            await self._stop.wait()
            log.info("stopping")
            loop.stop()
            await _end(tasks[2], self._settings.shutdown_seconds)
            for task in tasks:
                task.cancel()


async def _end(task: "asyncio.Task[None]", seconds: float) -> None:
    """Cancel a task and give it time for its last words."""
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        log.warning("did not stop in time", task=task.get_name(), seconds=seconds)


class _signals:  # noqa: N801 - used like contextlib's lower-case context managers
    """Sets an event on SIGTERM and SIGINT while the context is open; where there are no signals, does nothing."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._installed: list[signal.Signals] = []

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, self._stop.set)
            except (NotImplementedError, RuntimeError, ValueError):
                # Not in the main thread, as in tests, or on Windows.
                continue
            self._installed.append(number)

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._installed:
            loop.remove_signal_handler(number)


def _liveness(heartbeat: Heartbeat, witness: Witness, store: Store, clocks: Clocks) -> Callable[[], str]:
    def problem() -> str:
        now = clocks.wall()
        return heartbeat.problem() or witness.deaf(store.snapshot(now), now)

    return problem


def _unready(mirror: Mirror) -> str:
    missing = mirror.missing
    return f"not read yet: {', '.join(missing)}" if missing else ""


def default_identity() -> str:
    """Host name and a random part: two instances on one machine are two."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


def lease_times(duration: float) -> LeaseTimes:
    """client-go's proportions (15, 10 and 2 seconds) for another duration."""
    return LeaseTimes(duration=duration, renew_deadline=duration * 2 / 3, retry=duration * 2 / 15)
