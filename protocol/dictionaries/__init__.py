"""Dictionaries of the lz4 codecs: what they are, the one that is built in, and the form in which one is sent.

A dictionary is bytes that stand before each compressed body, so that a match may reach back into them. It is named by
the SHA-256 of its bytes, and so never changes.
"""

from __future__ import annotations

from .built_in import built_in_bytes
from .dictionary import MAX_DICTIONARY_BYTES, Dictionary
from .transfer import MAX_TRANSFER_CHARS, from_file, from_text, to_file, to_text

__all__ = [
    "BUILT_IN",
    "MAX_DICTIONARY_BYTES",
    "MAX_TRANSFER_CHARS",
    "Dictionary",
    "from_file",
    "from_text",
    "to_file",
    "to_text",
]

BUILT_IN = Dictionary(built_in_bytes())
"""The dictionary that brokers and clients have without fetching it."""
