"""``roomcast replay``: a room as it was at a moment of its past, from the ledger alone."""

from __future__ import annotations

import json
import re

import click

from broker.cli.ledger import moment_ms
from broker.cli.ledger_source import LedgerSource, source_options
from broker.cli.report import no_chance
from broker.core.tenants.names import qualify, shown_name

__all__ = ["replay"]

_SINCE = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2})(?:\.(\d{1,3}))?\Z")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("room")
@click.option(
    "--at",
    help="HH:MM:SS since the room was opened, Unix milliseconds, or as in 2026-11-22T20:15:00+08:00; else the end.",
)
@click.option("--epoch", type=click.IntRange(0), help="Stream of the room; without it the last one.")
@click.option("--tenant", default="", help="Whose room it is.")
@source_options
def replay(room: str, at: str | None, epoch: int | None, tenant: str, source: LedgerSource) -> None:
    """Print the state of ROOM at a moment as JSON: phase, pins, keys, activities, gifts and counters.

    It is folded from the ledger, beside a running broker or long after. Counters are those of the last sample before
    the moment, which says when that was.
    """
    from broker.core.commerce.kinds import activity_kinds
    from broker.rooms.room_replay import replay_room

    since = None if at is None else _SINCE.match(at)
    since_ms = None if since is None else _milliseconds(*since.groups())
    at_ms = None if at is None or since is not None else moment_ms(at, "--at")
    with source.opened() as reader:
        found = replay_room(reader, qualify(tenant, room), epoch, activity_kinds(no_chance), since_ms, at_ms)
        if found is None:
            which = "" if epoch is None else f" in epoch {epoch}"
            raise click.ClickException(f"{reader.path} has nothing of room {shown_name(qualify(tenant, room))}{which}")
    click.echo(json.dumps(found, ensure_ascii=False, indent=1))


def _milliseconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> int:
    whole_s = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    return whole_s * 1000 + int((fraction or "0").ljust(3, "0"))
