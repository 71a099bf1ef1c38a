"""The dictionaries that compressed frames may have: the built-in one, and in two places those of the deployment.

A dictionary that is put in force takes the place that is not of the one before it, whose links go on with theirs. So
two are in use during a change. The links of the one that loses its place return to a codec without it.
"""

from __future__ import annotations

from collections.abc import Collection

from protocol.codes import Codec, Feature
from protocol.compression import best_codec
from protocol.dictionaries import BUILT_IN, Dictionary, to_text
from protocol.messages import OfferedDictionary

__all__ = ["SETTLE_S", "DictionaryTable"]

SETTLE_S = 10.0
"""How long a place is not given out after another dictionary has had it: frames with that one are on their way."""

_LZ4, _LZ4_DICT_1 = int(Feature.LZ4), int(Feature.LZ4_DICT_1)
_PLACES = (Codec.LZ4_DICT_2, Codec.LZ4_DICT_3)


class DictionaryTable:
    """Dictionaries by codec. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {Codec.LZ4_DICT_1: BUILT_IN.data}
        """What frames with each codec are compressed with."""
        self._by_codec: dict[Codec, Dictionary] = {Codec.LZ4_DICT_1: BUILT_IN}
        self._texts: dict[str, str] = {}
        """Texts in which clients fetch dictionaries, by name."""
        self._in_force: Codec | None = None
        self._usable_at: dict[Codec, float] = {}

    @property
    def in_force(self) -> Dictionary | None:
        """The deployment's dictionary for new links; None: the built-in one."""
        return None if self._in_force is None else self._by_codec[self._in_force]

    def use(self, dictionary: Dictionary | None, now: float) -> Codec | None:
        """Put the deployment's dictionary in force, None = the built-in one.

        Returns the codec whose links must leave it now, None if there are none. ValueError, and nothing is changed, for
        a dictionary that is too large to be sent.
        """
        if dictionary is None:
            self._in_force = None
            return None
        for codec in _PLACES:
            found = self._by_codec.get(codec)
            if found is not None and found.name == dictionary.name:
                self._in_force = codec
                return None
        text = to_text(dictionary)
        free = [codec for codec in _PLACES if codec not in self._by_codec]
        codec = free[0] if free else next(each for each in _PLACES if each is not self._in_force)
        before = self._by_codec.get(codec)
        if before is not None:
            self._texts.pop(before.name, None)
            self._usable_at[codec] = now + SETTLE_S
        self._by_codec[codec] = dictionary
        self.data[codec] = dictionary.data
        self._texts[dictionary.name] = text
        self._in_force = codec
        return None if before is None else codec

    def choose(self, features: int, held: Collection[str], now: float) -> Codec:
        """Return the best codec for a link with these ``features`` (bits of `Feature`), whose client holds dictionaries
        of these names."""
        if held and features & _LZ4:
            for codec in self._preferred():
                if self._by_codec[codec].name in held and self._usable_at.get(codec, 0.0) <= now:
                    return codec
        return best_codec(features)

    def _preferred(self) -> list[Codec]:
        """Return the codecs with dictionaries, the best first."""
        return sorted(self._by_codec, key=lambda codec: (codec is not self._in_force, codec is Codec.LZ4_DICT_1))

    def offered(self, features: int, held: Collection[str]) -> tuple[OfferedDictionary, ...]:
        """Return what the answer to HELLO says: the dictionaries that the client holds, or should get."""
        if not features & _LZ4 or (self._in_force is None and not held and features & _LZ4_DICT_1):
            return ()
        return tuple(
            OfferedDictionary(codec, found.name, len(found.data))
            for codec in self._preferred()
            for found in (self._by_codec[codec],)
            if (
                not features & _LZ4_DICT_1
                if codec is Codec.LZ4_DICT_1
                else codec is self._in_force or found.name in held
            )
        )

    def codec_of(self, name: str, now: float) -> tuple[Codec, float] | None:
        """Return the codec of a dictionary by name, and in how many seconds it can be used; None: there is none."""
        for codec, found in self._by_codec.items():
            if found.name == name:
                return codec, max(0.0, self._usable_at.get(codec, 0.0) - now)
        return None

    def text_of(self, name: str) -> tuple[Dictionary, str] | None:
        """Return a dictionary by name, and the text in which a client gets it; None: there is none."""
        for found in self._by_codec.values():
            if found.name == name:
                text = self._texts.get(name)
                if text is None:  # the built-in one, of which most clients need no text
                    text = self._texts[name] = to_text(found)
                return found, text
        return None
