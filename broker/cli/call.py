"""``roomcast call``: one operation of the control API from the command line."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any
from urllib.parse import urlsplit

import click

from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS

__all__ = ["ask", "call", "key_option", "url_option"]

TIMEOUT_S = 30.0
LISTENING_PAUSE_S = 0.2
"""Time between two attempts at a broker that does not listen yet."""


class NotListening(click.ClickException):
    """Nothing listens there, so that nothing was sent."""


url_option = click.option(
    "--url", default="http://127.0.0.1:7401", show_default=True, help="Control API; unix:PATH for a socket."
)
key_option = click.option(
    "--key-file",
    help="File with the key, or ID:SECRET of one that signs requests; else the environment variable ROOMCAST_API_KEY.",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@url_option
@key_option
@click.option("--idempotency-key", default="", help="Makes asking again harmless, where the operation takes one.")
@click.option("--dry-run", is_flag=True, help="Have the call judged, and not done.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=0.0,
    help="Ask again for so long while the broker can do nothing now: it starts, a room changes its owner.",
)
def call(
    name: str,
    fields: tuple[str, ...],
    url: str,
    key_file: str | None,
    idempotency_key: str,
    dry_run: bool,
    wait: float,
) -> None:
    """Call the operation NAME, such as rooms.open, and print its result as JSON.

    A VALUE is JSON where it is some, else text: room=live-1 limit=10 payload='["hi"]'. `call list` prints all
    operations, `call list keys` those of a subject and `call list keys.set` one, with fields and an example.
    """
    if name == "list":
        click.echo("\n".join(_listing(fields)))
        return
    if name not in BY_NAME:
        raise click.BadParameter(f"{name!r} is no operation; `roomcast call list` prints them", param_hint="NAME")
    arguments: dict[str, Any] = {}
    for field in fields:
        key, separator, value = field.partition("=")
        if not separator:
            raise click.BadParameter(f"{field!r} is not FIELD=VALUE", param_hint="FIELD=VALUE")
        arguments[key] = _value(value)
    answer = ask(url, key_file, name, arguments, idempotency_key=idempotency_key, dry_run=dry_run, wait_s=wait)
    click.echo(json.dumps(answer, ensure_ascii=False, indent=2))


def ask(
    url: str,
    key_file: str | None,
    name: str,
    arguments: dict[str, Any],
    *,
    idempotency_key: str = "",
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> dict[str, Any]:
    """Call an operation and return its result; ClickException where it is refused. Any: JSON.

    ``wait_s``: how long it is asked again while nothing listens, or it is refused for now (503 with a time): nothing
    was done then.
    """
    subject, _, verb = name.partition(".")
    target, content = f"/v1/{subject}/{verb}{'?dry_run=1' if dry_run else ''}", json.dumps(arguments).encode()
    until = time.monotonic() + wait_s
    while True:
        headers = _headers(key_file, idempotency_key, target, content)
        try:
            status, body = _post(url, target, content, headers)
        except NotListening:
            if time.monotonic() + LISTENING_PAUSE_S > until:
                raise
            time.sleep(LISTENING_PAUSE_S)
            continue
        try:
            answer = json.loads(body)
        except ValueError:
            raise click.ClickException(f"{url} answered {status} and no JSON: is it a control API?") from None
        pause_s = (answer.get("retry_after_ms") or 0) / 1000
        if status != 503 or not pause_s or time.monotonic() + pause_s > until:
            break
        time.sleep(pause_s)
    if status != 200:
        where = f"{answer['field']}: " if answer.get("field") else ""
        wait = f"; try again in {answer['retry_after_ms'] / 1000:g} s" if answer.get("retry_after_ms") else ""
        keyless = status == 401 and not {"Authorization", "Signature"} & headers.keys()
        rule = "this broker wants a key: --key-file or ROOMCAST_API_KEY" if keyless else f"{where}{answer.get('rule')}"
        raise click.ClickException(f"{answer.get('code')} ({status}): {rule}{wait}")
    result: dict[str, Any] = answer
    return result


def _listing(subjects: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of `call list`: all operations, or those that are named or whose subject is."""
    for row in OPERATIONS:
        if not subjects:
            yield f"{row.name:24} {' '.join(row.request._fields):40} {row.summary}"
        elif row.name in subjects or row.subject in subjects:
            example = json.dumps(as_json(row.example[0]), ensure_ascii=False)
            yield from (row.name, *(f"  {line}" for line in cleandoc(row.request.__doc__ or "").splitlines()))
            yield f"  scope {row.scope}, example {example}" if row.scope else f"  example {example}"
    unknown = [each for each in subjects if all(each not in (row.name, row.subject) for row in OPERATIONS)]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is no operation and no subject of some", param_hint="NAME")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _headers(key_file: str | None, idempotency_key: str, target: str, content: bytes) -> dict[str, str]:
    from broker.config.files import FileError, read_text_of

    headers = {"Content-Type": "application/json"}
    try:
        key = os.environ.get("ROOMCAST_API_KEY", "") if key_file is None else read_text_of(key_file).strip()
    except FileError as error:
        raise click.ClickException(str(error)) from error
    if not _is_header_value(key):
        where = "ROOMCAST_API_KEY" if key_file is None else key_file
        raise click.ClickException(f"{where} has no key: a key is one word, as `roomcast key create` prints it")
    if not _is_header_value(idempotency_key):
        raise click.BadParameter("must be visible ASCII characters", param_hint="--idempotency-key")
    if ":" in key:
        from protocol.backend.signing import RequestSigner  # it brings httpx

        try:
            headers |= RequestSigner(key).headers("POST", target, content)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    return headers


def _is_header_value(text: str) -> bool:
    return all("!" <= each <= "~" for each in text)


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _post(url: str, target: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send one request; ClickException where there is no answer."""
    if url.startswith("unix:"):
        connection: http.client.HTTPConnection = _SocketConnection(url.removeprefix("unix:"))
    else:
        try:
            parts, port = urlsplit(url), urlsplit(url).port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise click.BadParameter(
                f"{url!r} is not http://HOST:PORT, https://HOST:PORT or unix:PATH", param_hint="--url"
            )
        kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
        connection = kind(parts.hostname, port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", target, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise NotListening(f"no answer from {url}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"no answer from {url}: {error}") from error
    finally:
        connection.close()
