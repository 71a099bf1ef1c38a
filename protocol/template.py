"""One text for many users: ``{name}`` in the strings of a payload is replaced by each user's own value.

A template is any value a payload may be; only its strings are looked at, however deep. There is no formatting
language in it: a brace that names nothing known is an error before the first message is sent, so that nobody is told
"Your code is {code}".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["TemplateError", "fields_of", "fill"]

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,31})\}")


class TemplateError(ValueError):
    """A field of the template has no value; the message names it."""


# Any: payloads of custom types are any value that the wire carries.
def fields_of(template: Any) -> frozenset[str]:
    """Names of all fields in a template."""
    if isinstance(template, str):
        return frozenset(_FIELD.findall(template))
    if isinstance(template, Mapping):
        return frozenset().union(*map(fields_of, template.values())) if template else frozenset()
    if isinstance(template, (tuple, list)):
        return frozenset().union(*map(fields_of, template)) if template else frozenset()
    return frozenset()


def fill(template: Any, values: Mapping[str, str]) -> Any:
    """The template with every field replaced; a value is never looked into again. TemplateError for a missing one."""
    if isinstance(template, str):
        return _FIELD.sub(lambda match: _value(match.group(1), values), template)
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, (tuple, list)):
        return tuple(fill(value, values) for value in template)
    return template


def _value(name: str, values: Mapping[str, str]) -> str:
    value = values.get(name)
    if value is None:
        raise TemplateError(f"{{{name}}} has no value")
    return value
