"""``roomcast export``: what happened in a room as NDJSON, from a broker or from the ledger, resumable."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from broker.cli.call import ask, url_option
from broker.cli.config import UserPath
from broker.cli.ledger_source import LedgerSource, source_options
from broker.core.tenants.names import qualify, shown_name

__all__ = ["export"]

FOLLOW_S = 1.0
"""How often a broker is asked for what has followed."""
PAGE = 1000
_BEGIN = b'{"version":'
"""Begin of each line."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("room")
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="Only lines after this seq.")
@click.option("--epoch", type=click.IntRange(0), help="Stream of the room; without it the last one.")
@click.option("--output", type=UserPath(dir_okay=False), help="Append to this file, after the last whole line in it.")
@click.option("--follow", is_flag=True, help="Go on with what follows, until interrupted.")
@click.option("--from-ledger", is_flag=True, help="Read the ledger; no broker is needed.")
@click.option("--tenant", default="", help="Whose room it is, with --from-ledger; a key names its own tenant.")
@click.option("--names", is_flag=True, help="With names of users (--from-ledger; else ledger.export_names).")
@click.option("--texts", is_flag=True, help="With texts (--from-ledger; else ledger.export_texts).")
@url_option
@click.option(
    "--key-file", "api_key_file", help="File with the key of the control API; else the variable ROOMCAST_API_KEY."
)
@source_options
def export(
    room: str,
    after: int,
    epoch: int | None,
    output: Path | None,
    follow: bool,
    from_ledger: bool,
    tenant: str,
    names: bool,
    texts: bool,
    url: str,
    api_key_file: str | None,
    source: LedgerSource,
) -> None:
    """Write what happened in ROOM as NDJSON, one JSON object a line: events, orders, refunds, facts, samples.

    Each line has the version of the schema and its `seq`. With --output an export that was cut goes on after the last
    whole line of the file. Names of users and texts are left out, unless they are asked for.
    """
    if from_ledger and follow:
        raise click.UsageError("--follow asks a broker: it cannot go with --from-ledger")
    if (names or texts) and not from_ledger:
        raise click.UsageError("--names and --texts go with --from-ledger; a broker's configuration says it for others")
    if output is not None:
        after = max(after, _resume(output, room, epoch))
    lines = (
        _of_ledger(qualify(tenant, room), epoch, after, names, texts, source)
        if from_ledger
        else _of_broker(room, epoch, after, follow, url, api_key_file)
    )
    try:
        if output is None:
            for line in lines:
                sys.stdout.write(line)
            sys.stdout.flush()
        else:
            with output.open("a", encoding="utf-8", newline="\n") as file:
                for line in lines:
                    file.write(line)
                    if follow:
                        file.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise click.ClickException(f"{output}: {error.strerror}") from error


def _resume(output: Path, room: str, epoch: int | None) -> int:
    """Cut a file of an export after its last whole line, and return the seq of that; 0 where it has none.

    ClickException for a file that is none of this room; it stays as it is.
    """
    if not output.exists():
        return 0
    last, end = 0, 0
    try:
        with output.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    if line[: len(_BEGIN)] != _BEGIN[: len(line)]:
                        raise ValueError("the line does not begin as one of an export")
                    break
                last, end = _seq_of(json.loads(line), last, room, epoch), end + len(line)
            file.truncate(end)
        return last
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{output} is no export of room {room}: a line of it is not") from error
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from error


def _seq_of(item: Any, last: int, room: str, epoch: int | None) -> int:
    """Return the seq of a line of an export, which follows the one before; ValueError, KeyError or TypeError."""
    from broker.rooms.room_export import EXPORT_VERSION

    seq: int = item["seq"]
    is_own = item["version"] == EXPORT_VERSION and item["room"] == room and epoch in (None, item["epoch"])
    if not is_own or type(seq) is not int or seq <= last:
        raise ValueError("the line is of another export")
    return seq


def _line(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n"


def _of_broker(
    room: str, epoch: int | None, after: int, follow: bool, url: str, api_key_file: str | None
) -> Iterator[str]:
    while True:
        page = ask(url, api_key_file, "rooms.export", {"room": room, "epoch": epoch, "after": after, "limit": PAGE})
        epoch, after = page["epoch"], page["last"]
        yield from map(_line, page["lines"])
        if not page["more"]:
            if not follow:
                return
            time.sleep(FOLLOW_S)


def _of_ledger(
    room: str, epoch: int | None, after: int, names: bool, texts: bool, source: LedgerSource
) -> Iterator[str]:
    from broker.ledger.streams import all_entries, find_stream
    from broker.rooms.room_export import ExportFields, export_line

    fields = ExportFields(names, texts)
    with source.opened() as reader:
        stream = find_stream(reader, room, epoch)
        if stream is None:
            raise click.ClickException(f"{reader.path} has nothing of room {shown_name(room)}")
        stream = stream._replace(after=max(stream.after, after))
        for entry in all_entries(reader, stream):
            yield _line(export_line(entry, fields))
