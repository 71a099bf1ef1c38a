"""Dictionaries: their name, and what is refused of the text in which they are fetched and of their file."""

from __future__ import annotations

import base64
import hashlib
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dictionaries import (
    BUILT_IN,
    MAX_DICTIONARY_BYTES,
    MAX_TRANSFER_CHARS,
    Dictionary,
    from_file,
    from_text,
    to_file,
    to_text,
)
from protocol.dictionaries.built_in import built_in_bytes

contents = st.binary(min_size=1, max_size=300)
OTHER = "0" * 64


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def test_the_built_in_dictionary_is_made_anew_with_the_same_bytes() -> None:
    assert built_in_bytes() == BUILT_IN.data
    assert 16 * 1024 <= len(BUILT_IN.data) <= MAX_DICTIONARY_BYTES
    assert len(to_text(BUILT_IN)) < 20_000


@given(contents)
def test_a_dictionary_comes_back_from_its_text_and_its_file(data: bytes) -> None:
    dictionary = Dictionary(data)
    assert dictionary.name == hashlib.sha256(data).hexdigest()
    for found in (from_text(to_text(dictionary), dictionary.name), from_file(to_file(dictionary))):
        assert (found.data, found.name) == (data, dictionary.name)


@pytest.mark.parametrize("nbytes", [0, MAX_DICTIONARY_BYTES + 1])
def test_a_dictionary_has_a_byte_and_at_most_64_kib(nbytes: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 65536 bytes, not {nbytes}"):
        Dictionary(bytes(nbytes))


def test_the_largest_dictionary_of_text_fits_a_frame_and_one_of_noise_does_not() -> None:
    words = "".join(chr(0x4E00 + n * 7919 % 5000) for n in range(21_845)).encode()
    assert len(to_text(Dictionary(words + b"x"))) <= MAX_TRANSFER_CHARS
    noise = b"".join(hashlib.sha256(bytes([n, m])).digest() for n in range(8) for m in range(256))
    with pytest.raises(ValueError, match="at most 60000 fit a frame"):
        to_text(Dictionary(noise))
    with pytest.raises(ValueError, match="at most 60000 fit a frame"):
        from_file(to_file(Dictionary(noise)))


@given(contents, st.data())
def test_a_truncated_text_or_file_is_refused(data: bytes, draw: st.DataObject) -> None:
    dictionary = Dictionary(data)
    text, file = to_text(dictionary), to_file(dictionary)
    with pytest.raises(ValueError, match=r"truncated|no dictionary|1 to 65536"):
        from_text(text[: draw.draw(st.integers(0, len(text) - 5))], dictionary.name)
    with pytest.raises(ValueError, match=r"truncated|no dictionary|version|1 to 65536"):
        from_file(file[: draw.draw(st.integers(0, len(file) - 1))])


@given(st.text(max_size=40) | contents.map(packed))
def test_any_text_is_a_dictionary_of_that_name_or_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dictionary"):
        from_text(text, OTHER)


@given(contents)
def test_any_file_is_a_dictionary_or_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no dictionary"):
        from_file(content)


def test_a_text_that_decompresses_to_more_than_a_dictionary_costs_no_more_than_one() -> None:
    bomb = packed(bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="1 to 65536 bytes"):
        from_text(bomb, OTHER)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_DICTIONARY_BYTES + len(bomb)


def test_a_file_of_another_version_or_with_other_bytes_is_refused_with_the_reason() -> None:
    file = to_file(BUILT_IN)
    with pytest.raises(ValueError, match="of version 2; this broker reads version 1"):
        from_file(file.replace(b" 1 ", b" 2 ", 1))
    with pytest.raises(ValueError, match="truncated or changed"):
        from_file(file[:-1] + b"?")
