"""`prewarm remove-images`: what a pod runs on a node from which images are to go."""

import os
from pathlib import Path
from typing import Annotated

import typer

from prewarm.cli.errors import ExitCode, usage

TERMINATION_LOG = Path("/dev/termination-log")
"""What the kubelet shows in the pod's status (terminationMessagePath's default)."""


def remove_images(
    images: Annotated[list[str] | None, typer.Argument(help="Images to remove.", show_default=False)] = None,
    socket: Annotated[
        Path | None, typer.Option(help="The container runtime's socket. Default: the first usual one that exists.")
    ] = None,
    report: Annotated[Path, typer.Option(help="File that the report is written to.")] = TERMINATION_LOG,
) -> None:
    """Remove images from this node's container runtime.

    The images come as arguments, or as JSON in the environment variable PREWARM_REMOVE. Images in use, pinned, or known
    by a name that was not given stay. The report is JSON of at most 4 KiB: a result for each image, in their order.
    """
    from prewarm.api.removal import REMOVALS_VARIABLE, decode_removals, encode_report
    from prewarm.model.removals import Removal, RemovalReport, RemovalResult
    from prewarm.runtime.client import CriRuntime, find_socket
    from prewarm.runtime.interface import RuntimeUnavailable
    from prewarm.runtime.removal import remove_images as remove

    try:
        removals = tuple(map(Removal, images or ())) or decode_removals(os.environ.get(REMOVALS_VARIABLE, "[]"))
    except ValueError as error:
        raise usage(str(error)) from None
    if not removals:
        raise usage(f"no images: name some, or set {REMOVALS_VARIABLE}")
    try:
        with CriRuntime(find_socket(socket)) as runtime:
            runtime.version()
            made = remove(runtime, removals)
    except RuntimeUnavailable as error:
        made = RemovalReport(error=str(error))
    encoded = encode_report(made)
    report.write_bytes(encoded)
    typer.echo(encoded.decode())
    if made.error or any(entry.result is RemovalResult.FAILED for entry in made.results):
        raise typer.Exit(ExitCode.FAILED)
