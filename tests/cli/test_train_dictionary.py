"""``roomcast train-dictionary``: from NDJSON to a file that a broker takes."""

from __future__ import annotations

import json
import random
from pathlib import Path

from click.testing import CliRunner, Result

from broker.cli.main import main
from broker.config.dictionaries import read_dictionary
from protocol.dictionaries import BUILT_IN
from tests.support.talk import talk


def trained(folder: Path, *options: str) -> Result:
    arguments = ["train-dictionary", str(folder / "chat.ndjson"), "--output", str(folder / "dictionary"), *options]
    return CliRunner().invoke(main, arguments)


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "chat.ndjson"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_texts_of_a_tail_become_a_dictionary_with_its_figures(tmp_path: Path) -> None:
    texts = talk(random.Random(1), 1200)
    lines = [json.dumps({"event": "danmaku", "text": text, "name": "茶友小方"}) for text in texts[:-1]]
    written(tmp_path, [*lines, "", json.dumps({"items": [{"payload": {"text": texts[-1]}}, 3, None]})])
    done = trained(tmp_path, "--kib", "24")
    assert done.exit_code == 0, done.output
    assert "plain" in done.output
    found = read_dictionary(str(tmp_path / "dictionary"))
    assert found is not None
    assert len(BUILT_IN.data) < len(found.data) <= 24 * 1024
    assert "普洱古树".encode() in found.data
    assert "茶友小方".encode() not in found.data


def test_what_is_no_export_or_too_little_of_one_is_refused(tmp_path: Path) -> None:
    for lines, reason in (
        (['{"text": "a"}', "{"], "line 2: is no JSON"),
        (["[" * 100_000], "line 1: is no JSON"),
        (['{"text": "多少钱"}'] * 999, "has 999 texts; fewer than 1000 say little"),
        (['{"text": "多少钱"}'] * 1000, "no piece stands in 10 texts"),
    ):
        written(tmp_path, lines)
        done = trained(tmp_path)
        assert done.exit_code == 1
        assert reason in done.output
        assert not (tmp_path / "dictionary").exists()
    (tmp_path / "chat.ndjson").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in trained(tmp_path).output
