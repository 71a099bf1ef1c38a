"""The two forms of a dictionary outside of memory: the text in which a client fetches it, and the file."""

from __future__ import annotations

import binascii
import zlib

from .dictionary import MAX_DICTIONARY_BYTES, Dictionary

__all__ = ["MAX_TRANSFER_CHARS", "from_file", "from_text", "to_file", "to_text"]

MAX_TRANSFER_CHARS = 60_000
"""Longest text of a dictionary: it has to fit one frame."""

_MAGIC = "roomcast-dictionary"
_VERSION = "1"
_MAX_HEAD_BYTES = 128


def to_text(dictionary: Dictionary) -> str:
    """Return a dictionary as text: base64 of its bytes in zlib's format. ValueError if that is too long."""
    text = binascii.b2a_base64(zlib.compress(dictionary.data, 9), newline=False).decode()
    if len(text) > MAX_TRANSFER_CHARS:
        rule = f"compresses to {len(text)} characters of base64, at most {MAX_TRANSFER_CHARS} fit a frame"
        raise ValueError(f"the dictionary {rule}")
    return text


def from_text(text: str, name: str) -> Dictionary:
    """Return the dictionary with the SHA-256 ``name``. At most MAX_DICTIONARY_BYTES are decompressed.

    ValueError for a text that is none, is not whole, has more bytes, or whose bytes have another SHA-256.
    """
    inflater = zlib.decompressobj()
    try:
        packed = binascii.a2b_base64(text, strict_mode=True)
        data = inflater.decompress(packed, MAX_DICTIONARY_BYTES + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ValueError("the text is no dictionary") from error
    if len(data) <= MAX_DICTIONARY_BYTES and not inflater.eof:
        raise ValueError("the dictionary is truncated")
    return _named(data, name)


def to_file(dictionary: Dictionary) -> bytes:
    """Return the content of a dictionary's file: one line with version and SHA-256, then the bytes."""
    return f"{_MAGIC} {_VERSION} {dictionary.name}\n".encode() + dictionary.data


def from_file(content: bytes) -> Dictionary:
    """Return the dictionary of a file's content.

    ValueError for a file that is none, has another version, is truncated or changed, or is too large to be sent.
    """
    head, _, data = content.partition(b"\n")
    words = head[:_MAX_HEAD_BYTES].decode("ascii", "replace").split(" ")
    if len(words) != 3 or words[0] != _MAGIC:
        raise ValueError("is no dictionary of `roomcast train-dictionary`")
    if words[1] != _VERSION:
        raise ValueError(f"is a dictionary of version {words[1]}; this broker reads version {_VERSION}")
    dictionary = _named(data, words[2])
    to_text(dictionary)
    return dictionary


def _named(data: bytes, name: str) -> Dictionary:
    dictionary = Dictionary(data)
    if dictionary.name != name:
        raise ValueError("the dictionary is truncated or changed: its bytes have another SHA-256")
    return dictionary
