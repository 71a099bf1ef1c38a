"""``roomcast report``: what became of a show, from a broker or from the ledger alone, the same bytes from both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from broker.cli.call import ask, url_option
from broker.cli.config import UserPath
from broker.cli.ledger_source import LedgerSource, source_options
from broker.cli.report_page import report_html, report_json
from broker.core.tenants.names import qualify, shown_name

__all__ = ["no_chance", "report"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("room")
@click.option("--epoch", type=click.IntRange(0), help="Stream of the room; without it the last one.")
@click.option("--from-ledger", is_flag=True, help="Read the ledger; no broker is needed.")
@click.option("--tenant", default="", help="Whose room it is, with --from-ledger; a key names its own tenant.")
@click.option("--json", "json_path", type=UserPath(dir_okay=False), help="Write JSON here, - = stdout.")
@click.option("--html", "html_path", type=UserPath(dir_okay=False), help="Write a page here.")
@url_option
@click.option(
    "--key-file", "api_key_file", help="File with the key of the control API; else the variable ROOMCAST_API_KEY."
)
@source_options
def report(
    room: str,
    epoch: int | None,
    from_ledger: bool,
    tenant: str,
    json_path: Path | None,
    html_path: Path | None,
    url: str,
    api_key_file: str | None,
    source: LedgerSource,
) -> None:
    """Make the report of a show in ROOM: audience, interaction, commerce, moderation, every message, the host's acts.

    It is asked of the broker at --url, or made from the ledger with --from-ledger, while the broker runs or long after.
    Both give the same bytes, once the room has ended. Without --json and --html it prints the JSON.
    """
    if from_ledger:
        found = _from_ledger(qualify(tenant, room), epoch, source)
    else:
        arguments = {"room": room} | ({} if epoch is None else {"epoch": epoch})
        found = ask(url, api_key_file, "rooms.report", arguments)["report"]
    if json_path is None and html_path is None:
        json_path = Path("-")
    for path, content in ((json_path, report_json), (html_path, report_html)):
        if path is not None:
            _write(path, content(found))


def _from_ledger(room: str, epoch: int | None, source: LedgerSource) -> dict[str, Any]:
    """Return the report of a room by qualified name. Any: JSON."""
    from broker.core.commerce.kinds import activity_kinds
    from broker.rooms.show_reports import read_report

    with source.opened() as reader:
        found = read_report(reader, room, epoch, activity_kinds(no_chance))
        if found is None:
            which = "" if epoch is None else f" in epoch {epoch}"
            raise click.ClickException(f"{reader.path} has nothing of room {shown_name(room)}{which}")
        return found


def no_chance() -> bytes:
    """Activities are folded here and never created, so none needs a seed."""
    raise AssertionError("an activity is created while a report is made")


def _write(path: Path, content: bytes) -> None:
    """Write a file; ClickException, in one line, where it cannot be."""
    try:
        if str(path) == "-":
            sys.stdout.buffer.write(content)
        else:
            path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
