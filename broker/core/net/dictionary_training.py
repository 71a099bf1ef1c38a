"""Trains a dictionary on texts: the pieces that many of them share, before the built-in dictionary's words.

A dictionary is given to every client, so nothing of one person's text may be in it: a piece has at most 12 characters,
and stands in at least `MIN_TEXTS` texts that differ. Pure: texts in, bytes out, the same for the same texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from protocol.codes import Codec
from protocol.compression import BUILT_IN_ONLY, compress
from protocol.dictionaries import BUILT_IN, MAX_DICTIONARY_BYTES, Dictionary
from protocol.frames import HEADER_BYTES, pack_body
from protocol.messages import Tick, TickEntry
from protocol.ticks import account_of

__all__ = ["MAX_TEXTS", "MAX_TEXT_CHARS", "MIN_TEXTS", "bytes_per_danmaku", "train"]

MIN_TEXTS = 10
"""Texts in which a piece stands at least."""
MAX_TEXTS = 200_000
"""Texts that are looked at; the first ones."""
MAX_TEXT_CHARS = 100
_MIN_CHARS, _MAX_CHARS = 2, 12
_MATCH_BYTES = 3
"""What a match costs, as lz4 writes it."""
_AT_MS = 1_796_000_000_000


def train(texts: Iterable[str], nbytes: int) -> Dictionary:
    """Return a dictionary of at most ``nbytes``, more than the built-in one has.

    ValueError where the texts share no pieces that it does not have, or for ``nbytes`` out of bounds.
    """
    space = nbytes - len(BUILT_IN.data)
    if not 0 < space <= MAX_DICTIONARY_BYTES - len(BUILT_IN.data):
        raise ValueError(f"a trained dictionary has {len(BUILT_IN.data) + 1} to {MAX_DICTIONARY_BYTES} bytes")
    distinct = list(dict.fromkeys(text[:MAX_TEXT_CHARS] for text in texts))[:MAX_TEXTS]
    saved = {piece: count * (len(piece.encode()) - _MATCH_BYTES) for piece, count in _shared(distinct).items()}
    chosen: list[str] = []
    known = BUILT_IN.data.decode("utf-8", "replace")
    taken = "\n"
    for piece in sorted(saved, key=lambda each: (-saved[each], each)):
        size = len(piece.encode())
        if saved[piece] > 0 and size <= space and piece not in taken and piece not in known:
            chosen.append(piece)
            taken += piece + "\n"
            space -= size
    if not chosen:
        raise ValueError(f"no piece stands in {MIN_TEXTS} texts and not in the built-in dictionary")
    return Dictionary("".join(chosen).encode() + BUILT_IN.data)


def _shared(texts: Sequence[str]) -> Counter[str]:
    """Return the pieces that stand in at least `MIN_TEXTS` texts, with their number.

    A piece can be one only if its two shorter pieces are: so each length counts few more than there are.
    """
    found: Counter[str] = Counter()
    shorter: set[str] | None = None
    for chars in range(_MIN_CHARS, _MAX_CHARS + 1):
        counts: Counter[str] = Counter()
        for text in texts:
            pieces = {text[start : start + chars] for start in range(len(text) - chars + 1)}
            if shorter is not None:
                pieces = {each for each in pieces if each[:-1] in shorter and each[1:] in shorter}
            counts.update(pieces)
        kept = {piece: count for piece, count in counts.items() if count >= MIN_TEXTS}
        if not kept:
            break
        shorter = set(kept)
        found.update(kept)
    return found


def bytes_per_danmaku(texts: Sequence[str], dictionary: Dictionary | None) -> float:
    """Return the bytes of one of these texts on a TCP link, two to a tick; ``dictionary`` None = not compressed.

    All have the same user and name: what these cost is not part of the question.
    """
    pairs = [texts[start : start + 2] for start in range(0, len(texts) - 1, 2)]
    total = 0
    for pair in pairs:
        entries = tuple(TickEntry(1, "u", "", (text,)) for text in pair)
        body = pack_body(Tick(_AT_MS, 100, 0, entries, account_of(entries)))
        small = None
        if dictionary is not None:
            dictionaries = {**BUILT_IN_ONLY, Codec.LZ4_DICT_2: dictionary.data}
            small = compress(body, Codec.LZ4_DICT_2, dictionaries, is_tick=True)
        total += HEADER_BYTES + len(body if small is None else small)
    return total / (2 * len(pairs)) if pairs else 0.0
