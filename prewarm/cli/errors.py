"""How commands end: exit codes, and the errors that are told in one line."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of all commands; documented in docs and --help."""

    DONE = 0
    """Done; for `warm --wait`: all images are there."""
    FAILED = 1
    """It was tried and failed: pulls failed, or the server refused."""
    USAGE = 2
    """The command line, a file or a name is wrong: repeating it is of no use."""
    TIMEOUT = 3
    """Not warm within --timeout; pulling goes on."""
    NO_CLUSTER = 4
    """No cluster to talk to: no kubeconfig, or the API server does not answer."""
    INTERRUPTED = 130
    """Ctrl-C, as shells number it."""


EXIT_CODES = (
    "Exit codes: 0 done, 1 failed or refused, 2 wrong usage or input, 3 not warm in time, 4 no cluster to talk to, "
    "130 interrupted."
)


class CommandError(Exception):
    """A command cannot go on; the message is one clear line for the person who typed it."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def usage(message: str) -> CommandError:
    """An error in what was typed or given."""
    return CommandError(message, ExitCode.USAGE)
