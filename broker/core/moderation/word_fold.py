"""The form in which texts are searched for words, and the way back from a place in it to the text.

Each character is folded by itself (compatibility form, case, look-alike letters of other scripts, traditional to
simplified Chinese), so the folded text is a concatenation and each place in it belongs to one character of the text.
Spaces, punctuation, symbols, combining marks and invisible characters are left out: inserting them hides no word.
`broker.core.chat.fold` has the form that is compared for merging; it keeps what a reader sees as different.
"""

from __future__ import annotations

from abc import abstractmethod
from unicodedata import category, normalize

from broker.core.chat.fold import COMBINING_MARKS
from broker.core.moderation.simplified import SIMPLIFIED
from protocol.text import INVISIBLE

__all__ = ["FOLD", "FOLD_DIGITS", "CharacterTable", "FoldTable", "places_of"]

MAX_KNOWN = 65_536
"""Characters that a table remembers, 0.15 KB each; it forgets them all when it is full. Lists of 50,000 words hold some
20,000, and a character that is not remembered costs 2 us each time."""


def _pairs(letters: str, looks: str) -> dict[str, str]:
    return dict(zip(letters, looks, strict=True))


def _run(first: int, looks: str) -> dict[str, str]:
    return {chr(first + index): look for index, look in enumerate(looks)}


_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_LOOK_ALIKES = {
    **_pairs("авекмнорстухіјѕԁһӏԝԛ", "abekmhopctyxijsdhlwq"),  # Cyrillic
    **_pairs("αβεζηικμνορστυχω", "abeznikuvopotuxw"),  # Greek
    **_pairs("ɑɡıøłđħƀɓƈɗɖɛƒɠɦɨƙɭɱɲŋƞƥɾɽʂŧƭʋƶʐⱥɕɩɳ", "agioldhbbcddefghiklmnnnprrsttvzzacin"),  # Latin with hooks
    **_pairs("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnopqrstuvwyz"),  # Latin small capitals
    **_pairs("ꭰꭱꭲꭺꭻꭼꮃꮇꮋꮐꮓꮪꮲꮯꮮꮶᏼꮩꮟ".upper(), "drtajewmhgzspclkbvb"),  # Cherokee
    **_pairs("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "bpdtgkjczfmnlsrvhwxyaeiou"),  # Lisu
    **_run(0x1F150, _ALPHABET), **_run(0x1F170, _ALPHABET),  # white on black
    **_run(0x2776, "123456789"), **_run(0x2780, "123456789"), **_run(0x278A, "123456789"),  # circled digits
}  # fmt: skip
_CASED = _pairs("ΗΜΝΥς", "hmnyc")
"""Greek letters that look like other letters than what their case is folded to."""
_FOR_DIGITS = _pairs("013457@$!|€l", "oieastasiiei")


class CharacterTable(dict[int, str]):
    """A table for `str.translate` that is filled as characters are met, up to `MAX_KNOWN`."""

    def __missing__(self, code: int) -> str:
        found = self.replacement(chr(code))
        if len(self) >= MAX_KNOWN:
            self.clear()
        self[code] = found
        return found

    @abstractmethod
    def replacement(self, character: str) -> str:
        """Return what stands for a character."""


class FoldTable(CharacterTable):
    """A table that folds. ``looks``: letters for other characters, before all else."""

    def __init__(self, looks: dict[str, str]) -> None:
        super().__init__()
        self._looks = looks

    def replacement(self, character: str) -> str:
        character = self._looks.get(character, character)
        plain = "".join(_CASED.get(each, each) for each in normalize("NFKD", character))
        decomposed = normalize("NFKD", plain.casefold())
        return "".join(SIMPLIFIED.get(each, each) for each in map(self._letter, decomposed) if _is_kept(each))

    def _letter(self, character: str) -> str:
        character = self._looks.get(character, character)
        return _LOOK_ALIKES.get(character, character)


def _is_kept(character: str) -> bool:
    """Return whether a decomposed character is a part of words: a letter, a digit, a vowel sign of a script."""
    if not character or INVISIBLE.match(character) or COMBINING_MARKS.match(character):
        return False
    return category(character)[0] not in "ZPSC"


FOLD = FoldTable({})
"""Folds texts: ``text.translate(FOLD)``."""
FOLD_DIGITS = FoldTable(_FOR_DIGITS)
"""The same, with the letters that digits and signs stand for in Latin words (sh1t, f@ke)."""


def places_of(text: str, table: CharacterTable) -> list[int]:
    """Return for each character of the translated text the index of the one of ``text`` that it comes from."""
    return [index for index, character in enumerate(text) for _ in table[ord(character)]]
