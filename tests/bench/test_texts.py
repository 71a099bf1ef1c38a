from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.texts import PHRASES, REPEATED_PHRASES, Stamp, base36, load_corpus, read_stamp, stamped
from protocol.payloads import MAX_DANMAKU_CHARS

DAY_US = 86_400_000_000


@given(st.text(max_size=200), st.integers(0, 99_999), st.integers(0, 10**8), st.integers(0, DAY_US))
def test_a_stamp_survives_any_text_and_fits_a_danmaku(text: str, room: int, number: int, due_us: int) -> None:
    made = stamped(text, room, number, due_us)
    assert read_stamp(made) == Stamp(room, number, due_us)
    assert len(made) <= MAX_DANMAKU_CHARS


@given(st.integers(0, 2**64))
def test_base36_is_what_int_reads(number: int) -> None:
    assert int(base36(number), 36) == number


def test_repeated_phrases_have_no_stamp_and_all_texts_are_printable() -> None:
    assert all(read_stamp(text) is None for text in (*REPEATED_PHRASES, *PHRASES))
    assert all(text.isprintable() for text in (*REPEATED_PHRASES, *PHRASES))


def test_a_corpus_is_one_danmaku_a_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("first\n\n  弹幕  \n" + "x" * 300 + "\n", encoding="utf-8")
    first, second, third = load_corpus(path)
    assert (first, second) == ("first", "弹幕")
    assert len(third) < MAX_DANMAKU_CHARS
    path.write_text("\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="none of its lines"):
        load_corpus(path)
