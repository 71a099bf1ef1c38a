"""``roomcast token``: make a signed token, for tests and scripts."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import click

from broker.auth.grants import RoomGrant, parse_role
from broker.auth.tokens import Authenticator
from broker.cli.config import config_options, load_or_fail, secret_on_command_line
from broker.config.schema import Config, ConfigError, load
from protocol.codes import Role
from protocol.text import is_room_pattern, is_user_id

__all__ = ["duration_s", "room_entry", "token", "user_id"]

_ROLES = [role.name.lower() for role in Role]
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration_s(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``15m``, ``24h`` or ``7d``; click.BadParameter for anything else."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", text)
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"{text!r} is not a time such as 90s, 15m, 24h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def user_id(text: str) -> str:
    """Return a user id that a login may have; click.BadParameter for anything else."""
    if not is_user_id(text):
        raise click.BadParameter(
            f"user id is not 1 to 64 printable characters without white space at either end: {text!r}"
        )
    return text


def room_entry(text: str) -> tuple[str, Role | None]:
    """Split ``PATTERN`` or ``PATTERN:ROLE``; role None is the token's. click.BadParameter for anything else.

    Names of rooms may contain colons: what follows the last one is a role if a role has this name.
    """
    pattern, colon, last = text.rpartition(":")
    role = parse_role(last) if colon else None
    if role is None:
        near = difflib.get_close_matches(last, _ROLES, 1) if colon else []
        if near:
            wanted = f"did you mean {near[0]}? A room of this name is {text}:viewer"
            raise click.BadParameter(f"{last!r} is not a role; {wanted}")
        pattern = text
    if not is_room_pattern(pattern):
        raise click.BadParameter(f"{pattern!r} is neither a room's name nor a prefix and *")
    return pattern, role


def _refuse_secret(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise secret_on_command_line("--secret")


@click.command("token")
@config_options
@click.option("--user", required=True, type=user_id, metavar="USER", help="User id, up to 64 characters.")
@click.option("--name", default="", help="Name that others see; the user id if not given.")
@click.option("--role", type=click.Choice(_ROLES), default="viewer", show_default=True, help="Role in the rooms.")
@click.option(
    "--room",
    "rooms",
    multiple=True,
    type=room_entry,
    metavar="PATTERN[:ROLE]",
    help="A room, or a prefix and *; may be repeated. Every room if not given.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=duration_s,
    metavar="TIME",
    default="24h",
    show_default=True,
    help="How long the token is valid.",
)
@click.option("--tenant", default="", help="Tenant whose user this is. The default tenant if not given.")
@click.option("--tag", "tags", multiple=True, help="A tag of the user, see the guide to audiences; may be repeated.")
@click.option("--jti", default="", help="Id of the token, by which `users.revoke` revokes it alone.")
@click.option("--secret-file", help="File with the secret, instead of the configured one.")
@click.option("--secret", hidden=True, callback=_refuse_secret, expose_value=False)
def token(
    config_path: Path | None,
    settings: tuple[str, ...],
    user: str,
    name: str,
    role: str,
    rooms: tuple[tuple[str, Role | None], ...],
    ttl_s: float,
    tenant: str,
    tags: tuple[str, ...],
    jti: str,
    secret_file: str | None,
) -> None:
    """Print a token that a broker with the same secret accepts."""
    config = load_or_fail(config_path, settings)
    if secret_file is None and tenant:
        own = next((each for each in config.tenants if each.name == tenant), None)
        if own is None:
            raise click.BadParameter(f"no table [[tenants]] is called {tenant!r}", param_hint="--tenant")
        secret_file = own.secret_file
        if secret_file is None and own.has_own_keys:
            raise click.ClickException(f"tenant {tenant} has public keys alone: it signs its tokens itself")
    if secret_file is not None:
        config = _with_secret(config, secret_file)
    if config.development:
        raise click.ClickException(
            "a token needs the broker's secret: --secret-file, --config or ROOMCAST_AUTH__SECRET.\n"
            f"A broker in development mode has none and accepts this instead of a token: dev:{user}:{role}"
        )
    default = Role[role.upper()]
    entries = [RoomGrant(pattern, default if of is None else of) for pattern, of in rooms] or None
    try:
        click.echo(Authenticator(config.auth).issue(user, name, default, entries, ttl_s, tenant, tags, jti))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _with_secret(config: Config, secret_file: str) -> Config:
    """Return the settings that a token needs, with the secret of the flag in place of the configured one."""
    flags = {
        "auth.secret_file": secret_file,
        "auth.audience": config.auth.audience,
        "auth.issuer": config.auth.issuer,
    }
    try:
        return load(None, {}, flags)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
