"""Fetching a dictionary of compressed frames, once on a link that is open: the frames are compressed without it before.

Whatever goes wrong, the link stays open and goes on without the dictionary.
"""

from __future__ import annotations

import random

import trio

from ..codes import Feature
from ..dictionaries import from_text
from ..messages import Call, ErrorReply, Result
from ..operations import BY_NAME
from ..operations.dictionaries import DictionaryText, GetDictionary, UseDictionary
from .calls import CallSender
from .dictionaries import DictionaryCache
from .link import Link

__all__ = ["FETCH_AFTER_S", "DictionaryError", "fetch_dictionary"]

FETCH_AFTER_S = 2.0, 30.0
"""When it is fetched, at random: a viewer who leaves at once needs none, and after a restart all come at once."""

_GET, _USE = BY_NAME["dictionaries.get"].number, BY_NAME["dictionaries.use"].number


class DictionaryError(Exception):
    """A dictionary that cannot be used: ``code`` of the broker's answer, or 0 where its bytes are not those named."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


async def fetch_dictionary(link: Link, calls: CallSender, cache: DictionaryCache, rng: random.Random) -> None:
    """Get the best dictionary that the answer to HELLO has named, and have frames compressed with it.

    Nothing happens where the client has it. Raises DictionaryError.
    """
    hello = link.hello
    if hello is None or not hello.dictionaries or not hello.features & Feature.CALL:
        return
    codec, name, _ = hello.dictionaries[0]
    if cache.get(name) is not None:
        return
    await trio.sleep(rng.uniform(*FETCH_AFTER_S))
    found = await _ask(link, calls, Call(_GET, "", GetDictionary(name)))
    if found is None:
        return
    if not isinstance(found.result, DictionaryText):
        raise DictionaryError(0, "the answer is no dictionary")
    try:
        cache.add(from_text(found.result.data, name))
    except ValueError as error:
        raise DictionaryError(0, str(error)) from None
    link.use_dictionary(codec, name)  # before the broker does
    await _ask(link, calls, Call(_USE, "", UseDictionary(name, codec)))


async def _ask(link: Link, calls: CallSender, call: Call) -> Result | None:
    """Return the answer, None where the link has ended. A call that may be made again later is, once."""
    answer = await calls.request(link, call)
    if isinstance(answer, ErrorReply) and answer.retry_after_ms:
        await trio.sleep(answer.retry_after_ms / 1000)
        answer = await calls.request(link, call)
    if isinstance(answer, ErrorReply):
        raise DictionaryError(answer.code, f"{answer.field} {answer.message}".strip())
    return answer if isinstance(answer, Result) else None
