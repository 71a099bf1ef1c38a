"""``roomcast key``: keys of backends for the control API."""

from __future__ import annotations

import click

from broker.auth.api_key_file import add_key, made_key, remove_key
from broker.auth.api_keys import KeyFileError, parse_keys
from broker.config.files import FileError, read_text_of, user_path
from protocol.operations import Scope
from protocol.text import is_room_pattern

__all__ = ["key"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def key() -> None:
    """Make, list and remove the keys with which backends call the control API."""


@key.command(short_help="Add a key to the key file, and print it.")
@click.argument("id")
@click.option("--file", "file", required=True, help="Key file (api.key_file); made if it is not there.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice([scope.value for scope in Scope]), required=True,
    help="What the key may do; may be repeated.",
)  # fmt: skip
@click.option("--room", "rooms", multiple=True, help="Room, or a prefix and *; may be repeated. All if not given.")
@click.option("--tenant", default="", help="Tenant whose rooms and users it is for. The default tenant if not given.")
@click.option("--signing", is_flag=True, help="A secret for HTTP Message Signatures in place of a Bearer key.")
@click.option("--note", default="", help="What it is for.")
def create(
    id: str, file: str, scopes: tuple[str, ...], rooms: tuple[str, ...], tenant: str, signing: bool, note: str
) -> None:
    """Add a key called ID to the key file, and print it: it is shown once, the file has only its SHA-256.

    With --signing it is a secret in base64url that never goes over the wire; the file has it, as the broker needs it.

    A running broker takes it over at SIGHUP, or `roomcast call broker.reload`.
    """
    path = user_path(file)
    for room in rooms:
        if not is_room_pattern(room):
            raise click.BadParameter(f"{room!r} is no room, or the beginning of one and *", param_hint="--room")
    try:
        made, shown = made_key(id, frozenset(map(Scope, scopes)), rooms or ("*",), tenant, note, 0, signing)
        add_key(path, made)
    except (FileError, KeyFileError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or path}: {error.strerror}") from error
    click.echo(shown)


@key.command("list")
@click.option("--file", "file", required=True, help="Key file (api.key_file).")
def list_(file: str) -> None:
    """Print the keys of a key file: id, scopes, rooms, tenant and note."""
    path = user_path(file)
    try:
        found = parse_keys(read_text_of(path), str(path))
    except (FileError, KeyFileError) as error:
        raise click.ClickException(str(error)) from error
    for each in found.values():
        tenant = f"tenant={each.tenant} " if each.tenant else ""
        click.echo(f"{each.id} {','.join(sorted(each.scopes))} {','.join(each.rooms)} {tenant}{each.note}".rstrip())


@key.command()
@click.argument("id")
@click.option("--file", "file", required=True, help="Key file (api.key_file).")
def remove(id: str, file: str) -> None:
    """Remove the key called ID from the key file: the end of a rotation.

    A running broker takes it over at SIGHUP, or by broker.reload.
    """
    path = user_path(file)
    try:
        remove_key(path, id)
    except (FileError, KeyFileError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or path}: {error.strerror}") from error
