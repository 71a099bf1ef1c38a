"""Word filter: finds the words of lists in texts, also where they are written to be missed.

Searched is the folded text (`word_fold`) by Aho-Corasick automata, which take the same time for any number of words.
A place in which a word stands apart, or across the border of two others, is no finding:

- a Latin word is found as a whole word only;
- characters with spaces or the punctuation of sentences between them are a word if each stands alone ("加 微 信",
  "s p a m"), or for three and more Chinese characters with spaces alone; "一套，现在" does not hold 套现;
- what stands three times and more in a row stands for any number of it that the word has: spammmm, coool;
- what lies inside an exception of the list is none: 整套现货 for 套现.

Exceptions, not a segmenter: of 30,000 comments on goods searched for 42 words, jieba 0.42 would have dropped one
finding, which was a right one (拒开发票), and 5 of 241 evasions, for 67 MiB and 0.9 s at the start. Phrases of a dozen
words drop what is wrong: 整套现货, 这套现在. The tables are in ``tests/core/moderation``.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from broker.core.chat.fold import COMBINING_MARKS
from broker.core.moderation.word_fold import FOLD, FOLD_DIGITS, FoldTable, places_of
from protocol.operations.words import MAX_WORD_CHARS, WordAction
from protocol.text import INVISIBLE

__all__ = ["MAX_WORDS", "MAX_WORD_CHARS", "Finding", "WordAction", "WordError", "WordFilter", "WordList", "masked"]

MAX_WORDS = 100_000
"""Words and exceptions of all lists of a filter."""
WORDS_OF_AUTOMATON = 6_000
"""Building one holds the interpreter: 10 to 15 ms for so many words."""
WORDS_OF_STEP = 1_000
"""Words that are folded in one step: 5 to 8 ms where all their characters are new."""
MASK = "*"


class WordError(ValueError):
    """A word or exception that no text can hold, or too many of them.

    ``list_name`` and ``number``: which word of which list, from 1; "" and 0: all together. ``what``: word or exception.
    """

    def __init__(self, rule: str, list_name: str = "", what: str = "", number: int = 0) -> None:
        super().__init__(f"list {list_name}: {what} {number} {rule}" if number else rule)
        self.rule = rule
        self.list_name = list_name
        self.what = what
        self.number = number


class WordList(NamedTuple):
    """Words with one action. ``exceptions``: phrases inside which these words are meant otherwise."""

    name: str
    action: WordAction
    words: Sequence[str]
    exceptions: Sequence[str] = ()
    category: str = ""


class Finding(NamedTuple):
    """A word in a text, at ``start`` to ``end`` (exclusive) of its characters."""

    start: int
    end: int
    word: str
    list_name: str
    category: str
    action: WordAction


class _Word(NamedTuple):
    word: str
    of_list: int
    gaps: frozenset[int]
    """Places of the folded word before which the word itself has a space or a mark."""
    runs: tuple[int, ...] = ()
    """How often each character stands in a row, where the word is searched with each of them once."""


class _Search:
    """Automata over words that were folded by one table; those of exceptions have indexes of their own."""

    def __init__(self, table: FoldTable) -> None:
        self.table = table
        self._automata: list[tuple[AhoCorasick, list[list[_Word]]]] = []
        self._words: dict[str, list[_Word]] = {}

    def add(self, folded: str, word: _Word) -> None:
        self._words.setdefault(folded, []).append(word)

    def build_steps(self) -> Iterator[None]:
        folded = list(self._words)
        for start in range(0, len(folded), WORDS_OF_AUTOMATON):
            part = folded[start : start + WORDS_OF_AUTOMATON]
            automaton = AhoCorasick(
                part, matchkind=MatchKind.Standard, implementation=Implementation.ContiguousNFA, store_patterns=False
            )
            self._automata.append((automaton, [self._words[each] for each in part]))
            yield
        self._words = {}

    def places(self, folded: str) -> Iterator[tuple[list[_Word], int, int]]:
        """Yield words and their places in a folded text, overlapping ones too."""
        for automaton, words in self._automata:
            for index, start, end in automaton.find_matches_as_indexes(folded, overlapping=True):
                yield words[index], start, end


class WordFilter:
    """The words of several lists, built once and never changed.

    Build it with `build`, or in steps of some 15 ms with `build_steps`, beside other work. It finds nothing before.
    """

    def __init__(self, lists: Sequence[WordList]) -> None:
        """WordError for too many words; of each of them when it is built."""
        self._lists = lists
        self._plain, self._digits, self._exceptions = _Search(FOLD), _Search(FOLD_DIGITS), _Search(FOLD)
        self._plain_once, self._digits_once = _Search(FOLD), _Search(FOLD_DIGITS)
        """The words that have a character twice in a row, with each of them once."""
        if sum(len(each.words) + len(each.exceptions) for each in lists) > MAX_WORDS:
            raise WordError(f"the lists have more than {MAX_WORDS} words together")

    @classmethod
    def build(cls, lists: Sequence[WordList]) -> WordFilter:
        """Return a filter that is ready. WordError."""
        found = cls(lists)
        for _ in found.build_steps():
            pass
        return found

    def build_steps(self) -> Iterator[None]:
        """Build the automata; each step holds the interpreter for some 15 ms.

        WordError for a word without letters and digits, or one that is too long.
        """
        for index, of_list in enumerate(self._lists):
            for number, word in enumerate(of_list.words, 1):
                self._add(index, number, word)
                if number % WORDS_OF_STEP == 0:
                    yield
            for number, phrase in enumerate(of_list.exceptions, 1):
                folded = _checked(of_list.name, "exception", number, phrase)
                self._exceptions.add(folded, _Word(phrase, index, frozenset()))
                if number % WORDS_OF_STEP == 0:
                    yield
        for search in (self._plain, self._digits, self._exceptions, self._plain_once, self._digits_once):
            yield from search.build_steps()

    def find(self, text: str) -> list[Finding]:
        """Return the words in ``text``, by their places."""
        found = self._found_in(text, self._plain, self._plain_once)
        if _has_letter_by_digit(text):
            found |= self._found_in(text, self._digits, self._digits_once)
        return sorted(found) if found else []

    def _found_in(self, text: str, search: _Search, once: _Search) -> set[Finding]:
        folded = text.translate(search.table)
        found = self._findings(text, search, folded)
        if _has_repeats(folded):
            found |= self._findings(text, search, folded, _LONG_RUN) | self._findings(text, once, folded, _RUN)
        return found

    def _add(self, index: int, number: int, word: str) -> None:
        _add_both(_checked(self._lists[index].name, "word", number, word), word, index, self._plain, self._plain_once)
        if _is_latin(word):
            _add_both(word.translate(FOLD_DIGITS), word, index, self._digits, self._digits_once)

    def _findings(
        self, text: str, search: _Search, folded: str, repeats: re.Pattern[str] | None = None
    ) -> set[Finding]:
        """``repeats``: what stands several times in a row is searched as if it stood once."""
        searched = folded if repeats is None else repeats.sub(r"\1", folded)
        matches = list(search.places(searched))
        if not matches:
            return set()
        places = lasts = places_of(text, search.table)
        lengths: list[int] = []
        if repeats is not None:
            places, lasts, lengths = _runs_of(folded, repeats, places)
        excepted = self._excepted(text) if any(of_list.exceptions for of_list in self._lists) else {}
        found: set[Finding] = set()
        breaks = list(_apart(text, places))
        for words, start, end in matches:
            span = [*places[start : end - 1], lasts[end - 1]]
            if end == start + 1 and places[start] != span[0]:
                span.insert(0, places[start])
            for word in words:
                if search.table is FOLD_DIGITS and not _is_spelled_with_letters(text, span):
                    continue
                if word.runs and not _is_stretched(word.runs, lengths[start:end], searched[start:end]):
                    continue
                ends = excepted.get(word.of_list)
                if ends is not None and span[-1] <= ends[span[0]]:
                    continue
                apart = [place - start for place in breaks[bisect_right(breaks, start) : bisect_left(breaks, end)]]
                if not _stands(text, span, [place for place in apart if place not in word.gaps], len(word.gaps)):
                    continue
                of_list = self._lists[word.of_list]
                last = _end_of(text, span[-1] + 1)
                found.add(Finding(span[0], last, word.word, of_list.name, of_list.category, of_list.action))
        return found

    def _excepted(self, text: str) -> dict[int, list[int]]:
        """Return by list, for each index of ``text``, the last index of the exceptions that begin there or before: -1 =
        there is none. Linear: a text of the same letter has thousands of matches inside thousands of exceptions."""
        places = places_of(text, FOLD)
        found: dict[int, list[int]] = {}
        for phrases, start, end in self._exceptions.places(text.translate(FOLD)):
            first, last = places[start], places[end - 1]
            for phrase in phrases:
                ends = found.get(phrase.of_list)
                if ends is None:
                    ends = found[phrase.of_list] = [-1] * len(text)
                ends[first] = max(ends[first], last)
        return {of_list: list(accumulate(ends, max)) for of_list, ends in found.items()}


def masked(text: str, findings: Sequence[Finding]) -> str:
    """Return ``text`` with a ``*`` for each letter and digit of the findings to be masked."""
    characters = list(text)
    done = 0
    for start, end in sorted((each.start, each.end) for each in findings if each.action is WordAction.MASK):
        for index in range(max(start, done), end):
            if _is_attached(text[index]):
                characters[index] = ""
            elif FOLD[ord(text[index])]:
                characters[index] = MASK
        done = max(done, end)
    return "".join(characters)


_has_repeats = re.compile(r"(.)\1\1", re.DOTALL).search
_LONG_RUN = re.compile(r"(.)\1\1+", re.DOTALL)
_RUN = re.compile(r"(.)\1*", re.DOTALL)
_has_letter_by_digit = re.compile(r"[a-z][013457@$!|\u20ac]|[013457@$!|\u20ac][a-z]", re.IGNORECASE).search
_SENTENCE = frozenset("，。！？、；：,!?;:｡…")
"""Punctuation that ends a part of a sentence. Other marks are inserted into words: 套.现, s-p-a-m."""
_LATIN_DIGITS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def _checked(list_name: str, what: str, number: int, word: str) -> str:
    """Return a word folded. WordError where no text can hold it."""
    if not 1 <= len(word) <= MAX_WORD_CHARS:
        raise WordError(f"must have 1 to {MAX_WORD_CHARS} characters", list_name, what, number)
    folded = word.translate(FOLD)
    if not folded:
        raise WordError("has no letter and no digit", list_name, what, number)
    return folded


def _add_both(folded: str, word: str, of_list: int, search: _Search, once: _Search) -> None:
    """Add a folded word to a search, and to the one of words with each character once if it has one twice in a row."""
    gaps = _gaps_of(word, search.table)
    search.add(folded, _Word(word, of_list, gaps))
    runs = tuple(len(match[0]) for match in _RUN.finditer(folded))
    if len(runs) < len(folded):
        starts = [match.start() for match in _RUN.finditer(folded)]
        inside = frozenset(bisect_left(starts, gap) for gap in gaps)
        once.add(_RUN.sub(r"\1", folded), _Word(word, of_list, inside, runs))


def _runs_of(folded: str, repeats: re.Pattern[str], places: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Return for each character that is left of a folded text the index of its first and of its last place in the
    text, and how often it stands there in a row. ``places``: the indexes of all characters of the folded text."""
    starts: list[int] = []
    done = 0
    for match in repeats.finditer(folded):
        starts += range(done, match.start() + 1)
        done = match.end()
    starts += range(done, len(folded))
    ends = [*starts[1:], len(folded)]
    lasts = [places[end - 1] for end in ends]
    return [places[start] for start in starts], lasts, [end - start for start, end in zip(starts, ends, strict=True)]


def _is_stretched(runs: Sequence[int], lengths: Sequence[int], characters: str) -> bool:
    """Return whether a text has each character of a word as often in a row as the word, or three times and more. Digits
    are never stretched: 1222 is another number than 122."""
    return all(
        length == run or (length >= 3 and not character.isdigit())
        for run, length, character in zip(runs, lengths, characters, strict=True)
    )


def _is_latin(word: str) -> bool:
    folded = word.translate(FOLD)
    return len(folded) >= 3 and not folded.isdigit() and all(each in _LATIN_DIGITS for each in folded)


def _gaps_of(word: str, table: FoldTable) -> frozenset[int]:
    return frozenset(_apart(word, places_of(word, table)))


def _apart(text: str, span: Sequence[int]) -> Iterator[int]:
    """Yield each place of a span of the folded text that a space or the end of a sentence part stands before."""
    for place in range(1, len(span)):
        between = text[span[place - 1] + 1 : span[place]]
        if between and any(map(_is_separator, between)):
            changes_script = _is_latin_letter(text[span[place - 1]]) != _is_latin_letter(text[span[place]])
            if not (changes_script and between.isspace()):  # qq 群
                yield place


def _stands(text: str, span: Sequence[int], apart: Sequence[int], gaps: int) -> bool:
    """Return whether the characters at the indexes of ``span`` are a word of the text (see the module). ``apart``: the
    places of the span that a space or the end of a sentence part stands before, but for the ``gaps`` of the word."""
    before, after = _neighbour(text, span[0], -1), _neighbour(text, span[-1], 1)
    if not apart:
        return not (_are_latin(before, text[span[0]]) or _are_latin(text[span[-1]], after))
    if len(apart) + gaps >= len(set(span)) - 1:
        return all(each == "" or _is_separator(each) for each in (before, after))
    return len(set(span)) >= 3 and not any(
        _is_latin_letter(text[index]) or (_SENTENCE & set(text[span[0] : index])) for index in span
    )


def _is_spelled_with_letters(text: str, span: Sequence[int]) -> bool:
    """Return whether half of the characters and more are letters: 500k spells no word."""
    return 2 * sum(_is_latin_letter(text[index]) for index in span) >= len(span)


def _neighbour(text: str, index: int, step: int) -> str:
    """Return the next visible character of its own, empty = there is none."""
    index += step
    while 0 <= index < len(text):
        if not _is_attached(text[index]):
            return text[index]
        index += step
    return ""


def _are_latin(*characters: str) -> bool:
    return all(map(_is_latin_letter, characters))


def _is_latin_letter(character: str) -> bool:
    return character != "" and any("a" <= each <= "z" for each in FOLD[ord(character)])


def _is_separator(character: str) -> bool:
    return character.isspace() or character in _SENTENCE


def _is_attached(character: str) -> bool:
    """Return whether a character belongs to the one before it: an accent, or something invisible."""
    return (COMBINING_MARKS.match(character) or INVISIBLE.match(character)) is not None


def _end_of(text: str, end: int) -> int:
    while end < len(text) and _is_attached(text[end]):
        end += 1
    return end
