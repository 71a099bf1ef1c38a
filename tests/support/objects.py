"""Objects that an object holds, directly or through others."""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

__all__ = ["reachable"]

_SKIPPED = (BuiltinFunctionType, FunctionType, ModuleType, type)


def reachable(root: object) -> list[Any]:
    """Return ``root`` and every object that it holds; functions, classes and modules are left out."""
    found: dict[int, Any] = {id(root): root}
    waiting = [root]
    while waiting:
        for each in gc.get_referents(waiting.pop()):
            if id(each) not in found and not isinstance(each, _SKIPPED):
                found[id(each)] = each
                waiting.append(each)
    return list(found.values())
