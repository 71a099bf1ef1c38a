"""Makes the bytes of the built-in dictionary from its words and from the shapes of a tick's records.

The parts are joined without anything between them: a match may begin and end anywhere.
"""

from __future__ import annotations

from .words import CHAT, COMMON, ENGLISH, NAMES, RECORDS, SHOPPING, SIGNS

__all__ = ["built_in_bytes"]


def built_in_bytes() -> bytes:
    """Return the bytes, always the same ones."""
    dense = (CHAT, SHOPPING, SIGNS, NAMES, RECORDS, COMMON)
    words = "".join("".join(text.split()) for text in dense) + ENGLISH.replace("\n", " ")
    return words.encode() + _shapes()


def _shapes() -> bytes:
    """Return the msgpack bytes around the texts of a tick.

    The first byte of an entry is the number of its fields, of which three are the usual ones: user, name and text. A
    user is a text, or a number of mostly four bytes. A text of up to 31 bytes has one byte before it, a longer one two.
    """
    users = (b"\xa8user-000", b"\xa9user-1234", b"\xaauser-12345", b"\xa8u1234567")
    names = (b"\xa6viewer", b"\xa9viewer 12", b"\xaaviewer 123", b"\xabviewer 1234")
    entries = b"".join(b"\x93" + user + name for user in users for name in names)
    others = b"\x02\x90\x01\x97\x01\x03\x90\x01\x95\x01\x94\x02"
    starts = b"".join(
        b"\x00" + interval + b"\x00" + bytes([0x90 + count]) + b"\x93\xce\x00"
        for interval in (b"d", b"\xcc\xc8", b"\xcd\x01\xf4")
        for count in (1, 2, 3, 4, 5)
    )
    # A time in milliseconds has its first six bytes for 49 days: those until the year 2039.
    times = b"".join(b"\x94\xcf\x00\x00\x01" + bytes([byte]) for byte in range(0xA2, 0x100))
    return entries + others + starts + times
