"""`python -m e2e.emulator`: emulate nodes until interrupted, in a process of its own."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from e2e.emulator.catalog import Catalog, parse_declaration
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan
from prewarm.cluster.connection import Connection
from prewarm.cluster.errors import ClusterError
from prewarm.model.quantities import whole
from prewarm.simulation.registry import Registries, Registry

READY_LINE = "emulator ready"
"""Printed once the nodes exist and the present pods are known."""


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    kubeconfig: Annotated[Path | None, typer.Option(help="Of an administrator of the cluster.")] = None,
    nodes: Annotated[int, typer.Option(help="How many nodes to create.")] = 10,
    prefix: Annotated[str, typer.Option(help="Node names are prefix and number.")] = "node",
    zones: Annotated[int, typer.Option(help="Zones that nodes take turns in.")] = 3,
    seed: Annotated[str, typer.Option(help="Decides sizes and phases.")] = "1",
    varied: Annotated[bool, typer.Option(help="Nodes of several sizes.")] = True,
    bandwidth: Annotated[str, typer.Option(help="Bytes a second of each node, as 50M.")] = "125M",
    unpack_rate: Annotated[str, typer.Option(help="Compressed bytes a second that a node unpacks.")] = "500M",
    pull_slots: Annotated[int, typer.Option(help="Pulls at once on a node; 0: no limit.")] = 1,
    image_disk: Annotated[str, typer.Option(help="Bytes of a node's image file system.")] = "100G",
    image: Annotated[list[str] | None, typer.Option(help="Size of a repository's images: host/repository=1G.")] = None,
    image_size: Annotated[str, typer.Option(help="Size of all other images.")] = "50M",
    shared_percent: Annotated[int, typer.Option(help="Part of each image that its repository's tags share.")] = 0,
    egress: Annotated[list[str] | None, typer.Option(help="Bytes a second that a registry serves: host=200M.")] = None,
    time_scale: Annotated[float, typer.Option(help="Seconds of the model for each real second.")] = 1.0,
    pull_log: Annotated[Path | None, typer.Option(help="File for one JSON line a pull.")] = None,
    delete_nodes: Annotated[bool, typer.Option(help="Delete the nodes at the end.")] = False,
) -> None:
    """Create emulated nodes and play their kubelets until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        sizes = dict(parse_declaration(text) for text in image or [])
        limits = [Registry(host, float(size)) for host, size in (parse_declaration(text) for text in egress or [])]
        catalog = Catalog(sizes, default_size=whole(image_size), shared_percent=shared_percent)
        plan = NodePlan(
            count=nodes,
            prefix=prefix,
            zones=zones,
            seed=seed,
            varied=varied,
            bandwidth=float(whole(bandwidth)),
            unpack_rate=float(whole(unpack_rate)),
            pull_slots=pull_slots or None,
            image_disk=float(whole(image_disk)),
        )
        options = EmulatorOptions(
            nodes=plan,
            registries=Registries(limits, catalog),
            time_scale=time_scale,
            pull_log=pull_log,
            delete_nodes=delete_nodes,
        )
        asyncio.run(_run(Connection.load(kubeconfig), options))
    except (ValueError, ClusterError) as error:
        typer.echo(f"emulator: {error}", err=True)
        raise typer.Exit(1) from None


async def _run(connection: Connection, options: EmulatorOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Emulator(connection, options) as emulator:
        print(READY_LINE, flush=True)
        ended = asyncio.create_task(emulator.wait(), name="emulator-wait")
        stopped = asyncio.create_task(stop.wait(), name="emulator-stop")
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ended.done():
            ended.result()
        ended.cancel()
        writes = ", ".join(f"{number} {kind}" for kind, number in sorted(emulator.writer.written.items()))
        lags = sorted(emulator.lags) or [0.0]
        late = f"late by {lags[len(lags) // 2]:.3f} s (median), {lags[len(lags) * 99 // 100]:.3f} s (p99)"
        print(f"emulator wrote {writes or 'nothing'}; {late}", flush=True)


if __name__ == "__main__":
    app()
