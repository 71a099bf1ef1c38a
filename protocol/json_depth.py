"""Parse JSON of a bounded depth.

The parser of the standard library calls itself for every level. Python's limit of recursions ends that with an error,
but a program, or one of its libraries, may have raised the limit; then a text of 100,000 brackets ends the process.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["check_depth", "parse_json"]

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""It takes a string without an end too: a search that starts anew at each quote would take the square of the length."""


def parse_json(text: str, max_depth: int, **hooks: Any) -> Any:
    """Return the value of a JSON text (Any: whatever it holds); ``hooks`` as `json.loads` takes them.

    ValueError (of the standard library where it is no JSON) where arrays and objects stand more than ``max_depth``
    levels deep; RecursionError where Python's limit is lower than that.
    """
    check_depth(text, max_depth)
    return json.loads(text, **hooks)


def check_depth(text: str, max_depth: int) -> None:
    """Raise ValueError for JSON with arrays and objects more than ``max_depth`` levels deep. A text with few brackets
    costs two searches."""
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for part in _STRING_OR_BRACKET.findall(text):
        depth += 1 if part in ("[", "{") else -1 if part in ("]", "}") else 0
        if depth > max_depth:
            raise ValueError(f"it is nested deeper than {max_depth} levels")
