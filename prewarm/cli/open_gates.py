"""`prewarm open-gates`: let held rollouts go, with or without a controller."""

from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.options import Context, Kubeconfig

if TYPE_CHECKING:
    from prewarm.cluster.client import Client


def open_gates(
    expired: Annotated[
        bool, typer.Option("--expired", help="Only those that are held beyond their time, whoever should have opened.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Open the gates of all held rollouts: before the controller is removed, or in its place."""
    from prewarm.cli.errors import CommandError
    from prewarm.cli.live import with_cluster

    opened, failed = with_cluster(kubeconfig, context, lambda client: _open(client, expired=expired))
    typer.echo(f"{opened} gates opened" if opened != 1 else "1 gate opened")
    if failed:
        raise CommandError(f"{len(failed)} gates stay shut: {'; '.join(failed[:3])}")


async def _open(client: "Client", *, expired: bool) -> tuple[int, list[str]]:
    """Number of opened gates, and what was said where that failed."""
    import time

    from prewarm.cluster.live import read_cluster
    from prewarm.cluster.writer import Writer
    from prewarm.delivery.gates import GateReason, Opened, gates
    from prewarm.model.intents import DEPLOYMENTS, STATEFUL_SETS

    now = time.time()
    found = await read_cluster(client, now, only={DEPLOYMENTS, STATEFUL_SETS})
    chosen = [
        gate
        for gate in gates(found)
        if not expired or gate.hold.since is None or gate.is_over(now) or not gate.hold.in_force
    ]
    reason = GateReason.TIMEOUT if expired else GateReason.RESUMED
    patches = [Opened(gate, reason, "opened by prewarm open-gates").patch for gate in chosen]
    results = await Writer(client).execute(patches)
    failed = [f"{r.intent.namespace}/{r.intent.name}: {r.message}" for r in results if not r.done]
    return len(results) - len(failed), failed
