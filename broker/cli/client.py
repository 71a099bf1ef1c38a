"""Common part of the commands that connect to a broker: address, identity, and errors in one line.

A person at a terminal started the command. So the first connection decides: when it fails, the command ends with one
sentence that says why and what to do, instead of trying again for ever. Only a link that was established once is
reconnected.

Text from the wire was written by other people: `plain` removes what would move the cursor, break the line or reverse
the text.
"""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import trio
from click.core import ParameterSource

from broker.auth.grants import DEV_PREFIX, parse_role
from broker.config.files import FileError, read_text_of
from protocol.clients.client import Client
from protocol.clients.connect import open_client
from protocol.clients.directs import ClientEvents
from protocol.clients.events import ClientClosed, Connected, Disconnected, RoomRefused
from protocol.clients.exceptions import first_leaf
from protocol.clients.room import JoinedRoom
from protocol.clients.transports import Address, tls_context
from protocol.codes import CloseCode, ErrorCode, Role, Tier
from protocol.errors import LocalProtocolError
from protocol.text import is_user_id, plain

__all__ = ["DEFAULT_URL", "client_options", "connected_client", "development_token", "join_room", "run_command"]

F = TypeVar("F", bound=Callable[..., Any])  # Any: click commands have every signature.

DEFAULT_URL = "roomcast://127.0.0.1:7400"
_ROLES = ", ".join(role.name.lower() for role in Role)


def client_options(command: F) -> F:
    """Add ``--url``, ``--token``, ``--token-file`` (or ROOMCAST_TOKEN) and ``--ca``.

    A command line, which every user of the machine can see, holds no token but one of development
    mode, which is no secret.
    """
    command = click.option(
        "--ca", metavar="FILE", help="PEM file of the authority that signed the broker's certificate (TLS)."
    )(command)
    command = click.option(
        "--token",
        envvar="ROOMCAST_TOKEN",
        callback=_token,
        help="Token of development mode, dev:USER:ROLE; others in ROOMCAST_TOKEN or --token-file.",
    )(command)
    command = click.option(
        "--token-file",
        metavar="FILE",
        is_eager=True,  # `_token` reads it
        expose_value=False,
        callback=_token_file,
        help="File with the token; `roomcast token` makes one.",
    )(command)
    return click.option(
        "--url",
        default=DEFAULT_URL,
        show_default=True,
        metavar="URL",
        help="roomcast://, roomcasts://, ws:// or wss://.",
    )(command)


_TOKEN_FILE = "roomcast.token_file"


def _token_file(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    """Read the file of ``--token-file`` into the context."""
    if name is None:
        return
    try:
        context.meta[_TOKEN_FILE] = read_text_of(name).strip()
    except FileError as error:
        raise click.BadParameter(str(error)) from error


def _token(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the token of ``--token-file``, of ``--token`` or of the environment."""
    is_given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    from_file: str | None = context.meta.get(_TOKEN_FILE)
    if from_file is not None:
        if is_given:
            raise click.UsageError("give either --token or --token-file, not both")
        return from_file
    if value is None:
        return None
    token = value.strip()  # a file of it may end with CR LF
    if is_given and not token.startswith(DEV_PREFIX):
        raise click.UsageError(
            "--token: every user of this machine can see a token on a command line. Name its file (--token-file FILE)"
            " or set ROOMCAST_TOKEN"
        )
    return token


def development_token(user: str | None, default_role: str) -> str:
    """Return the development token ``dev:USER:ROLE``; ``user`` may be USER or USER:ROLE, None is the login name.

    click.UsageError for an unknown role.
    """
    if user is None:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container whose user has no name
            user = "unknown"
    name, colon, role = user.partition(":")
    if not is_user_id(name) or (colon and parse_role(role) is None):
        raise click.UsageError(f"--as takes USER or USER:ROLE with a user id and a role of {_ROLES}")
    return f"{DEV_PREFIX}{name}:{role or default_role}"


def run_command(main: Callable[[], Any]) -> Any:
    """Run ``main`` with Trio; a group of only click errors and closed outputs becomes its first one, for click."""
    # Any: whatever ``main`` returns.
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        expected, others = group.split((click.ClickException, BrokenPipeError))
        if expected is None or others is not None:
            raise
        raise first_leaf(expected) from None


@asynccontextmanager
async def connected_client(
    url: str, token: str | None, ca: str | None = None
) -> AsyncIterator[tuple[Client, ClientEvents]]:
    """Context of a connected client and its later events; ClickException, in one line, if it cannot connect.

    ``ca``: PEM file of the authority that signed the broker's certificate; None uses the system's authorities.
    """
    try:
        address = Address.parse(url)
    except ValueError as error:
        raise click.UsageError(f"--url {url}: {error}") from error
    if ca is not None:
        try:
            tls_context(ca)
        except ValueError as error:
            raise click.UsageError(f"--ca {error}") from error
    try:
        async with open_client(url, token, ca=ca, open_timeout_s=0) as client:
            events = client.events()
            await _first_link(client, events, address, token)
            yield client, events
    except LocalProtocolError as error:  # a token or a text against the rules of the wire
        raise click.ClickException(str(error)) from error


async def _first_link(client: Client, events: ClientEvents, address: Address, token: str | None) -> None:
    async for event in events:
        if isinstance(event, Connected):
            return
        if isinstance(event, Disconnected) and event.certificate:
            raise click.ClickException(_untrusted(address, event.certificate))
        if isinstance(event, Disconnected):
            raise click.ClickException(_no_link(address, token, event.code, event.reason))
    closed = client.closed
    raise click.ClickException(
        _no_link(address, token, closed.code if closed else None, closed.reason if closed else "the link was closed")
    )


def _untrusted(address: Address, why: str) -> str:
    """Describe a certificate that is not accepted, and the remedy."""
    if "mismatch" in why:
        remedy = "connect to a name that the certificate contains"
    elif "expired" in why or "not yet valid" in why:
        remedy = "the certificate has to be renewed (or the clock of this machine set)"
    else:
        remedy = "name the file of its authority: --ca FILE"
    return f"the certificate of the broker at {address.host_and_port} is not accepted ({plain(why)}); {remedy}"


def _no_link(address: Address, token: str | None, code: int | None, reason: str) -> str:
    where = address.host_and_port
    if code == CloseCode.AUTH_FAILED:
        if token is None:
            return f"the broker at {where} admits no guests and needs a token: --token-file or ROOMCAST_TOKEN"
        if token.startswith(DEV_PREFIX):
            role = token.removeprefix(DEV_PREFIX).partition(":")[2]
            if role and parse_role(role) is None:
                return f"--token {plain(token)}: there is no role {plain(role)}; there are {_ROLES}"
            return f"the broker at {where} is not in development mode and wants a token: --token-file or ROOMCAST_TOKEN"
        return f"the broker at {where} does not take this token (expired, or not signed for it); its log says why"
    if code == CloseCode.TOKEN_EXPIRED:
        return f"the token has expired; the broker at {where} wants a new one"
    if code == CloseCode.TOKEN_REVOKED:
        return f"the token was revoked; the broker at {where} wants a new one"
    if code is not None:
        return f"the broker at {where} closed the link: {_code_name(code)}, {plain(reason)}"
    if "refused" in reason.lower() or "all attempts to connect" in reason.lower():
        return f"no broker at {where} (connection refused); start one with: roomcast serve"
    return f"no link to a broker at {where}: {plain(reason)}; start one with: roomcast serve"


def _code_name(code: int) -> str:
    return CloseCode(code).name.lower().replace("_", " ") if code in _CLOSE_CODES else str(code)


_CLOSE_CODES = frozenset(int(code) for code in CloseCode)
_REFUSALS = {
    ErrorCode.ROOM_NOT_GRANTED: "the token does not grant it",
    ErrorCode.BANNED: "you are banned from it",
    ErrorCode.UNKNOWN_ROOM: "there is no such room, and this broker does not open rooms on a join",
    ErrorCode.ROOM_FULL: "it is full",
    ErrorCode.RATE_LIMITED: "too many joins; wait some seconds",
    ErrorCode.TOO_MANY_ROOMS_OPEN: "the broker has as many rooms as it may",
    ErrorCode.OVERLOADED: "the broker is overloaded; try again soon",
}


async def join_room(client: Client, room_name: str, tier: Tier = Tier.FULL) -> JoinedRoom:
    """Join a room; ClickException, in one line, if the broker refuses."""
    try:
        return await client.join(room_name, tier)
    except LocalProtocolError as error:
        raise click.UsageError(f"ROOM {str(error).rpartition('room_name: ')[2].rpartition('room_name ')[2]}") from error
    except RoomRefused as refused:
        code = next((each for each in ErrorCode if each == refused.code), None)
        why = _REFUSALS.get(code, "") if code is not None else ""
        if code is ErrorCode.OVERLOADED and refused.message:
            why = f"{plain(refused.message)}; try again soon"
        raise click.ClickException(f"room {room_name}: {why or plain(refused.message)}") from refused
    except ClientClosed as closed:
        raise click.ClickException(f"the broker closed the link: {plain(closed.reason)}") from closed
    except trio.TooSlowError:
        raise click.ClickException(f"room {room_name}: no answer from the broker") from None
