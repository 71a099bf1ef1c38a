"""Operations on the dictionaries of compressed frames: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import ErrorCode
from ..dictionaries import BUILT_IN, MAX_DICTIONARY_BYTES, MAX_TRANSFER_CHARS
from ..fields import hex_digest, integer, record, text
from .rows import EVERY_MEMBER, OperationRow, RateLimit, Scope, row

__all__ = ["ROWS", "DictionaryInUse", "DictionaryText", "GetDictionary", "UseDictionary"]


class GetDictionary(NamedTuple):
    """Dictionary with this SHA-256, that the answer to HELLO has named."""

    sha256: str


class DictionaryText(NamedTuple):
    """Dictionary of ``nbytes``. ``data``: base64 of these bytes in zlib's format (RFC 1950)."""

    sha256: str
    nbytes: int
    data: str


class UseDictionary(NamedTuple):
    """Dictionary with this SHA-256, which the client has now, and the codec that HELLO has named for it here."""

    sha256: str
    codec: int


class DictionaryInUse(NamedTuple):
    """Codec that frames with the dictionary have on this link."""

    codec: int


_NAME = BUILT_IN.name

ROWS: tuple[OperationRow, ...] = (
    row(
        600, "dictionaries.get", GetDictionary, (hex_digest,), DictionaryText,
        record(DictionaryText, (hex_digest, integer(1, MAX_DICTIONARY_BYTES), text(1, MAX_TRANSFER_CHARS))),
        "Return a dictionary that frames of this broker are compressed with.",
        scope=Scope.ROOMS_READ, roles=EVERY_MEMBER, changes=False, rate=RateLimit(1, 5),
        address_rate=RateLimit(20, 400),
        example=(GetDictionary(_NAME), DictionaryText(_NAME, len(BUILT_IN.data), "eJxTSs4sSi5JTEnMBgAOaAMI")),
    ),
    row(
        601, "dictionaries.use", UseDictionary, (hex_digest, integer(1, 15)), DictionaryInUse,
        record(DictionaryInUse, (integer(1, 15),)),
        "Compress the frames of this link with a dictionary that its client has got, from now on.",
        scope=None, roles=EVERY_MEMBER, errors=(ErrorCode.OUT_OF_STATE,),
        example=(UseDictionary(_NAME, 3), DictionaryInUse(3)),
    ),
)  # fmt: skip
