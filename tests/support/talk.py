"""Texts of a room that has a subject of its own."""

from __future__ import annotations

import random

__all__ = ["talk"]

THINGS = ("云南普洱古树茶饼", "手工紫砂提梁壶", "武夷山大红袍", "景德镇青花茶盏")
AROUND = ("想看看{}", "{}怎么保存", "昨天的{}真不错", "给我来两份{}", "{}几月采的呀")


def talk(rng: random.Random, count: int) -> list[str]:
    """Return so many texts, which share their pieces."""
    return [rng.choice(AROUND).format(rng.choice(THINGS)) + str(rng.randrange(1000)) for _ in range(count)]
