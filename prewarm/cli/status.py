"""`prewarm status`: ImageCaches, one of them, a workload's, or what is known of a node."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from prewarm.cli.errors import usage
from prewarm.cli.options import Context, Kubeconfig, Output, OutputFormat, is_kind, parse_workload

if TYPE_CHECKING:
    from prewarm.cli.status_source import Seen, Target
    from prewarm.cluster.client import Client

_NODE_WORDS = frozenset({"node", "nodes", "no"})
_CACHE_WORDS = frozenset({"imagecache", "imagecaches", "imagecaches.prewarm.dev", "pic"})
_GRAMMAR = "[NAMESPACE/NAME | imagecache/NAMESPACE/NAME | KIND/NAMESPACE/NAME | node/NAME]"


def status(
    target: Annotated[
        str | None,
        typer.Argument(metavar=_GRAMMAR, help="An ImageCache, a workload, or a node; without it all ImageCaches."),
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="List those of this namespace.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show every change until interrupted.")] = False,
    output: Output = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show what is being pulled where, how far it is, and what failed.

    With --watch, json prints one line a change, yaml one document.
    """
    from prewarm.cli.live import with_cluster
    from prewarm.cli.status_source import read

    asked = _target(target, namespace)
    if watch:
        with_cluster(kubeconfig, context, lambda client: _follow(client, asked, output))
        return
    _print(asked, with_cluster(kubeconfig, context, lambda client: read(client, asked)), output)


def _target(text: str | None, namespace: str | None) -> "Target":
    from prewarm.cli.status_source import Target

    if text is None:
        return Target(namespace=namespace or "")
    if namespace is not None:
        raise usage("name one object or list those of a --namespace, not both")
    parts = text.split("/")
    if not (len(parts) in {2, 3} and all(parts)):
        raise usage(f"{text!r}: write NAMESPACE/NAME of an ImageCache, KIND/NAMESPACE/NAME of a workload or node/NAME")
    if len(parts) == 2:
        return Target(node=parts[1]) if parts[0].lower() in _NODE_WORDS else Target(namespace=parts[0], cache=parts[1])
    if parts[0].lower() in _CACHE_WORDS:
        return Target(namespace=parts[1], cache=parts[2])
    workload = parse_workload(text)
    return Target(namespace=workload.namespace, workload=workload)


def missing(target: "Target") -> str:
    """What to say where an ImageCache is not there: perhaps a workload was meant, and its namespace left out."""
    word = target.namespace
    if word.lower() in _CACHE_WORDS or is_kind(word):
        advice = f"if {word} is its kind, ask about it with {word}/NAMESPACE/{target.cache}"
    else:
        advice = f"prewarm status -n {word} lists those that are there"
    return f"no ImageCache {word}/{target.cache}; {advice}"


def _print(target: "Target", seen: "Seen", output: OutputFormat) -> None:
    from prewarm.cli import status_report as report
    from prewarm.cli.output import console, print_data

    if target.cache and not seen.caches:
        raise usage(missing(target))
    if output is OutputFormat.TABLE:
        console().print(report.view(target, seen))
    else:
        print_data(report.data(target, seen), output)


async def _follow(client: "Client", target: "Target", output: OutputFormat) -> None:
    """Show every change until cancelled; on a terminal in place."""
    from contextlib import aclosing

    from prewarm.cli import status_report as report
    from prewarm.cli.status_source import follow

    async with aclosing(follow(client, target)) as states:
        if output is OutputFormat.TABLE and sys.stdout.isatty():
            from rich.live import Live

            from prewarm.cli.output import console

            with Live(console=console(), auto_refresh=False, vertical_overflow="crop") as live:
                async for seen in states:
                    live.update(report.view(target, seen), refresh=True)
            return
        async for seen in states:
            _print_change(target, seen, output)


def _print_change(target: "Target", seen: "Seen", output: OutputFormat) -> None:
    from prewarm.cli import status_report as report

    if output is OutputFormat.TABLE:
        from prewarm.cli.output import console

        console().print(report.view(target, seen))
    elif output is OutputFormat.JSON:
        import msgspec

        typer.echo(msgspec.json.encode(report.data(target, seen)).decode())
    else:
        from prewarm.cli.yaml_text import to_yaml

        typer.echo(f"---\n{to_yaml(report.data(target, seen))}", nl=False)
    sys.stdout.flush()
