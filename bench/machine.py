"""Facts about the machine and the build, which every result contains."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.floor import c_compiler

__all__ = ["busy_s", "command_line", "commit", "facts"]

_ROOT = Path(__file__).parent.parent


def commit() -> str:
    """Return the commit of this checkout, with ``+`` if tracked files differ; "" without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
    )  # fmt: skip
    return done.stdout.strip()


def command_line() -> str:
    """Return the running command as a shell command line."""
    name = "python -m bench" if sys.argv[0].endswith("__main__.py") else Path(sys.argv[0]).name
    return shlex.join([*name.split(), *sys.argv[1:]])


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return " ".join(Path(path).read_text().split())
    except OSError:
        return ""


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def busy_s() -> dict[str, float]:
    """Return CPU seconds of the machine so far: of processes (``busy``) and taken by the host (``steal``).

    Interrupts are left out: those of the loopback interface belong to no process.
    """
    times = psutil.cpu_times()
    return {"busy": times.user + times.nice + times.system, "steal": getattr(times, "steal", 0.0)}


def facts() -> dict[str, Any]:
    """Return the facts needed to compare runs of different machines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": _version_of("trio"),
        "roomcast": _version_of("roomcast"),
        "descriptors_soft": soft,
        "descriptors_hard": hard,
        "ephemeral_ports": _read("/proc/sys/net/ipv4/ip_local_port_range"),
        "tcp_mem_pages": _read("/proc/sys/net/ipv4/tcp_mem"),
        "c_compiler": c_compiler() or "",
        "load_before": round(os.getloadavg()[0], 2),
        "commit": commit(),
        "command": command_line(),
    }
