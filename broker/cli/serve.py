"""``roomcast serve``: run a broker until a signal stops it."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import trio

from broker.auth.api_keys import KeyFileError
from broker.cli.config import ConfigProblems, config_options, engine_findings, load_or_fail
from broker.cli.node_process import follow_supervisor
from broker.cli.supervisor import Supervisor, SupervisorFailed, serve_signals
from broker.config.schema import Config, ConfigError
from broker.engine.base import EngineError
from broker.ledger.entries import LedgerRefused
from broker.net.inherited import inherited_control, inherited_node
from broker.telemetry.logs import LogFile, configure
from protocol.clients.exceptions import first_leaf

__all__ = ["serve"]

log = structlog.get_logger("roomcast.serve")

MAX_PROCESSES = 256
EXPECTED = (LedgerRefused, KeyFileError, SupervisorFailed, EngineError, OSError)
"""Why a broker cannot serve: one line and status 1."""


@click.command()
@config_options
@click.option("--host", help="Address to listen on (listen.host).")
@click.option("--port", type=int, help="Port, 0 = any free one (listen.port).")
@click.option("--policy", help="Limits of all rooms: roomcast, tencent, rongcloud, nim, goim or off (room.policy).")
@click.option("--log-level", help="debug, info, warning or error (log.level).")
@click.option(
    "--data-dir",
    help="Directory of the ledger (ledger.data_dir); default roomcast-data beside the configuration file, else here.",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    help="Keep nothing on disk (ledger.ephemeral): a crash or restart forgets gifts, messages and positions.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    default=1,
    help="Processes on this host that share its ports; more than one needs an engine (engine.url).",
)
@click.option(
    "--status-listen",
    metavar="HOST:PORT",
    help="With --processes: address of /readyz and /metrics of all processes, or unix:PATH.",
)
def serve(
    config_path: Path | None,
    settings: tuple[str, ...],
    host: str | None,
    port: int | None,
    policy: str | None,
    log_level: str | None,
    data_dir: str | None,
    ephemeral: bool,
    processes: int,
    status_listen: str | None,
) -> None:
    """Serve rooms over TCP and WebSocket on one port.

    Prints one JSON line with the bound addresses and the process id on standard output when it serves. Without
    configuration it is a development broker: loopback only, no secret, guests allowed.

    Gifts, announcements and messages to users are on disk before they are acknowledged, and a restarted broker
    continues every room where it ended; `roomcast ledger` reads the file.

    SIGTERM or SIGINT drains: the broker gives each client a time to reconnect. A second signal ends it at once. SIGHUP
    reads the configuration again: log level, secrets, certificates, and limits of connections and rooms take effect,
    open connections stay, and the log names what needs a restart.

    With --processes the ports are shared by so many processes, which are kept alive. SIGHUP then replaces one after the
    other, and no connection is refused meanwhile; SIGTERM drains them all.
    """
    flags = {
        "listen.host": host,
        "listen.port": port,
        "room.policy": policy,
        "log.level": log_level,
        "ledger.data_dir": data_dir,
        "ledger.ephemeral": True if ephemeral else None,
    }

    origins: dict[str, str] = {}

    def read() -> Config:
        return load_or_fail(config_path, settings, flags, origins).placed(config_path)

    def read_again() -> Config:
        """Read as at the start; the running broker reports the errors of a configuration itself."""
        try:
            return read()
        except ConfigProblems as error:
            raise ConfigError(error.problems) from error
        except click.ClickException as error:
            raise ConfigError([str(error)]) from error

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the broker serves; SIGHUP must never end it
    config = read()
    if processes > 1:
        _require_engine(config, processes)
        _check_engine(config)
    elif status_listen is not None:
        raise click.UsageError("--status-listen is for --processes: one process has /readyz and /metrics on api.listen")
    log_file = _log_file()
    configure(config.log, log_file, inherited_node())
    try:
        if processes > 1:
            command = _node_command(config_path, settings, flags)
            supervisor = Supervisor(config, processes, command, read_config=read_again, status_listen=status_listen)
            trio.run(_supervise, supervisor, config)
        else:
            trio.run(_serve, config, read_again, origins, log_file)
    except EXPECTED as error:
        raise _cannot_serve(config, error) from error
    except BaseExceptionGroup as group:
        # Not `except*`: before Python 3.11.4 it puts what is raised here into a group, which click prints with a
        # traceback.
        expected, others = group.split(EXPECTED)
        if expected is None or others is not None:
            raise
        raise _cannot_serve(config, first_leaf(expected)) from group
    finally:
        if log_file is not None:
            log_file.close()


def _log_file() -> LogFile | None:
    """Return standard error for log lines; None where it is not a file with a descriptor."""
    try:
        return None if sys.stderr is None else LogFile(sys.stderr.fileno())
    except OSError:
        return None


def _require_engine(config: Config, processes: int) -> None:
    """Refuse several processes without an engine, which is where they share rooms."""
    if config.engine.url is None:
        raise click.ClickException(
            f"--processes {processes}: several processes share their rooms on Redis 7 or Valkey, and engine.url is not"
            " set. Install one (apt install redis-server, or docker run -p 127.0.0.1:6379:6379 valkey/valkey:8) and"
            ' set engine.url = "redis://127.0.0.1:6379"'
        )


def _check_engine(config: Config) -> None:
    """Refuse a server that may not be used once, and not in each process; one that is not there yet is waited for."""
    from broker.engine.probe import UNREACHABLE

    wrong = [each for each in engine_findings(config.engine) if each.prevents]
    if wrong and wrong[0].name != UNREACHABLE:
        raise click.ClickException("; ".join(f"{each.detail}: {each.remedy}" for each in wrong))


def _node_command(config_path: Path | None, settings: tuple[str, ...], flags: Mapping[str, Any]) -> list[str]:
    """Return the command line of one process with the same settings. Any: flags have several types."""
    given = [
        f"{name}={str(value).lower() if value is True else value}" for name, value in flags.items() if value is not None
    ]
    config = [] if config_path is None else ["--config", str(config_path)]
    sets = [part for each in (*settings, *given) for part in ("--set", each)]
    return [sys.executable, "-m", "broker.cli", "serve", *config, *sets]


async def _supervise(supervisor: Supervisor, config: Config) -> None:
    def started() -> None:
        _warn(config)
        _announce(supervisor.addresses, supervisor.api_urls, status=supervisor.status_urls)

    await serve_signals(supervisor, started)


async def _serve(
    config: Config, read: Callable[[], Config], origins: Mapping[str, str], log_file: LogFile | None
) -> None:
    from broker.engine.configured import engine_of
    from broker.server import Broker
    from broker.telemetry.process import tune_process

    tune_process()
    engine = engine_of(config.engine, inherited_node())
    broker = Broker(config, log_file=log_file, read_config=read, origins=origins, engine=engine)
    async with trio.open_nursery() as nursery:
        with (
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
            trio.open_signal_receiver(signal.SIGHUP) as hangups,
        ):
            nursery.start_soon(_stop_on_signal, signals, broker, nursery)
            nursery.start_soon(_reload_on_signal, hangups, broker)
            await nursery.start(broker.run)
            if (control := inherited_control()) is not None:
                serving = {"addresses": [list(address) for address in broker.addresses], "api": list(broker.api_urls)}
                drain = partial(nursery.start_soon, broker.drain)
                nursery.start_soon(follow_supervisor, control, serving, partial(_node_status, broker), drain)
            else:
                _warn(config)
                _announce(broker.addresses, broker.api_urls)
            await broker.stopped.wait()
            nursery.cancel_scope.cancel()


async def _node_status(broker: Any) -> dict[str, Any]:
    """Return what the supervisor asks for. Any: a broker, which is not imported here, and values of JSON."""
    from broker.telemetry.metrics import scrape

    is_ready, fields = broker.status()
    fields |= {"node": inherited_node(), "pid": os.getpid()}
    return {"ready": is_ready, "fields": fields, "metrics": await scrape(broker)}


def _warn(config: Config) -> None:
    """Print what a person who tries the broker must know, once it serves: an error alone stands on the terminal."""
    if config.development:
        click.echo("development mode: loopback only, no identity is checked; set auth.secret to leave it", err=True)
    if config.ledger.ephemeral:
        click.echo("ephemeral: nothing is kept on disk; a restart loses acknowledged messages", err=True)


def _announce(
    addresses: tuple[tuple[str, int], ...], api_urls: tuple[str, ...], *, status: tuple[str, ...] = ()
) -> None:
    """Print the line on standard output that reports the addresses to the process that started the broker."""
    line: dict[str, Any] = {
        "event": "serving",
        "pid": os.getpid(),
        "addresses": [list(address[:2]) for address in addresses],
    }
    if api_urls:
        line["api"] = list(api_urls)
    if status:
        line["status"] = list(status)
    try:
        if sys.stdout is None:  # Python found it closed
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except OSError as error:
        log.warning("cannot write the addresses to standard output", why=error.strerror)
        # The buffered line would fail again when the interpreter ends, with exit status 120.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


def _cannot_serve(config: Config, error: Exception) -> click.ClickException:
    """Return the reason in one line, with what to do."""
    if not isinstance(error, OSError):
        return click.ClickException(str(error))
    where = f"{config.listen.host}:{config.listen.port}"
    if error.errno == errno.EADDRINUSE:
        why = f"{where} is in use; `ss -ltnp 'sport = :{config.listen.port}'` shows by which process, or use --port 0"
    elif error.filename is not None:
        why = f"{error.filename}: {error.strerror}"
    else:
        why = f"cannot serve on {where}: {error.strerror or error}"
    return click.ClickException(why)


async def _reload_on_signal(hangups: AsyncIterator[int], broker: Any) -> None:
    """Read the configuration again at every SIGHUP; an invalid one changes nothing."""
    async for _ in hangups:
        try:
            await broker.reload_files()
        except ConfigError as error:
            log.error("configuration not reloaded", problems=error.problems)
        except (OSError, ValueError) as error:
            log.error("configuration not reloaded", problems=[str(error)])


async def _stop_on_signal(signals: AsyncIterator[int], broker: Any, nursery: trio.Nursery) -> None:
    async for _ in signals:
        if broker.draining or not broker.addresses:
            nursery.cancel_scope.cancel()
            return
        nursery.start_soon(broker.drain)
