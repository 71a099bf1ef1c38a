from __future__ import annotations

import getpass
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import trio
import trustme
from click.testing import CliRunner

from broker.cli.client import connected_client, development_token, run_command
from broker.cli.main import main
from protocol.clients import CertificateRefused, open_client


def test_the_development_identity_is_the_login_name_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    assert development_token(None, "viewer") == "dev:anna:viewer"
    assert development_token("bob", "host") == "dev:bob:host"
    assert development_token("bob:vip", "host") == "dev:bob:vip"


def test_a_login_without_a_name_has_a_development_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert development_token(None, "viewer") == "dev:unknown:viewer"


@pytest.mark.parametrize("user", ["bob:king", "", ":vip", "bob:"])
def test_an_invalid_identity_is_refused_before_it_is_sent(user: str) -> None:
    with pytest.raises(click.UsageError, match="USER:ROLE"):
        development_token(user, "viewer")


def test_expected_errors_are_unpacked_from_groups_and_others_are_not() -> None:
    async def fail() -> None:
        raise BaseExceptionGroup("a", [ExceptionGroup("b", [click.ClickException("no broker")])])

    async def fail_twice() -> None:
        raise ExceptionGroup("a", [click.ClickException("no"), ValueError("unexpected")])

    async def close_the_output() -> None:
        raise ExceptionGroup("a", [BrokenPipeError("one"), ExceptionGroup("b", [BrokenPipeError("two")])])

    with pytest.raises(click.ClickException, match="no broker"):
        run_command(fail)
    with pytest.raises(ExceptionGroup):
        run_command(fail_twice)
    with pytest.raises(BrokenPipeError, match="one"):
        run_command(close_the_output)


async def test_the_error_without_a_broker_says_how_to_start_one() -> None:
    with pytest.raises(click.ClickException, match=r"no broker at 127.0.0.1:1 .*roomcast serve"):
        async with connected_client("roomcast://127.0.0.1:1", None):
            pass


CERTIFICATES: dict[str, tuple[dict[str, Any], str]] = {
    "another authority": ({}, r"not accepted \(.*\); name the file of its authority: --ca FILE$"),
    "another name": (
        {"name": "other.example"},
        r"not accepted \(.*\); connect to a name that the certificate contains$",
    ),
    "expired": ({"not_after": datetime(2020, 1, 1, tzinfo=UTC)}, r"the certificate has to be renewed"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
@pytest.mark.parametrize("scheme", ["roomcasts", "wss"])
async def test_a_refused_certificate_is_one_line_with_the_way_out(case: str, scheme: str, tmp_path: Path) -> None:
    options, message = CERTIFICATES[case]
    authority = trustme.CA()
    certificate = authority.issue_cert(options.get("name", "localhost"), not_after=options.get("not_after"))
    trusted = trustme.CA() if case == "another authority" else authority
    ca = tmp_path / "ca.pem"
    trusted.cert_pem.write_to_path(ca)
    async with tls_port(certificate) as port:
        with pytest.raises(click.ClickException, match=message) as caught:
            async with connected_client(f"{scheme}://localhost:{port}", None, str(ca)):
                raise AssertionError("connected")
        assert "\n" not in caught.value.message
        assert f"the certificate of the broker at localhost:{port}" in caught.value.message
        with pytest.raises(CertificateRefused, match=f"^localhost:{port}: the certificate is not accepted: "):
            async with open_client(f"{scheme}://localhost:{port}", ca=ca):
                raise AssertionError("connected")


@asynccontextmanager
async def tls_port(certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """A port that makes TLS handshakes and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_an_invalid_address_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="'http' is not one of"):
        async with connected_client("http://127.0.0.1", None):
            pass


@pytest.mark.parametrize("command", [["say", "lobby", "hi"], ["tail", "lobby"]])
def test_a_token_on_a_command_line_is_refused_and_one_in_a_file_is_used(command: list[str], tmp_path: Path) -> None:
    def run(*options: str) -> str:
        result = CliRunner().invoke(main, [*command, "--url", "roomcast://127.0.0.1:1", *options], env={})
        assert result.exit_code in (1, 2)
        return " ".join(result.stderr.split())

    file = tmp_path / "token"
    file.write_text("\ufeffdev:ann:app\r\n", encoding="utf-8")
    assert "every user of this machine can see a token" in run("--token", "eyJhbGciOiJIUzI1NiJ9.e30.x")
    assert "either --token or --token-file" in run("--token", "dev:ann", "--token-file", str(file))
    assert "cannot read /no/such" in run("--token-file", "/no/such")
    assert "no broker at 127.0.0.1:1" in run("--token-file", str(file))
    assert "no broker at 127.0.0.1:1" in run("--token", "dev:ann:app")
