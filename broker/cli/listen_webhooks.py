"""``roomcast listen-webhooks``: a receiver that prints and verifies, for trying. Loopback only."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click

from protocol.text import plain

__all__ = ["listen_webhooks"]

MAX_BODY_BYTES = 512 * 1024
TIMEOUT_S = 10.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--port", default=7500, show_default=True, type=click.IntRange(0, 65_535), help="Port on 127.0.0.1.")
@click.option("--secret-file", required=True, help="File of the endpoint's secrets, as in its setting secret_file.")
@click.option("--status", default=204, show_default=True, type=click.IntRange(200, 599), help="Answer to each event.")
@click.option("--count", default=0, type=click.IntRange(0), help="End after so many verified events; 0 = never.")
def listen_webhooks(port: int, secret_file: str, status: int, count: int) -> None:
    """Receive webhooks on this machine, verify each and print it as one line of JSON.

    What is not signed by a secret of the file is answered 401 and reported on standard error.
    """
    from broker.config.files import FileError, read_text_of
    from broker.config.webhooks import webhook_key

    try:
        secrets = read_text_of(secret_file).split()
        for secret in secrets:
            webhook_key(secret)
    except FileError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.ClickException(f"{secret_file}: {error}") from error
    if not secrets:
        raise click.ClickException(f"{secret_file}: has no secret")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(secrets, status))
    except OSError as error:
        raise click.ClickException(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
    server.verified = 0  # type: ignore[attr-defined]  # counted by the handler
    click.echo(f"listening on http://127.0.0.1:{server.server_port}/", err=True)
    try:
        if count:
            while server.verified < count:  # type: ignore[attr-defined]
                server.handle_request()
        else:
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _handler(secrets: list[str], status: int) -> type[BaseHTTPRequestHandler]:
    from broker.webhooks.signing import SignatureError, verify

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_POST(self) -> None:
            """Verify one request and print it."""
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self._answer(413)
                return
            body = self.rfile.read(int(length))
            why = "there is no secret"
            for secret in secrets:
                try:
                    verify(secret, dict(self.headers), body, time.time())
                except (SignatureError, ValueError) as error:
                    why = str(error)
                else:
                    click.echo(plain(body.decode(errors="replace")))
                    self.server.verified += 1  # type: ignore[attr-defined]
                    self._answer(status)
                    return
            click.echo(f"refused: {why}", err=True)
            self._answer(401)

        def _answer(self, answer: int) -> None:
            self.send_response_only(answer)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

    return Handler
