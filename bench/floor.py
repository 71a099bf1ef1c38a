"""The floor: what the same sockets and the same bytes cost with no broker at all.

An absolute time means little on a shared machine, so every fan-out figure stands beside this one, taken in the same
run: a bare ``send`` of the same bytes to the same sockets, in a Python loop, and in a C loop when a compiler is
there. The C source is ours (``floor.c``) and is compiled into a temporary folder at run time.
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
    """One sweep. ``wall_s`` and ``cpu_s`` of the whole of it; ``refused``: sends that the socket did not take whole."""

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
    """Send ``data`` to each socket in turn: bound methods in a list, as the leanest loop has them.

    A socket that appears twice gets two sends, as in a crowd that shares sockets.
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
    """The C compiler of this machine, or None."""
    return next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)


@functools.cache
def c_loop() -> ctypes.CDLL | None:
    """``floor.c`` compiled and loaded; None without a compiler. About 0.1 s, once a process."""
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
    """The same loop in C over the same descriptors; None without a compiler."""
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
