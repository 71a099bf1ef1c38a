"""A process that runs ``roomcast serve`` in a child, and kills and starts it again for each line of its input.

A child is forked from a process that has imported the broker already, so a restart costs no start of Python: tests that
kill a broker fifty times are quicker by a second each. The child is the whole broker of the arguments, alone in a
process of its own, and SIGKILL ends it. Its standard output and standard error are those of this process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import broker.cli.serve
import broker.server  # noqa: F401 - the commands import what they need when they run
from broker.cli.main import main

__all__ = ["run"]

_PR_SET_PDEATHSIG = 1


def run(arguments: list[str]) -> None:
    """Serve with the arguments of the command line until the input ends, then kill the broker."""
    while True:
        child = os.fork()
        if not child:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            main(arguments, prog_name="roomcast")
            sys.exit(0)
        is_wanted = sys.stdin.readline()
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit("the broker ended by itself")
        if not is_wanted:
            return


if __name__ == "__main__":
    run(sys.argv[1:])
