"""`prewarm remove-labels`: take steering labels off all nodes, with or without a controller."""

from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.options import SYSTEM_NAMESPACE, Context, Kubeconfig, SystemNamespace

if TYPE_CHECKING:
    from prewarm.cluster.client import Client
    from prewarm.cluster.writer import WriteResult


def remove_labels(
    expired: Annotated[
        bool, typer.Option("--expired", help="Only those whose entry has ended, or is gone: nobody renews it.")
    ] = False,
    system_namespace: SystemNamespace = SYSTEM_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Take all labels under steer.prewarm.dev/ off the nodes: after the controller is removed, or in its place.

    A controller that still steers puts its own back.
    """
    from prewarm.cli.errors import CommandError
    from prewarm.cli.live import with_cluster

    namespace = system_namespace if expired else None
    results = with_cluster(kubeconfig, context, lambda client: _remove(client, namespace))
    failed = [f"{result.intent.name}: {result.message}" for result in results if not result.done]
    cleared = len(results) - len(failed)
    typer.echo(f"labels taken off {cleared} nodes" if cleared != 1 else "labels taken off 1 node")
    if failed:
        raise CommandError(f"{len(failed)} nodes keep theirs: {'; '.join(failed[:3])}")


async def _remove(client: "Client", namespace: str | None) -> tuple["WriteResult", ...]:
    """What became of each node; labels with entries in force in the namespace stay, if one is given."""
    import time

    from prewarm.cli.memory import read_steering_entries
    from prewarm.cluster.live import read_cluster
    from prewarm.cluster.writer import Writer
    from prewarm.delivery.steering import label_changes, labels_that_stay
    from prewarm.model.intents import NODES

    found = await read_cluster(client, time.time(), only={NODES})
    # Entries after nodes: a controller writes both at once, and whose label is seen should have been heard.
    entries = {} if namespace is None else await read_steering_entries(client, namespace)
    return await Writer(client).execute(label_changes(labels_that_stay(entries, found), found))
