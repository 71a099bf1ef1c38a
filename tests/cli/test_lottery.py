"""``roomcast lottery verify``: the result in words, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main
from tests.support.lotteries import vectors

PROOFS: dict[str, dict[str, Any]] = {case["name"]: case for case in vectors("proofs")}


def run(path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["lottery", "verify", str(path), *options])


def saved(tmp_path: Path, proof: dict[str, Any]) -> Path:
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(proof), "utf-8")
    return path


@pytest.mark.parametrize("name", PROOFS)
def test_the_vectors(tmp_path: Path, name: str) -> None:
    case = PROOFS[name]
    options = [text for key, value in case.get("seen", {}).items() for text in (f"--{key}", value.upper())]
    result = run(saved(tmp_path, case["proof"]), *options)
    if case["verify"] == "OK":
        assert result.exit_code == 0
        assert result.output.startswith("OK\nbeacon: ")
        assert result.output.endswith(f"seen: {'yes' if options else 'no'}\n")
    else:
        assert result.exit_code == 1
        failure = result.output.partition(":")[0]
        # the vectors leave signatures unchecked
        assert failure == case["verify"] or (failure == "BAD_BEACON" and name == "tampered: beacon2")


def test_a_beacon_is_checked_where_that_can_be_done(tmp_path: Path) -> None:
    pytest.importorskip("py_ecc")
    case = PROOFS["seven entries, everybody wins"]
    assert run(saved(tmp_path, case["proof"])).output == "OK\nbeacon: checked\nseen: no\n"


@pytest.mark.parametrize("content", [None, b"", b"no json", b"\xff"])
def test_a_file_that_cannot_be_read_has_another_status(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "proof.json"
    if content is not None:
        path.write_bytes(content)
    result = run(path)
    assert result.exit_code == 2
    assert "cannot be read" in result.output


def test_what_a_client_kept_is_a_digest(tmp_path: Path) -> None:
    path = saved(tmp_path, PROOFS["two entries"]["proof"])
    assert run(path, "--root", "ab").exit_code == 2
    assert run(path, "--commitment", "00" * 32).exit_code == 1
