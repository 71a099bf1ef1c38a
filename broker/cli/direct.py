"""``roomcast direct``: send each user of a list its own must-deliver message.

The whole list is read and checked before the first message is sent: an error in line 70,000 sends nothing. After that
every failure can be repaired by running the same command again, which sends what is missing: the batch has a name, and
the broker gives a user one message of a batch, ever. The client reconnects a broken link.

Exit status: 0 all messages are on the broker's disk (with ``--follow``: and have been acknowledged), 1 not all of them
are, or some expired or were cancelled, 2 the command line or the list is wrong and nothing was sent.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TextIO

import click
import trio

from broker.cli.client import client_options, connected_client, development_token, run_command
from broker.cli.token import duration_s
from broker.config.files import FileError, clean_text, read_text_of, text_of
from protocol.clients.calls import request_of
from protocol.clients.client import Client
from protocol.clients.events import BatchState, CallRefused, ClientClosed
from protocol.clients.exceptions import first_leaf
from protocol.codes import CUSTOM_TYPE_MAX, CUSTOM_TYPE_MIN, ErrorCode, MessageType
from protocol.direct_batches import TemplateError, fields_of, parts_of, payload_for
from protocol.errors import LocalProtocolError
from protocol.fields import FieldError
from protocol.operations.directs import DirectProgress
from protocol.text import is_user_id, plain

__all__ = ["Recipients", "direct", "read_values"]

USER = "user"
"""Column of CSV, or key of JSON, with the id of the recipient."""
MAX_USERS = 1_000_000
"""Most users of one list, which is kept in memory. Send a longer one in parts, under the same batch name."""
PART_USERS = 500
"""Users between two lines of progress."""
FOLLOW_S = 1.0
_BRACES = re.compile(r"\{[^{}]*\}")


class Recipients(NamedTuple):
    """Users of a list with their values, and the line of each."""

    values: dict[str, dict[str, str]]
    lines: dict[str, int]


def read_values(text: TextIO, name: str) -> Recipients:
    """Read CSV with a header line, or one JSON object a line; either names the user ``user``.

    White space around a user id is removed: no login can have it. ``name``: of the file, for error messages.
    click.UsageError, naming the line, for anything that is wrong.
    """
    found = Recipients({}, {})
    cleaned = clean_text(text.read())
    lines = io.StringIO(cleaned)
    rows = _json_rows(lines, name) if cleaned.startswith("{") else _csv_rows(lines, name)
    for line, row in rows:
        user = row.get(USER)
        if user is None:
            raise _line_error(name, line, f'no "{USER}"')
        user = user.strip()
        if not is_user_id(user):
            raise _line_error(name, line, "a user id has 1 to 64 printable characters")
        row = {**row, USER: user}
        if user in found.values:
            raise _line_error(name, line, f"user {user!r} is in line {found.lines[user]} already")
        if len(found.values) == MAX_USERS:
            raise _line_error(name, line, f"at most {MAX_USERS:,} users at a time: send it in parts, under one --batch")
        found.values[user], found.lines[user] = row, line
    if not found.values:
        raise click.UsageError(f"{name}: contains no user")
    return found


def _json_rows(text: TextIO, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    for line, row in enumerate(text, 1):
        if not row.strip():
            continue
        try:
            fields = json.loads(row)
        except ValueError as error:
            raise _line_error(name, line, f"not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise _line_error(name, line, "not a JSON object")
        for key, value in fields.items():
            if type(value) not in (str, int):
                raise _line_error(name, line, f"{plain(key)} is neither text nor a whole number")
        yield line, {key: str(value) for key, value in fields.items()}


def _csv_rows(text: TextIO, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    rows = csv.reader(text, strict=True)
    try:
        names = [each.strip() for each in next(rows, [])]
        if USER not in names:
            raise click.UsageError(f'{name}: the first line names no column "{USER}" (or it is not CSV)')
        if len(set(names)) != len(names):
            raise click.UsageError(f"{name}: the first line names a column twice")
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise _line_error(name, rows.line_num, f"{len(row)} fields, the first line has {len(names)}")
            yield rows.line_num, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise _line_error(name, rows.line_num, str(error)) from None


def _line_error(name: str, line: int, words: str) -> click.UsageError:
    return click.UsageError(f"{name}, line {line}: {words}; nothing was sent")


def direct_type(text: str) -> int:
    """Return the number of a type that may be sent to one user; click.BadParameter for anything else."""
    if text == "announcement":
        return int(MessageType.ANNOUNCEMENT)
    if text.isdecimal() and CUSTOM_TYPE_MIN <= int(text) <= CUSTOM_TYPE_MAX:
        return int(text)
    raise click.BadParameter(f"{text!r} is neither announcement nor {CUSTOM_TYPE_MIN} to {CUSTOM_TYPE_MAX}")


def batch_name(text: str) -> str:
    """Return a batch name of valid length; click.BadParameter for any other."""
    if not 1 <= len(text) <= 64:
        raise click.BadParameter(f"must be 1 to 64 characters, not {len(text)}")
    return text


def template_of(text: str, kind: int) -> Any:
    """Return the template payload of a type: the text, or the decoded JSON of a custom type's payload (hence Any).

    click.UsageError for an announcement with braces around what is not a name: on the wire they are plain text, so
    users would read "Your code is {code:>3}".
    """
    if kind == MessageType.ANNOUNCEMENT:
        for braces in _BRACES.findall(text):
            if not fields_of(braces):
                raise click.UsageError(
                    f"--template: {plain(braces)} is not a field: a name is letters of a-z, digits and _, up to 32, "
                    "and not a digit first; nothing was sent"
                )
        return (text,)
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_messages(
    recipients: Recipients, name: str, batch: str, kind: int, template: Any, expires_s: int | None
) -> None:
    """Check every user's message; click.UsageError for the first wrong one. Any: a template is a payload."""
    for user, own in recipients.values.items():
        try:
            payload_for(kind, template, own)
        except (TemplateError, FieldError) as error:
            raise _line_error(name, recipients.lines[user], str(error)) from None
    try:
        for part in parts_of(batch, kind, template, recipients.values, expires_s):
            request_of(part, {})
    except LocalProtocolError as error:
        raise click.UsageError(f"{name}: {error}; nothing was sent") from None


@click.command("direct")
@client_options
@click.option("--as", "user", metavar="USER", help="Identity in development mode; the login name if not given.")
@click.option(
    "--batch",
    required=True,
    type=batch_name,
    metavar="NAME",
    help="Name of the batch: a user gets one message of a batch, ever.",
)
@click.option("--template", "text", help="The message; {name} in it is replaced with the user's value of that name.")
@click.option(
    "--values", "path", metavar="FILE",
    help='CSV with a column "user", or one JSON object a line with a "user"; - reads standard input.',
)  # fmt: skip
@click.option(
    "--type", "kind", type=direct_type, default="announcement", show_default=True, metavar="TYPE",
    help="announcement, or the number of a custom type (the template is then the JSON of its payload).",
)  # fmt: skip
@click.option("--expires", "expires_s", type=duration_s, metavar="TIME", help="How long a message waits for its user.")
@click.option("--follow", is_flag=True, help="Wait until no message is pending.")
@click.option("--json", "as_object", is_flag=True, help="At the end, one JSON object on standard output.")
def direct(
    url: str,
    token: str | None,
    ca: str | None,
    user: str | None,
    batch: str,
    text: str | None,
    path: str | None,
    kind: int,
    expires_s: float | None,
    follow: bool,
    as_object: bool,
) -> None:
    """Send each user of FILE the message with the user's own values, and keep it until it arrives.

    A message stays on the broker's disk until its user acknowledges it (roomcast tail does) or it expires. Running the
    same command again is safe at any time: it sends what is missing. Without --template and --values the command only
    prints the counts of the batch. The token needs the role app.

    Exit status: 0 all messages are on the broker's disk (with --follow: and acknowledged), 1 not all are, or some
    expired or were cancelled, 2 the command line or FILE is wrong and nothing was sent.
    """
    if (text is None) is not (path is None):
        raise click.UsageError("--template and --values go together")
    if token is not None and user is not None:
        raise click.UsageError("--as is for development; a token contains the identity")
    expires_whole_s = None if expires_s is None else max(1, round(expires_s))
    values: dict[str, dict[str, str]] = {}
    template: Any = None
    if text is not None and path is not None:
        template = template_of(text, kind)
        recipients = _read(path)
        # Values that the template does not use are not sent to the broker.
        wanted = fields_of(template)
        values = {
            each: {name: value for name, value in own.items() if name in wanted}
            for each, own in recipients.values.items()
        }
        check_messages(Recipients(values, recipients.lines), _name_of(path), batch, kind, template, expires_whole_s)
    shown_token = development_token(user, "app") if token is None else token
    job = _BatchJob(batch, kind, template, values, expires_whole_s, follow)
    state = run_command(partial(_run, job, url, shown_token, ca))
    if as_object:
        click.echo(json.dumps({"batch": batch, "users": len(values), **_counts(state)}))
    else:
        click.echo(_summary(state, len(values)))
    if follow and (state.pending or state.expired or state.cancelled):
        raise SystemExit(1)


class _BatchJob(NamedTuple):
    batch: str
    kind: int
    template: Any
    values: Mapping[str, Mapping[str, str]]
    expires_s: int | None
    follow: bool


def _name_of(path: str) -> str:
    return "standard input" if path == "-" else path


def _read(path: str) -> Recipients:
    try:
        if path == "-":
            return read_values(io.StringIO(text_of(sys.stdin.buffer.read(), _name_of(path))), _name_of(path))
        return read_values(io.StringIO(read_text_of(path)), path)
    except FileError as error:
        raise click.UsageError(str(error)) from error


async def _run(job: _BatchJob, url: str, token: str, ca: str | None) -> BatchState:
    async with connected_client(url, token, ca) as (client, events):
        events.stop()  # direct messages to this user are not acknowledged here
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_report_link, client)
                state = await _send(job, client)
                nursery.cancel_scope.cancel()
            return state
        except* CallRefused as group:
            refused = first_leaf(group)
            raise click.ClickException(f"batch {job.batch}: {_reason(refused)}") from refused
        except* ClientClosed as group:
            closed = first_leaf(group)
            raise click.ClickException(f"the broker closed the link: {plain(closed.reason)}{_AGAIN}") from closed
        except* trio.TooSlowError:
            raise click.ClickException(f"no answer from the broker{_AGAIN}") from None


_AGAIN = "; some messages may be sent: run the same command again to send the rest"


def _reason(refused: CallRefused) -> str:
    if refused.code == ErrorCode.NOT_ALLOWED:
        return "the token does not have the role app (roomcast token --role app)"
    if refused.code == ErrorCode.NOT_KEPT:
        return "this broker has no ledger (--ephemeral), so it cannot guarantee delivery"
    return f"{plain(refused.message)}{_AGAIN}"


async def _send(job: _BatchJob, client: Client) -> BatchState:
    """Send the batch in parts, printing the progress; then poll its state, with ``follow`` until nothing is pending."""
    values = job.values
    users = list(values)
    sent = repeated = 0
    for start in range(0, len(users), PART_USERS):
        part = {user: values[user] for user in users[start : start + PART_USERS]}
        state = await client.send_direct(job.template, part, batch=job.batch, type=job.kind, expires_s=job.expires_s)
        sent, repeated = sent + state.sent, repeated + state.repeated
        click.echo(f"{sent + repeated:,} of {len(users):,} on the broker's disk ({repeated:,} before)", err=True)
    found = await client.batch_state(job.batch)
    printed = None
    while job.follow and found.pending:
        if found != printed:
            printed = found
            click.echo(_progress(found), err=True)
        await trio.sleep(FOLLOW_S)
        found = await client.batch_state(job.batch)
    if not users and not any(found[1:]):
        raise click.ClickException(f"the broker has no batch {plain(job.batch)}")
    return BatchState(job.batch, sent, repeated, *found[1:])


async def _report_link(client: Client) -> None:
    """Print when the link is lost and when it is established again."""
    was_connected = True
    while True:
        await trio.sleep(0.2)
        if client.is_connected is not was_connected:
            was_connected = client.is_connected
            click.echo("link established again" if was_connected else "link lost; trying again", err=True)


def _counts(state: BatchState) -> dict[str, int]:
    fields = ("sent", "repeated", "pending", "acked", "expired", "cancelled")
    return {field: getattr(state, field) for field in fields}


def _progress(state: BatchState | DirectProgress) -> str:
    cancelled = f", {state.cancelled:,} cancelled" if state.cancelled else ""
    return f"{state.pending:,} pending, {state.acked:,} acknowledged, {state.expired:,} expired{cancelled}"


def _summary(state: BatchState, users: int) -> str:
    done = f"{state.sent:,} sent, {state.repeated:,} before; " if users else ""
    return f"{plain(state.batch)}: {done}{_progress(state)}"
