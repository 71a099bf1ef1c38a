"""``roomcast doctor``: limits of this machine, what prevents a broker from serving, and how to change it.

Every check is a function of the values read, so that tests can pass the values of any machine; only `examine` reads
this one. Nothing here is required to run the broker: the status of a check is ok, warn (the broker runs with less
capacity than expected) or absent (an optional part).
"""

from __future__ import annotations

import importlib.util
import json
import platform
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from broker.cli.config import ConfigProblems, config_options, engine_findings, load_or_fail
from broker.cli.main import INSTALL_BENCH
from broker.config.schema import Config

__all__ = [
    "Check",
    "check_accept_backlog",
    "check_clock",
    "check_descriptors",
    "check_local_ports",
    "check_port",
    "check_tcp_memory",
    "doctor",
    "examine",
]

Status = Literal["ok", "warn", "absent"]

PIPE_COLUMNS = 200
"""Width where standard output is no terminal."""
_OLDEST_YEAR = 2025
"""A clock that was never set shows 1970 or the date of the firmware."""
_ENOUGH_VIEWERS = 10_000
_ENOUGH_SLOW_VIEWERS = 1_000
_ENOUGH_BACKLOG = 1_024
"""Connections that may wait to be accepted: half a second of the default accept rate."""
_ENOUGH_PORTS = 20_000
_CLOCK_SLIP_S = 0.02

_MODULES = {
    "hdrh": ("latency histograms of the bench", INSTALL_BENCH),
    "matplotlib": ("plots of the bench", INSTALL_BENCH),
}
_PROGRAMS = {
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "browser tests", "apt install chromium"),
    "redis-server": (
        ("redis-server", "valkey-server"),
        "the engine of several processes, `roomcast bench run --against redis`",
        "apt install redis-server",
    ),
}


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check. ``remedy``: how to fix it, empty where there is nothing to fix."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def check_descriptors(soft: int, hard: int, reserve: int, wanted: int) -> Check:
    """Check how many viewers the descriptors allow; the broker raises the soft limit to the hard one when it starts."""
    endless = hard == resource.RLIM_INFINITY
    viewers = max(0, hard - reserve)
    enough = endless or viewers >= (wanted or _ENOUGH_VIEWERS)
    limits = f"soft {_limit(soft)}, hard {_limit(hard)}"
    allows = "as many viewers as fit in memory" if endless else f"{viewers} viewers ({reserve} in reserve)"
    return Check(
        "descriptors",
        "ok" if enough else "warn",
        f"{limits}: {allows}" + (f", admission.max_connections wants {wanted}" if wanted and not enough else ""),
        "" if enough else "LimitNOFILE=1048576 in the systemd unit, --ulimit nofile=1048576 for a container",
    )


def check_port(host: str, port: int) -> Check:
    """Check whether ``host``:``port`` can be bound now. Binds and closes, never listens."""
    if port == 0:
        return Check("port", "ok", f"{host}: any free port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        remedy = f"`ss -ltnp 'sport = :{port}'` shows the process; or --set listen.port=..."
        return Check("port", "warn", f"{host}:{port}: {error.strerror or error}", remedy)
    return Check("port", "ok", f"{host}:{port} is free")


def check_clock(year: int, wall_s: float, monotonic_s: float) -> Check:
    """Check the clock by which tokens expire: a plausible year, and a wall clock that runs like the monotonic one."""
    remedy = "timedatectl set-ntp true"
    if year < _OLDEST_YEAR:
        return Check("clock", "warn", f"the year is {year}: tokens appear not to be valid yet", remedy)
    if abs(wall_s - monotonic_s) > _CLOCK_SLIP_S:
        detail = f"in {monotonic_s * 1000:.0f} ms the wall clock moved {wall_s * 1000:.0f} ms: it is being set"
        return Check("clock", "warn", detail, remedy)
    return Check("clock", "ok", f"the year is {year}, wall and monotonic clock agree")


def check_tcp_memory(tcp_mem: str | None, page_bytes: int, send_buffer_bytes: int) -> Check:
    """Check how many stalled viewers fit into the kernel's memory for TCP (``net.ipv4.tcp_mem``, in pages)."""
    numbers = _integers(tcp_mem, 3)
    if numbers is None:
        return _unknown("tcp_mem")
    total = numbers[2] * page_bytes
    # Linux doubles SO_SNDBUF for its own overhead (socket(7)).
    slow = total // (2 * send_buffer_bytes)
    enough = slow >= _ENOUGH_SLOW_VIEWERS
    return Check(
        "tcp_mem",
        "ok" if enough else "warn",
        f"{total / 2**20:.0f} MiB: {slow} viewers with full send buffers",
        "" if enough else f"sysctl -w net.ipv4.tcp_mem='{numbers[0]} {numbers[1]} {numbers[2] * 4}'",
    )


def check_accept_backlog(somaxconn: str | None) -> Check:
    """Check how many connections may wait to be accepted when many clients connect at once."""
    numbers = _integers(somaxconn, 1)
    if numbers is None:
        return _unknown("somaxconn")
    enough = numbers[0] >= _ENOUGH_BACKLOG
    remedy = "" if enough else "sysctl -w net.core.somaxconn=4096"
    return Check("somaxconn", "ok" if enough else "warn", f"{numbers[0]} connections may wait to be accepted", remedy)


def check_local_ports(port_range: str | None) -> Check:
    """Check how many connections one address can make: it limits the bench and a reverse proxy, not the broker."""
    numbers = _integers(port_range, 2)
    if numbers is None:
        return _unknown("ip_local_port_range")
    ports = numbers[1] - numbers[0] + 1
    enough = ports >= _ENOUGH_PORTS
    return Check(
        "ip_local_port_range",
        "ok" if enough else "warn",
        f"{ports} connections from one client address",
        "" if enough else "sysctl -w net.ipv4.ip_local_port_range='1024 65535', or several client addresses",
    )


def examine(config: Config, read: Callable[[str], str | None]) -> Iterator[Check]:
    """Check this machine. ``read`` returns the text of a file under /proc/sys, or None. Never waits."""
    wall, monotonic = time.time(), time.monotonic()
    yield Check("python", "ok", f"{platform.python_implementation()} {platform.python_version()}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield check_descriptors(soft, hard, config.admission.descriptor_reserve, config.admission.max_connections)
    yield check_port(config.listen.host, config.listen.port)
    yield check_tcp_memory(read("net/ipv4/tcp_mem"), resource.getpagesize(), config.link.send_buffer_bytes)
    yield check_accept_backlog(read("net/core/somaxconn"))
    yield check_local_ports(read("net/ipv4/ip_local_port_range"))
    for module, (purpose, remedy) in _MODULES.items():
        found = importlib.util.find_spec(module) is not None
        yield Check(module, "ok", purpose) if found else Check(module, "absent", purpose, remedy)
    for name, (programs, purpose, remedy) in _PROGRAMS.items():
        path = next(filter(None, map(shutil.which, programs)), None)
        yield Check(name, "ok", f"{purpose}: {path}") if path else Check(name, "absent", purpose, remedy)
    # Last: the clocks are compared over the time that the other checks took.
    yield check_clock(time.gmtime().tm_year, time.time() - wall, time.monotonic() - monotonic)


@click.command("doctor")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(config_path: Path | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Check the limits of this machine, what prevents a broker from serving, and how to change it."""
    checks: list[Check] = []
    try:
        config = load_or_fail(config_path, settings)
    except ConfigProblems as error:
        config = Config()
        remedy = "roomcast check-config; the other checks use the defaults"
        checks += [Check("configuration", "warn", problem, remedy) for problem in error.problems]
    checks += examine(config, _read_sysctl)
    if config.engine.url is not None:
        found = engine_findings(config.engine)
        checks += [Check(each.name, "warn" if each.remedy else "ok", each.detail, each.remedy) for each in found]
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in checks]}, ensure_ascii=False, indent=2))
    else:
        _print(checks)


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles: dict[Status, str] = {"ok": "green", "warn": "yellow", "absent": "dim"}
    table = Table.grid(padding=(0, 2))
    for check in checks:
        text = Text(check.detail)
        if check.remedy:
            text.append(f"\n{check.remedy}", style="cyan")
        table.add_row(Text(check.status, style=styles[check.status]), Text(check.name, no_wrap=True), text)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)  # a remedy must stay on one line
    console.print(table)


def _read_sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _integers(text: str | None, count: int) -> list[int] | None:
    parts = (text or "").split()
    return [int(part) for part in parts] if len(parts) == count and all(p.isdecimal() for p in parts) else None


def _unknown(name: str) -> Check:
    return Check(name, "absent", "not available on this system")


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else str(number)
