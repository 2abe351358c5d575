"""`prewarm remove-labels`: take steering labels off all nodes, with or without a controller."""

import typer

from prewarm.cli.options import Context, Kubeconfig


def remove_labels(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Take all labels under steer.prewarm.dev/ off the nodes: after the controller is removed, or in its place.

    A controller that still steers puts its own back.
    """
    import time

    from prewarm.cli.errors import CommandError
    from prewarm.cli.live import with_cluster
    from prewarm.cluster.client import Client
    from prewarm.cluster.live import read_cluster
    from prewarm.cluster.writer import Writer, WriteResult
    from prewarm.delivery.steering import label_changes
    from prewarm.model.intents import NODES

    async def remove(client: Client) -> tuple[WriteResult, ...]:
        found = await read_cluster(client, time.time(), only={NODES})
        return await Writer(client).execute(label_changes({}, found))

    results = with_cluster(kubeconfig, context, remove)
    failed = [f"{result.intent.name}: {result.message}" for result in results if not result.done]
    cleared = len(results) - len(failed)
    typer.echo(f"labels taken off {cleared} nodes" if cleared != 1 else "labels taken off 1 node")
    if failed:
        raise CommandError(f"{len(failed)} nodes keep theirs: {'; '.join(failed[:3])}")
