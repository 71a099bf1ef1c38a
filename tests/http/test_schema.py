"""schemathesis against the OpenAPI document: no 5xx, no status that is not documented, nothing wrong is accepted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from broker.core.limits.rate_limit import Rate
from broker.http import app
from protocol.operations import BY_NAME
from protocol.operations.rows import RateLimit
from tests.support.broker import running_broker

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEY = "rk_shop_" + "a" * 32
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "negative_data_rejection",
)  # fmt: skip
LEFT_OUT = "broker/(drain|reload)|^/stats|^/metrics"
"""They would end the test, or need a file of its own; streams have no end, and metrics are no JSON."""


@pytest.mark.timeout(3600)
async def test_the_document_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in list(BY_NAME.items()):
        monkeypatch.setitem(BY_NAME, name, row._replace(rate=RateLimit(10_000, 100_000)))
    # It waits as long as a 429 asks for, which would be a second for each request without a key.
    monkeypatch.setattr(app, "REFUSALS", Rate(10_000, 100_000))
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys.write_text(f'[[key]]\nid = "shop"\nsha256 = "{digest}"\nscopes = ["admin"]\n')
    keys.chmod(0o600)
    api = {"listen": "127.0.0.1:0", "key_file": str(keys), "requests_per_s": 10_000}
    auth = {"secret": "x" * 32}
    ledger = {"data_dir": str(tmp_path / "data")}
    async with running_broker(api=api, auth=auth, ledger=ledger) as broker:
        for room in ("live-1", "live-2"):
            await broker.call("rooms.open", room=room)
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{broker.api_urls[0]}/v1/openapi.json",
            "--header", f"Authorization: Bearer {KEY}", "--phases", "examples,coverage,fuzzing", "--max-examples", "5",
            "--checks", ",".join(CHECKS), "--exclude-path-regex", LEFT_OUT, "--generation-deterministic", "--no-color",
            "--request-timeout", "20", "--workers", "1",
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        done = await trio.run_process(
            command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment
        )
        output = done.stdout.decode()
        assert done.returncode == 0, output[-20_000:]
        assert "Test cases:" in output
        assert broker.operations.failed == 0
