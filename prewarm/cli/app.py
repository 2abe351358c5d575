"""The command line's entry: commands, global options, and every error as one line with an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from prewarm import __version__
from prewarm.cli import convert, explain, manifests, open_gates, plan, remove_images, remove_labels, run, status, warm
from prewarm.cli.errors import EXIT_CODES, CommandError, ExitCode

# typer bundles click under a private name and exports only this one of its errors.
_TypedWrong = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class _Debug:
    """Whether errors show their trace; set by the global option."""

    wanted = False


app = typer.Typer(
    name="prewarm",
    help="Predicts which images the next pods need and on which nodes, and has them there first.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("plan", epilog=EXIT_CODES)(plan.plan)
app.command("explain", epilog=EXIT_CODES)(explain.explain)
app.command("warm", epilog=EXIT_CODES)(warm.warm)
app.command("status", epilog=EXIT_CODES)(status.status)
app.command("open-gates", epilog=EXIT_CODES)(open_gates.open_gates)
app.command("remove-labels", epilog=EXIT_CODES)(remove_labels.remove_labels)
app.command("remove-images", hidden=True, epilog=EXIT_CODES)(remove_images.remove_images)
app.command("convert", epilog=EXIT_CODES)(convert.convert)
app.command("crds")(manifests.crds)
app.command("policies")(manifests.policies)
app.command("admission-policies", epilog=EXIT_CODES)(manifests.admission_policies)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prewarm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _Debug.wanted = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    sys.exit(execute(list(sys.argv[1:] if arguments is None else arguments)))


def execute(arguments: list[str]) -> int:
    """Run a command; errors are told in one line on standard error.

    Returns:
        The exit code, see ExitCode.
    """
    _Debug.wanted = False
    try:
        ended = app(arguments, prog_name="prewarm", standalone_mode=False)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; what Python would still flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except (KeyboardInterrupt, typer.Abort):
        return _told("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:
        told = _line(error)
        if told is None:
            raise
        return _told(*told)
    return ended if isinstance(ended, int) else ExitCode.DONE


def _line(error: Exception) -> tuple[str, ExitCode] | None:
    """What to say of an error, and how to end; None if it is a bug."""
    if isinstance(error, CommandError):
        return str(error), error.code
    if isinstance(error, _TypedWrong):
        return str(getattr(error, "format_message", lambda: error)()) or _help_hint(), ExitCode.USAGE
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", ExitCode.USAGE
    from prewarm.cluster.errors import ApiError, ClusterError

    if isinstance(error, ClusterError):
        return str(error), ExitCode.FAILED if isinstance(error, ApiError) else ExitCode.NO_CLUSTER
    return None


def _help_hint() -> str:
    return "command missing: see prewarm --help"


def _told(message: str, code: ExitCode) -> int:
    if _Debug.wanted and sys.exc_info()[0] is not None:
        traceback.print_exc()
    typer.echo(f"prewarm: {' '.join(message.split())}", err=True)
    return code
