"""`prewarm open-gates`: let held rollouts go, with or without a controller."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.options import Context, Kubeconfig

if TYPE_CHECKING:
    from prewarm.cluster.client import Client
    from prewarm.delivery.gates import Opened

QUIET_SECONDS = 5.0
"""How long nothing has to be held before it is taken for over: API servers, each by itself, take up the end of a policy
about a second later, and requests that one let in before may still be stored."""
LONGEST_SECONDS = 45.0
"""Less than the CronJob's and the hooks' Jobs have."""
_AGAIN_SECONDS = 0.5


def open_gates(
    expired: Annotated[
        bool, typer.Option("--expired", help="Only those that are held beyond their time, whoever should have opened.")
    ] = False,
    unbind: Annotated[
        list[str] | None,
        typer.Option(
            "--unbind",
            metavar="BINDING",
            help="First delete this MutatingAdmissionPolicyBinding, so that nothing is held any more; repeatable.",
        ),
    ] = None,
    until_quiet: Annotated[
        bool,
        typer.Option(
            "--until-quiet",
            help=f"Go on until nothing has been held for {QUIET_SECONDS:.0f} s: a policy acts a moment longer than it "
            "exists.",
        ),
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Open the gates of all held rollouts: before the controller is removed, or in its place."""
    from prewarm.cli.errors import CommandError, usage
    from prewarm.cli.live import with_cluster

    if expired and (unbind or until_quiet):
        raise usage("--expired leaves the others held: it goes with neither --unbind nor --until-quiet")

    async def work(client: "Client") -> tuple[int, list[str]]:
        bound = await _unbind(client, unbind or ())
        opened, shut = await _open(client, expired=expired, quiet_seconds=QUIET_SECONDS if until_quiet else 0.0)
        return opened, [*bound, *shut]

    opened, failed = with_cluster(kubeconfig, context, work)
    typer.echo(f"{opened} gates opened" if opened != 1 else "1 gate opened")
    if failed:
        raise CommandError(f"not done: {'; '.join(failed[:3])}{', and more' if len(failed) > 3 else ''}")


async def _unbind(client: "Client", names: Sequence[str]) -> list[str]:
    """Delete bindings; what was said where that failed. One that is gone already is as wanted."""
    from prewarm.cluster.writer import Writer
    from prewarm.model.intents import MUTATING_POLICY_BINDINGS, Delete

    results = await Writer(client).execute([Delete(MUTATING_POLICY_BINDINGS, "", name) for name in names])
    return [f"binding {result.intent.name} stays: {result.message}" for result in results if not result.done]


async def _open(client: "Client", *, expired: bool, quiet_seconds: float) -> tuple[int, list[str]]:
    """Number of opened gates, and what was said where that failed.

    A gate whose workload changes under the patch (a status that is written is enough) is looked at again.
    """
    import asyncio
    import time

    from prewarm.cluster.writer import WriteOutcome, Writer

    writer, opened = Writer(client), 0
    started = quiet_since = time.monotonic()
    while True:
        found = await _held(client, expired=expired)
        results = await writer.execute([one.patch for one in found])
        opened += sum(result.outcome is WriteOutcome.APPLIED for result in results)
        failed = [
            f"{result.intent.namespace}/{result.intent.name} stays held: {result.message}"
            for result in results
            if result.outcome is not WriteOutcome.APPLIED
        ]
        again = any(result.outcome in {WriteOutcome.GONE, WriteOutcome.FAILED} for result in results)
        now = time.monotonic()
        if again or len(failed) < len(results):
            quiet_since = now
        if not again and now - quiet_since >= quiet_seconds:
            return opened, failed
        if now - started > LONGEST_SECONDS:
            return opened, failed or [f"rollouts were held until the end of {LONGEST_SECONDS:.0f} s"]
        await asyncio.sleep(_AGAIN_SECONDS)


async def _held(client: "Client", *, expired: bool) -> list["Opened"]:
    """Gates that are to be opened now."""
    import time

    from prewarm.cluster.live import read_cluster
    from prewarm.delivery.gates import GateReason, Opened, gates
    from prewarm.model.intents import DEPLOYMENTS, STATEFUL_SETS

    now = time.time()
    found = await read_cluster(client, now, only={DEPLOYMENTS, STATEFUL_SETS})
    reason = GateReason.TIMEOUT if expired else GateReason.RESUMED
    return [
        Opened(gate, reason, "opened by prewarm open-gates")
        for gate in gates(found)
        if not expired or gate.hold.since is None or gate.is_over(now) or not gate.hold.in_force
    ]
