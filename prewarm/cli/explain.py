"""`prewarm explain`: why these nodes, what was predicted, what happened."""

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
    SystemNamespace,
    parse_workload,
)

if TYPE_CHECKING:
    from prewarm.cli.memory import Known
    from prewarm.model.intents import Json
    from prewarm.model.workloads import WorkloadKey

_GRAMMAR = "KIND/NAMESPACE/NAME | pod/NAMESPACE/NAME | node/NAME"
_NODE_WORDS = frozenset({"node", "nodes", "no"})
_POD_WORDS = frozenset({"pod", "pods", "po"})


def explain(
    target: Annotated[str, typer.Argument(metavar=_GRAMMAR, help="A workload, a pod, which may be gone, or a node.")],
    output: Output = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    system_namespace: SystemNamespace = SYSTEM_NAMESPACE,
) -> None:
    """Say why a workload's images are where they are, what was predicted, and why a pod started warm or cold."""
    kind, *names = target.split("/")
    lowered = kind.lower()
    if lowered in _NODE_WORDS and len(names) == 1 and names[0]:
        _explain_node(names[0], _read(kubeconfig, context, system_namespace), output)
    elif lowered in _POD_WORDS and len(names) == 2 and all(names):
        _explain_pod((names[0], names[1]), _read(kubeconfig, context, system_namespace), output)
    elif lowered in _NODE_WORDS | _POD_WORDS:
        raise usage(f"{target!r}: write pod/NAMESPACE/NAME or node/NAME")
    else:
        workload = parse_workload(target)
        _explain_workload(workload, _read(kubeconfig, context, system_namespace), output)


def _read(kubeconfig: Path | None, context: str | None, system_namespace: str) -> "Known":
    import time

    from prewarm.cli.live import with_cluster
    from prewarm.cli.memory import read_known

    return with_cluster(kubeconfig, context, lambda client: read_known(client, time.time(), system_namespace))


def _explain_node(name: str, known: "Known", output: OutputFormat) -> None:
    from prewarm.cli.explanation import explain_node

    lines = explain_node(name, known.snapshot, known.history)
    if name not in known.snapshot.nodes and len(lines) == 1:
        raise usage(f"no node {name} in the cluster, and none is remembered")
    _say(f"node/{name}", lines, output)


def _explain_pod(key: tuple[str, str], known: "Known", output: OutputFormat) -> None:
    from prewarm.cli.explanation import explain_pod

    pod = known.snapshot.pods.get(key)
    lines = explain_pod(pod, key[1], known.snapshot, known.history)
    if pod is None and not lines:
        raise usage(f"no pod {key[0]}/{key[1]} in the cluster, and none of that name is among the starts remembered")
    _say(f"pod/{key[0]}/{key[1]}", lines or ("nothing is known of its images yet",), output)


def _say(title: str, lines: tuple[str, ...], output: OutputFormat) -> None:
    from prewarm.cli.output import console, print_data

    if output is OutputFormat.TABLE:
        out = console()
        out.print(title, style="bold", markup=False)
        for line in lines:
            out.print(f"  {line}", markup=False, soft_wrap=True)
    else:
        told: Json = {"about": title, "explanations": list(lines)}
        print_data(told, output)


def _explain_workload(workload: "WorkloadKey", known: "Known", output: OutputFormat) -> None:
    from prewarm.cli.explain_report import data, show
    from prewarm.cli.explanation import explain_workload
    from prewarm.cli.output import print_data
    from prewarm.planning import plan as make_plan

    found = known.snapshot
    told = explain_workload(workload, found, known.history)
    if told is None:
        raise usage(f"{workload} is not in the cluster, and nothing of it is remembered")
    made = make_plan(found, known.history, only=[workload], unsteerable=known.unsteerable)
    if output is OutputFormat.TABLE:
        show(told, made, found)
    else:
        print_data(data(told, made, found), output)
