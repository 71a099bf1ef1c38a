"""``roomcast audit``: verify and export what staff and backends have changed, and print the chain's head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from broker.cli.ledger import copy_option, data_options, entries_of, entries_options, keys_of, opened
from broker.ledger.audits import AuditEntry, AuditFilter, audit_of
from broker.ledger.entries import AUDITED

__all__ = ["audit"]

_HASH_CHARS = 64


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Read the audit: who has changed what, in the hash chain of the ledger.

    Works beside a running broker and changes nothing.
    """


def anchor_of(text: str) -> tuple[int, str]:
    """Return number and hash of ``NUMBER:HASH``; click.BadParameter for anything else."""
    number, _, hashed = text.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) < 19 and len(hashed) == _HASH_CHARS):
        raise click.BadParameter(f"{text!r} is not NUMBER:HASH, as `roomcast audit head` prints it")
    return int(number), hashed.lower()


@audit.command(short_help="Check the chain, and that it holds anchors.")
@data_options
@copy_option
@click.option(
    "--anchor", "anchors", multiple=True, type=anchor_of, metavar="NUMBER:HASH",
    help="A head of the chain that was kept elsewhere; may be repeated.",
)  # fmt: skip
def verify(
    config_path: Path | None,
    settings: tuple[str, ...],
    data_dir: Path | None,
    copy: Path | None,
    anchors: tuple[tuple[int, str], ...],
) -> None:
    """Check every row and the whole hash chain, as `ledger verify` does, and that the chain goes through each --anchor.

    Without an anchor from elsewhere, a ledger that was rewritten as a whole verifies too.
    """
    with opened(config_path, settings, data_dir, copy) as reader:
        reader.verify_all()
        head, first = reader.ends()
        for number, hashed in anchors:
            row = reader.connection.execute("SELECT hash FROM entries WHERE seq = ?", (number,)).fetchone()
            if row is None and number == first[0]:
                row = (first[1],)
            if row is None and number < first[0]:
                raise click.ClickException(f"entry {number} is older than what the ledger keeps (from {first[0] + 1})")
            if row is None:
                raise click.ClickException(f"the chain ends at entry {head.seq}, before the anchor {number}")
            if row[0].hex() != hashed:
                raise click.ClickException(f"entry {number} has the hash {row[0].hex()}: this is another chain")
        (count,) = reader.connection.execute(f"SELECT count(*) FROM entries WHERE kind = {AUDITED}").fetchone()
    click.echo(f"ok: {reader.path}: the hash chain holds to entry {head.seq}; {count:,} entries of the audit")
    if anchors:
        click.echo(f"ok: the chain goes through {len(anchors)} anchors")


@audit.command(short_help="Print the head of the chain, to be kept elsewhere.")
@data_options
@copy_option
def head(config_path: Path | None, settings: tuple[str, ...], data_dir: Path | None, copy: Path | None) -> None:
    """Print NUMBER:HASH of the last entry of the chain, an anchor for `audit verify`."""
    with opened(config_path, settings, data_dir, copy) as reader:
        last, _ = reader.ends()
    click.echo(f"{last.seq}:{last.hash.hex()}")


@audit.command(short_help="Write the entries of the audit as NDJSON.")
@entries_options
@click.option("--actor", help="Only what this key or user has done, or what was done on its behalf.")
@click.option("--subject", help="Only what was done about this user.")
@click.option("--operation", help="Only this operation.")
def export(
    config_path: Path | None,
    settings: tuple[str, ...],
    data_dir: Path | None,
    copy: Path | None,
    key_file: Path | None,
    tenant: str | None,
    room: str | None,
    actor: str | None,
    subject: str | None,
    operation: str | None,
    after: int,
    output: Any,
) -> None:
    """Write the entries of the audit as NDJSON, the oldest first; the chain is checked on the way.

    Where no entry matches, standard error says so.
    """
    # Any: click's file object.
    if room is not None and tenant is None:
        tenant = ""
    selection = AuditFilter(tenant, actor, subject, operation, room)
    keys = keys_of(config_path, settings, key_file, is_configured=data_dir is None and copy is None)
    count = 0
    with opened(config_path, settings, data_dir, copy, keys) as reader:
        for stored in entries_of(reader, after):
            entry = audit_of(stored)
            if entry is not None and selection.selects(entry):
                output.write(json.dumps(_line(stored.seq, stored.at_ms, entry), ensure_ascii=False) + "\n")
                count += 1
    if not count:
        click.echo("no entry of the audit matches", err=True)


def _line(number: int, at_ms: int, entry: AuditEntry) -> dict[str, Any]:
    return {"entry": number, "at_ms": at_ms, **entry._asdict()}
