"""`roomcast call list`, which needs no broker, and the texts of refusals."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from broker.cli.call import call
from protocol.operations import OPERATIONS


def listing(*names: str) -> str:
    result = CliRunner().invoke(call, ["list", *names])
    assert result.exit_code == 0, result.output
    return result.output


def test_list_has_one_line_an_operation() -> None:
    assert [line.split()[0] for line in listing().splitlines()] == [row.name for row in OPERATIONS]


def test_list_of_a_subject_has_its_operations_alone() -> None:
    names = [line for line in listing("keys").splitlines() if not line.startswith(" ")]
    assert names == [row.name for row in OPERATIONS if row.subject == "keys"]


def test_list_of_one_operation_explains_its_fields_and_has_an_example() -> None:
    text = listing("users.kick")
    assert "ban_s" in text
    assert 'scope users:write, example {"room": ' in text


@pytest.mark.parametrize("name", ["keyz", "keys.sett"])
def test_list_of_what_is_unknown_is_a_wrong_command_line(name: str) -> None:
    result = CliRunner().invoke(call, ["list", name])
    assert result.exit_code == 2
    assert f"'{name}' is no operation and no subject of some" in result.output


@pytest.mark.parametrize(
    "url", ["127.0.0.1:7401", "ftp://a", "http://127.0.0.1:port", "http://127.0.0.1:99999", "http://[::1"]
)
def test_what_is_no_url_is_a_wrong_command_line(url: str) -> None:
    result = CliRunner().invoke(call, ["rooms.list", "--url", url])
    assert result.exit_code == 2
    assert f"'{url}' is not http://HOST:PORT" in result.output


def test_a_file_without_a_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[[key]]\nid = "shop"\n')
    result = CliRunner().invoke(call, ["rooms.list", "--key-file", str(file)])
    assert result.exit_code == 1
    assert f"Error: {file} has no key" in result.output


def test_an_idempotency_key_that_no_header_holds_is_a_wrong_command_line() -> None:
    result = CliRunner().invoke(call, ["rooms.list", "--idempotency-key", "order\n1"])
    assert result.exit_code == 2
    assert "must be visible ASCII characters" in result.output


class Refusing(BaseHTTPRequestHandler):
    """Refuses for now twice, then answers."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        is_refused = len(self.asked) < 3
        self.send_response(503 if is_refused else 200)
        self.end_headers()
        refusal = {"code": "OVERLOADED", "rule": "the room has no owner now", "retry_after_ms": 10}
        self.wfile.write(json.dumps(refusal if is_refused else {"ok": 1}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_what_is_refused_for_now_is_asked_again_as_long_as_is_said() -> None:
    Refusing.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            refused = CliRunner().invoke(call, ["rooms.open", "room=lobby", "--url", url])
            assert refused.exit_code == 1
            assert "try again in 0.01 s" in refused.output
            done = CliRunner().invoke(call, ["rooms.open", "room=lobby", "--url", url, "--wait", "600"])
            assert json.loads(done.output) == {"ok": 1}
            assert len(Refusing.asked) == 3
        finally:
            server.shutdown()
            thread.join()


def test_a_broker_that_does_not_listen_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SocketServer(HTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

    path, begun = str(tmp_path / "api"), list[tuple[HTTPServer, threading.Thread]]()

    def begin(seconds: float) -> None:
        if not begun:
            server = SocketServer(path, Refusing)  # type: ignore[arg-type]
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            begun.append((server, thread))

    Refusing.asked[:] = ["", ""]  # the next is answered
    monkeypatch.setattr(time, "sleep", begin)
    refused = CliRunner().invoke(call, ["rooms.open", "room=lobby", "--url", f"unix:{path}"])
    assert (refused.exit_code, begun) == (1, [])
    assert "no answer from" in refused.output
    done = CliRunner().invoke(call, ["rooms.open", "room=lobby", "--url", f"unix:{path}", "--wait", "600"])
    for server, thread in begun:
        server.shutdown()
        thread.join()
        server.server_close()
    assert json.loads(done.output) == {"ok": 1}
