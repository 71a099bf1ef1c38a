"""``roomcast listen-webhooks``: what it cannot start with is one line. `tests.e2e.test_webhooks` has it receive."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main

SECRET = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["listen-webhooks", *map(str, arguments)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no secret"),
        ("hello", "begins with whsec_"),
        ("whsec_!", "base64"),
        (f"{SECRET}\nwhsec_AAAA", "24 to 64 bytes"),
        (None, "cannot read"),
    ],
)
def test_a_file_without_a_secret_is_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "hook.secret"
    if content is not None:
        file.write_text(content)
    result = run("--port", 0, "--secret-file", file)
    assert result.exit_code == 1
    assert "hook.secret" in result.output
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "hook.secret"
    file.write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("--port", taken.getsockname()[1], "--secret-file", file)
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1)
    assert "cannot listen on 127.0.0.1:" in result.output
