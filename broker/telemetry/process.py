"""Settings of the interpreter for a process that is a broker."""

from __future__ import annotations

import gc
import sys

__all__ = ["tune_process"]


def tune_process() -> None:
    """Set the garbage collector and the interpreter's lock to a broker's work; once, before the process serves.

    The broker's objects end by reference counts; the collector finds next to nothing and costs a tenth of the inbound
    path, and a full pass over 100,000 viewers stops the loop for 0.1 s. What was imported is not scanned again. A flood
    makes and drops some 50,000 objects a tick: a pass over the young comes about once a tick then, and hardly ever at
    rest.

    The ledger's thread takes the interpreter's lock some fifty times a commit. Beside a busy loop each time would
    take the 5 ms that CPython waits by default, and the commits, not the disk, would bound what is durable.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 100)
    sys.setswitchinterval(0.0005)
