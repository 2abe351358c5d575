"""`prewarm plan`: what would be prewarmed, and what if."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.errors import usage
from prewarm.cli.options import (
    SYSTEM_NAMESPACE,
    Context,
    Kubeconfig,
    Output,
    OutputFormat,
    SetImage,
    SystemNamespace,
    parse_set_images,
    parse_workload,
)

if TYPE_CHECKING:
    from prewarm.cli.memory import Known


def plan(
    snapshot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|-",
            help="Plan on what `kubectl get nodes,pods,deployments,replicasets,... -A -o json` printed, not on a live "
            "cluster; - reads standard input.",
        ),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="KIND/NAMESPACE/NAME",
            help="Plan this workload alone; it counts as opted in. If it is, and nothing is to be changed, "
            "it is planned as the controller does.",
        ),
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="As if the workload had this many replicas.")] = None,
    set_image: SetImage = None,
    output: Output = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    system_namespace: SystemNamespace = SYSTEM_NAMESPACE,
) -> None:
    """Show what would be prewarmed and why, with the nodes where pods will land; changes nothing."""
    key = None if workload is None else parse_workload(workload)
    images = parse_set_images(set_image or ())
    if key is None and (images or replicas is not None):
        raise usage("--replicas and --set-image need the workload that they are about: --workload KIND/NAMESPACE/NAME")
    known = _from_file(snapshot) if snapshot is not None else _from_cluster(kubeconfig, context, system_namespace)
    found = known.snapshot

    from prewarm.cli.plan_report import report
    from prewarm.demand import covering_policy, what_if
    from prewarm.planning import plan as make_plan

    if key is not None:
        try:
            changed = what_if(found, key, replicas=replicas, images=images)
        except ValueError as error:
            raise usage(str(error)) from None
        # Without a question, what a covered workload has coming is told as it is: its rollout under way has times.
        as_it_is = replicas is None and not images and covering_policy(found, found.workloads[key]) is not None
        found = found if as_it_is else changed
    made = make_plan(found, known.history, only=None if key is None else [key], unsteerable=known.unsteerable)
    if output is OutputFormat.TABLE:
        from prewarm.cli.plan_table import print_plan

        print_plan(made, found)
    else:
        from prewarm.cli.output import print_data

        print_data(report(made, found), output)


def _from_file(path: Path) -> "Known":
    import time

    from prewarm.cli.memory import Known
    from prewarm.cluster.snapshots import SnapshotError, read_snapshot

    data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        return Known(read_snapshot(data, time.time()))
    except SnapshotError as error:
        raise usage(f"{'standard input' if str(path) == '-' else path}: {error}") from None


def _from_cluster(kubeconfig: Path | None, context: str | None, system_namespace: str) -> "Known":
    import time

    from prewarm.cli.live import with_cluster
    from prewarm.cli.memory import read_known

    return with_cluster(kubeconfig, context, lambda client: read_known(client, time.time(), system_namespace))
