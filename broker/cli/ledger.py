"""``roomcast ledger``: verify, export, replay, back up and restore the ledger of a broker.

All but ``restore`` read one moment of the file beside a running broker and change nothing. All check a ledger as the
broker does at its start. Exit status 1 means that the file does not contain what was written; the message names the
first difference.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.config import UserPath, config_options, load_or_fail
from broker.core.tenants.names import qualify, shown_name, split_name
from broker.ledger import LedgerRefused, Reader, StoredEntry, open_directory
from broker.ledger.audits import audit_of
from broker.ledger.backup import back_up
from broker.ledger.chain import ChainVerifier
from broker.ledger.erasures import user_erased_of
from broker.ledger.key_file import LedgerKeys, rotate_key_file
from broker.ledger.orders import order_of
from broker.ledger.replay import RoomReplay, event_of, replay
from broker.ledger.restore import restore

__all__ = ["as_json_line", "copy_option", "data_options", "entries_options", "keys_of", "ledger", "moment_ms", "opened"]

F = TypeVar("F", bound=Callable[..., Any])  # Any: click commands have every signature.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def ledger() -> None:
    """Read the ledger: what was acknowledged, in which order, and whether the file is complete.

    Works beside a running broker and changes nothing; `restore` alone needs it stopped.
    """


def data_options(command: F) -> F:
    """Add the options that select the ledger: ``--data-dir``, or those of the configuration."""
    command = click.option(
        "--data-dir",
        type=UserPath(file_okay=False),
        help="Directory of the ledger (ledger.data_dir).",
    )(command)
    return config_options(command)


def copy_option(command: F) -> F:
    """Add ``--copy``: a backup, in place of a data directory."""
    return click.option(
        "--copy",
        type=UserPath(dir_okay=False, exists=True),
        help="A file made by `ledger backup`, in place of a data directory.",
    )(command)


def key_option(command: F) -> F:
    """Add ``--key-file``: what an encrypted ledger is read with."""
    return click.option(
        "--key-file",
        type=UserPath(dir_okay=False),
        help="Keys of an encrypted ledger (ledger.key_file).",
    )(command)


def entries_options(command: F) -> F:
    """Add the options of a command that writes entries as NDJSON: which ledger, whose entries, and where to."""
    for option in (
        click.option("--output", type=click.File("w", encoding="utf-8", atomic=True), default="-",
                     help="File, - = stdout."),
        click.option("--after", type=click.IntRange(0), default=0, show_default=True,
                     help="Only entries after this number."),
        click.option("--tenant", help='Only this tenant, "" = the default one; with --room: whose room it is.'),
        click.option("--room", help="Only this room."),
    ):  # fmt: skip
        command = option(command)
    return data_options(copy_option(key_option(command)))


def keys_of(
    config_path: Path | None, settings: tuple[str, ...], key_file: Path | None, *, is_configured: bool
) -> LedgerKeys | None:
    """Return the keys that the options name, or (``is_configured``) the configuration; None = none."""
    name: str | Path | None = key_file
    if name is None and (is_configured or config_path is not None or settings):
        name = load_or_fail(config_path, settings).ledger.key_file
    try:
        return None if name is None else LedgerKeys.read(name)
    except OSError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def opened(
    config_path: Path | None,
    settings: tuple[str, ...],
    data_dir: Path | None,
    copy: Path | None = None,
    keys: LedgerKeys | None = None,
) -> Iterator[Reader]:
    """Context of one moment of the ledger that the options select; ClickException, in one line, if it is refused."""
    with refusals():
        if copy is None:
            reader = open_directory(data_dir or ledger_directory(config_path, settings), keys)
        else:
            reader = Reader(copy, keys)
        try:
            with reader.snapshot():
                yield reader
        except sqlite3.Error as error:
            raise click.ClickException(f"{reader.path}: {error}") from error
        finally:
            reader.close()


@contextmanager
def refusals() -> Iterator[None]:
    """Context in which a refusal of the ledger ends the command with one line."""
    try:
        yield
    except LedgerRefused as error:
        raise click.ClickException(str(error)) from error


def ledger_directory(config_path: Path | None, settings: tuple[str, ...]) -> Path:
    """Return the data directory that ``serve`` would use with the same options."""
    directory = load_or_fail(config_path, settings).ledger.directory(config_path)
    if directory is None:
        raise click.UsageError("this configuration has no ledger (ledger.ephemeral); give a --data-dir")
    return directory


def entries_of(reader: Reader, after: int = 0) -> Iterator[StoredEntry]:
    """Yield the entries in order of writing and check the hash chain on the way."""
    _, anchor = reader.ends()
    chain = ChainVerifier(anchor, str(reader.path))
    for row in reader.chain_rows(anchor[0]):
        chain.take(row)
        if row[0].seq > after:
            yield reader.decrypted(row[0])
    chain.finish()


@ledger.command(short_help="Check the structure, every row and the hash chain.")
@data_options
@copy_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(
    config_path: Path | None, settings: tuple[str, ...], data_dir: Path | None, copy: Path | None, as_json: bool
) -> None:
    """Check the file's structure, every row of every table, the whole hash chain and the high-water mark."""
    with opened(config_path, settings, data_dir, copy) as reader:
        entries, redacted = reader.verify_all(), reader.redacted()
        with reader.snapshot() as row:
            tables = json.loads(row.tallies)
        findings = {
            "path": str(reader.path),
            "entries": entries,
            "redacted": redacted,
            "first": row.anchor_seq + 1,
            "last": row.seq,
            "commits": row.batch,
            "rooms": reader.open_rooms(),
            "hash": row.hash.hex(),
            "lineage": row.lineage.hex(),
            "is_copy": bool(row.is_copy),
            "rows": {table: rows for table, (rows, *_) in tables.items() if table != "states"},
        }
    if as_json:
        click.echo(json.dumps(findings))
        return
    click.echo(
        f"ok: {reader.path}: {entries:,} entries ({findings['first']} to {findings['last']}), "
        f"{findings['rooms']:,} open rooms, every checksum and the hash chain hold"
    )
    if redacted:
        click.echo(f"{redacted:,} of them redacted: what they held is removed, and a later entry of the chain says so")
    click.echo(f"last entry {row.seq}, hash {row.hash.hex()}, lineage {row.lineage.hex()}")


@ledger.command(short_help="Write the entries as NDJSON.")
@entries_options
def export(
    config_path: Path | None,
    settings: tuple[str, ...],
    data_dir: Path | None,
    copy: Path | None,
    key_file: Path | None,
    room: str | None,
    tenant: str | None,
    after: int,
    output: Any,
) -> None:
    """Write the entries as NDJSON: one line each, in order, with sequence number and time."""
    keys = keys_of(config_path, settings, key_file, is_configured=data_dir is None and copy is None)
    # Any: click's file object.
    with opened(config_path, settings, data_dir, copy, keys) as reader:
        for entry in entries_of(reader, after):
            if _is_selected(entry, room, tenant):
                output.write(json.dumps(as_json_line(entry), ensure_ascii=False, default=_binary) + "\n")


def _is_selected(entry: StoredEntry, room: str | None, tenant: str | None) -> bool:
    """Return whether an entry is of the room and tenant of the options; a room is the default tenant's without one."""
    of_tenant, name = split_name(entry.room)
    if room is None:
        return tenant is None or of_tenant == tenant
    return (of_tenant, name) == (tenant or "", room)


def as_json_line(entry: StoredEntry) -> dict[str, Any]:
    """Return one entry for NDJSON: what this version knows with its fields, another fact with its body in base64."""
    tenant, room = split_name(entry.room)
    line: dict[str, Any] = {"seq": entry.seq, **({"tenant": tenant} if tenant else {}), "room": room}
    line |= {"epoch": entry.epoch}
    if entry.lane is not None:
        line |= {"offset": entry.offset, "lane": entry.lane}
    line |= {"kind": entry.kind, "at_ms": entry.at_ms}
    order = order_of(entry)
    if order is not None:
        return line | {"order": order._asdict()}
    erased = user_erased_of(entry)
    if erased is not None:
        return line | {"user_erased": erased._asdict()}
    audited = audit_of(entry)
    if audited is not None:
        return line | {"audit": audited._asdict()}
    event = event_of(entry)
    if event is None:
        return line | {"body": _binary(entry.body)}
    return line | {"user_id": event.user_id, "name": event.name, "payload": event.payload}


def _binary(value: object) -> str:
    """Encode bytes for JSON, in base64."""
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()


@ledger.command("replay", short_help="Replay the ledger and print the state of rooms.")
@data_options
@copy_option
@key_option
@click.option("--room", help="Only this room, and every event of it.")
@click.option("--tenant", help='Only this tenant, "" = the default one; with --room: whose room it is.')
@click.option("--until", help="Stop at this time: Unix milliseconds, or as in 2026-11-22T20:15:00+08:00.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a room instead of the table.")
def replay_(
    config_path: Path | None,
    settings: tuple[str, ...],
    data_dir: Path | None,
    copy: Path | None,
    key_file: Path | None,
    room: str | None,
    tenant: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Replay the ledger from its first entry and print the state of every room, at its end or at --until."""
    keys = keys_of(config_path, settings, key_file, is_configured=data_dir is None and copy is None)
    until_ms = None if until is None else moment_ms(until)
    with opened(config_path, settings, data_dir, copy, keys) as reader:

        def selected() -> Iterator[StoredEntry]:
            begun_ms: int | None = None
            for entry in entries_of(reader):
                if not _is_selected(entry, room, tenant) or (until_ms is not None and entry.at_ms > until_ms):
                    continue
                if room is not None and not as_json:
                    begun_ms = entry.at_ms if begun_ms is None else begun_ms
                    click.echo(_line(entry, begun_ms))
                yield entry

        rooms = replay(selected())
    if room is not None and not rooms:
        raise click.ClickException(f"{reader.path} has no entry of room {shown_name(qualify(tenant or '', room))}")
    for found in rooms.values():
        click.echo(json.dumps(found.as_json(), ensure_ascii=False) if as_json else _summary(found))


_is_unix_ms = re.compile(r"[0-9]{1,15}").fullmatch


def moment_ms(text: str, option: str = "--until") -> int:
    """Parse Unix milliseconds or an ISO 8601 time, local time without a zone, into Unix milliseconds; ``option``: which
    has it."""
    try:
        return int(text) if _is_unix_ms(text) else round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"not a time: {text!r}", param_hint=option) from None


def _line(entry: StoredEntry, begun_ms: int) -> str:
    since_s = (entry.at_ms - begun_ms) // 1000
    line = as_json_line(entry)
    content = {key: line[key] for key in ("user_id", "payload", "order", "body") if key in line}
    clock = f"{since_s // 3600:02d}:{since_s // 60 % 60:02d}:{since_s % 60:02d}"
    place = "order" if "order" in line else f"#{entry.offset}"
    return f"{clock} {place} kind {entry.kind} {json.dumps(content, ensure_ascii=False, default=_binary)}"


def _summary(found: RoomReplay) -> str:
    begun = datetime.fromtimestamp(found.first_ms / 1000, UTC).isoformat(timespec="seconds") if found.events else "-"
    text = (
        f"{shown_name(found.room) or '(no room)'} epoch {found.epoch}: {found.events:,} events, "
        f"offsets {found.first_offset} to {found.last_offset}, since {begun}, {found.phase.name.lower()}; "
        f"{found.gifts:,} gifts of "
        f"{found.gift_cents / 100:,.2f} ({found.orders:,} orders of {found.order_cents / 100:,.2f}), "
        f"{found.announcements:,} announcements, {found.facts:,} facts"
    )
    return text + (f"; {found.holes:,} OFFSETS MISSING" if found.holes else "")


@ledger.command(short_help="Copy the ledger while the broker runs.")
@data_options
@click.argument("target", type=UserPath(dir_okay=False))
def backup(config_path: Path | None, settings: tuple[str, ...], data_dir: Path | None, target: Path) -> None:
    """Copy the ledger to TARGET while the broker runs; the copy is verified before it is renamed to TARGET.

    `roomcast ledger restore TARGET` makes a ledger of it.
    """
    with opened(config_path, settings, data_dir) as reader:
        try:
            size = back_up(reader, target)
        except OSError as error:
            raise click.ClickException(f"{error.filename or target}: {error.strerror}") from error
    click.echo(f"ok: {target} ({size:,} bytes), verified", file=sys.stdout)


@ledger.command("restore", short_help="Make a ledger of a copy, while the broker is stopped.")
@data_options
@click.argument("copy", type=UserPath(dir_okay=False, exists=True), required=False)
@click.option("--accept-loss", is_flag=True, help="Go on without what was acknowledged and is missing.")
def restore_(
    config_path: Path | None, settings: tuple[str, ...], data_dir: Path | None, copy: Path | None, accept_loss: bool
) -> None:
    """Make a ledger of COPY in an empty data directory, or let the one that is there begin another history.

    The broker must be stopped. Every room begins a new epoch and keeps its phase and totals; inbox numbers continue
    above all that were given out. Without COPY: after a snapshot of the whole volume was put back, or, with
    --accept-loss, where acknowledged data is missing.
    """
    directory = data_dir or ledger_directory(config_path, settings)
    with refusals():
        try:
            done = restore(directory, copy, accept_loss=accept_loss, now_ms=time.time_ns() // 1_000_000)
        except OSError as error:
            raise click.ClickException(f"{error.filename or directory}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise click.ClickException(f"{directory}: {error}") from error
    if done.lost:
        click.echo(f"lost: {done.lost}")
    click.echo(f"ok: {directory}: {done.entries:,} entries, {done.rooms:,} open rooms with new epochs")


@ledger.command("rotate-key", short_help="Make a new key that encrypts the ledger.")
@config_options
@key_option
def rotate_key(config_path: Path | None, settings: tuple[str, ...], key_file: Path | None) -> None:
    """Put a new key before those of the ledger's key file, or make the file with its first key.

    The new key encrypts from the next start of the broker on, or from the next time that it reads its configuration
    again (SIGHUP, or `roomcast call brokers.reload`); the older ones still decrypt what they have encrypted.
    """
    name = key_file or load_or_fail(config_path, settings).ledger.key_file
    if name is None:
        raise click.UsageError("this configuration names no ledger.key_file; give a --key-file")
    try:
        keys = rotate_key_file(name)
    except OSError as error:
        raise click.ClickException(f"{error.filename or name}: {error.strerror}") from error
    older = len(keys.ids) - 1
    click.echo(f"ok: {name}: key {keys.current.id.hex()} encrypts from the next start or reload on; {older} older")
