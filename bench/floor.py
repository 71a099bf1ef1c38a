"""The floor: the cost of the same bytes on the same sockets without a broker.

Absolute times vary on a shared machine, so every fan-out figure is shown beside this one of the same run: a bare
``send`` of the same bytes to the same sockets, in a Python loop, and in a C loop if there is a compiler. The C source
(``floor.c``) is compiled into a temporary folder at run time.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import NamedTuple

__all__ = ["FloorSweep", "c_compiler", "c_loop", "c_sweep", "python_sweep"]


class FloorSweep(NamedTuple):
    """One sweep: its total ``wall_s`` and ``cpu_s``; ``refused``: sends that the socket did not accept whole."""

    loop: str
    sends: int
    size_bytes: int
    wall_s: float
    cpu_s: float
    refused: int

    @property
    def us_per_send(self) -> float:
        """CPU microseconds of one send."""
        return self.cpu_s / max(1, self.sends) * 1e6


def python_sweep(socks: Sequence[socket], data: bytes) -> FloorSweep:
    """Send ``data`` to each socket in turn, with bound methods in a list: the shortest loop in Python.

    A socket that appears twice gets two sends, as shared sockets do.
    """
    sends = [sock.send for sock in socks]
    size = len(data)
    refused = 0
    wall, cpu = time.perf_counter(), time.thread_time()
    for send in sends:
        try:
            if send(data) != size:
                refused += 1
        except BlockingIOError:
            refused += 1
    return FloorSweep("python", len(sends), size, time.perf_counter() - wall, time.thread_time() - cpu, refused)


def c_compiler() -> str | None:
    """Return the path of the C compiler, None if there is none."""
    return next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)


@functools.cache
def c_loop() -> ctypes.CDLL | None:
    """Compile and load ``floor.c``; None without a compiler. About 0.1 s, once a process."""
    compiler = c_compiler()
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="roomcast-floor-") as folder:
        target = Path(folder) / "floor.so"
        source = Path(__file__).with_name("floor.c")
        done = subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(source)],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            return None
        library = ctypes.CDLL(str(target))
    library.sweep.restype = ctypes.c_int64
    return library


def c_sweep(socks: Sequence[socket], data: bytes) -> FloorSweep | None:
    """Run the same loop in C over the same descriptors; None without a compiler."""
    library = c_loop()
    if library is None:
        return None
    count = len(socks)
    descriptors = (ctypes.c_int * count)(*[sock.fileno() for sock in socks])
    cpu_ns, refused = ctypes.c_int64(), ctypes.c_int64()
    wall_ns = library.sweep(
        descriptors, ctypes.c_int64(count), data, ctypes.c_int64(len(data)), ctypes.byref(cpu_ns), ctypes.byref(refused)
    )
    return FloorSweep("c", count, len(data), wall_ns / 1e9, cpu_ns.value / 1e9, refused.value)
