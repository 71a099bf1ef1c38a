"""The receivers of the guide, as it has them: each takes what the broker signs and refuses what was changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from broker.config.webhooks import webhook_key
from broker.webhooks.events import unstored_event
from broker.webhooks.signing import sign
from protocol.webhook_events import WebhookTestData
from tests.support.processes import free_port
from tests.support.webhooks import SECRET, secret_file

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GUIDE = Path(__file__).parents[2] / "broker" / "guides" / "webhooks.md"
DEADLINE_S = 60
KEY = webhook_key(SECRET)


def program(language: str, port: int) -> str:
    """Return the guide's receiver in a language, on another port."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(found).replace("7500", str(port))


@contextmanager
def running(command: list[str], folder: Path, port: int, **more: str) -> Iterator[Path]:
    """Run a receiver until it listens; yield the file of its output."""
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **more}
        )
    try:
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < until, output.read_text()
                time.sleep(0.05)
        yield output
    finally:
        process.kill()
        process.wait()


def post(port: int, made: str, body: bytes, keys: tuple[bytes, ...] = (KEY,), age_s: int = 0) -> int:
    """Post a signed body; return the status."""
    headers = {"Content-Type": "application/json", **sign(keys, made, int(time.time()) - age_s, body)}
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}/hook", body, headers), timeout=10) as answer:
            status: int = answer.status
            return status
    except HTTPError as error:
        return error.code


def check(port: int, output: Path) -> None:
    """Check a running receiver."""
    made, body = unstored_event("webhook.test", WebhookTestData("欢迎"), 1_800_000_000_000)
    assert post(port, made, body) == 204
    assert post(port, made, body, (bytes(32), KEY)) == 204, "two secrets, during a rotation"
    assert post(port, made, body, (bytes(32),)) == 400
    assert post(port, made, body, age_s=3600) == 400, "a repetition"
    assert post(port, made, body.replace(b"test", b"fest")[:-1], (bytes(32),)) == 400
    until = time.monotonic() + 10
    while "webhook.test" not in output.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_receiver_in_python(tmp_path: Path) -> None:
    port = free_port()
    secret_file(tmp_path)
    (tmp_path / "receiver.py").write_text(program("python", port))
    with running([sys.executable, "receiver.py"], tmp_path, port) as output:
        check(port, output)


def test_the_receiver_in_node(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    packages = os.environ.get("NODE_PATH", "")
    if not (Path(packages) / "standardwebhooks").is_dir():
        pytest.skip("NODE_PATH names no folder with npm's standardwebhooks")
    port = free_port()
    secret_file(tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "receiver.mjs").write_text(program("js", port))
    with running([node, "receiver.mjs"], tmp_path, port) as output:
        check(port, output)


def test_the_receiver_in_go(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    port = free_port()
    secret_file(tmp_path)
    (tmp_path / "receiver.go").write_text(program("go", port))
    options = {"GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    built = subprocess.run(
        [go, "build", "-o", "receiver", "receiver.go"], cwd=tmp_path, env={**os.environ, **options},
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    with running(["./receiver"], tmp_path, port) as output:
        check(port, output)


def test_the_guide_names_every_event() -> None:
    from protocol.webhook_events import EVENTS

    text = GUIDE.read_text(encoding="utf-8")
    assert [row.type for row in EVENTS if f"`{row.type}`" not in text] == []
    (example,) = re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert set(json.loads(example)) == {"id", "offset", "type", "created_at_ms", "tenant", "room", "epoch", "data"}
