"""Runs a program so that it cannot outlive the process that started it.

Executed as a script: `python -I -S execguard.py PARENT_PID PROGRAM ARGUMENT...`. It asks the kernel for SIGKILL when
the parent ends (prctl(2), PR_SET_PDEATHSIG; kept across execve) and then becomes the program. This needs no code
between fork and exec in the parent, which would be unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent, then replace it by the program."""
    parent = int(sys.argv[1])
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"execguard: prctl failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("execguard: the parent ended before the program started")
    try:
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - an argument list, no shell
    except OSError as error:
        sys.exit(f"execguard: {sys.argv[2]}: {error.strerror}")


if __name__ == "__main__":
    main()
