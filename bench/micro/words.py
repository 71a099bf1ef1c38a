"""Words and detectors of moderation: time a message, and the longest step of building a filter. No sockets."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from bench.micro.clients import PHRASES
from bench.micro.result import Result
from broker.core.moderation.detectors import detect
from broker.core.moderation.words import WordAction, WordFilter, WordList
from broker.telemetry.process import tune_process

__all__ = ["made_words", "words"]

WORDS = 50_000
FIRST_LETTER, LAST_LETTER = 0x4E00, 0x9FA5
"""Chinese characters that words are made of."""


def words(smoke: bool) -> list[Result]:
    """Measure the best of several rounds each."""
    tune_process()  # the filter is built by a broker: by default the collector adds steps of 50 ms
    rng = random.Random(1)
    count, rounds = (2_000, 2) if smoke else (WORDS, 20)
    listed = made_words(count)
    of_all = WordFilter([WordList("bench", WordAction.MASK, listed)])
    steps = []
    begun = time.process_time()
    for _ in of_all.build_steps():
        steps.append(time.process_time() - begun)
        begun = time.process_time()
    bare = AhoCorasick(listed, matchkind=MatchKind.Standard, implementation=Implementation.ContiguousNFA)
    messages = [f"{rng.choice(PHRASES)}{number}" for number in range(1_000)]
    detail = {"words": len(listed), "characters": sum(map(len, messages)) / len(messages), "build_ms": sum(steps) * 1e3}
    bare_us = _best(bare.find_matches_as_indexes, messages, rounds)
    return [
        Result(
            "words", f"search a message for {len(listed):,} words", _best(of_all.find, messages, rounds), "us",
            goal=10.0, floor=bare_us, floor_name="one bare automaton", detail=detail,
        ),
        Result("words", "detect links, numbers, contacts, repetition", _best(detect, messages, rounds), "us"),
        Result("words", "longest step of building the filter", max(steps) * 1e3, "ms", goal=20.0, detail=detail),
    ]  # fmt: skip


def made_words(count: int) -> list[str]:
    """Return words of Chinese characters, always the same."""
    rng = random.Random(1)
    return sorted({_word(rng) for _ in range(count)})


def _word(rng: random.Random) -> str:
    return "".join(chr(rng.randint(FIRST_LETTER, LAST_LETTER)) for _ in range(rng.choice((2, 3, 3, 4, 4, 5))))


def _best(search: Callable[[str], object], messages: list[str], rounds: int) -> float:
    """Return the least microseconds a message."""
    best = 1.0
    for _ in range(rounds):
        begun = time.process_time()
        for message in messages:
            search(message)
        best = min(best, (time.process_time() - begun) / len(messages))
    return best * 1e6
