"""JSON bodies of requests: read within caps, with fields that no record has refused by name."""

from __future__ import annotations

import json
from typing import Any

from broker.http.problems import HttpProblem
from protocol.fields import RECORD_SCHEMAS, SCHEMA_PREFIX
from protocol.json_mode import parse_value

__all__ = ["MAX_BODY_BYTES", "parse_body", "wrong_field"]

MAX_BODY_BYTES = 1024 * 1024


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the object of a request's body; an empty body is an empty object. Problem BAD_FIELD for anything else.

    Refused: duplicate keys, NaN and infinity, nesting above 32, arrays and objects of more than 1,024 elements.
    """
    if not body:
        return {}
    try:
        value = parse_value(body.decode())
    except UnicodeDecodeError as error:
        raise HttpProblem(400, "BAD_FIELD", f"the body is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        why = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise HttpProblem(400, "BAD_FIELD", f"the body is not JSON within its caps: {why}"[:200]) from None
    if type(value) is not dict:
        raise HttpProblem(400, "BAD_FIELD", "the body must be an object")
    return value


def wrong_field(value: Any, schema: dict[str, Any], path: str = "") -> tuple[str, str] | None:
    """Return the path and the rule of the first field that no record has, or that holds a number in place of a name;
    None = there is none. ``value``: parsed JSON. The wire's reader judges the rest."""
    reference = schema.get("$ref")
    if reference is not None:
        schema = RECORD_SCHEMAS[reference.removeprefix(SCHEMA_PREFIX)]
        if type(value) is dict:
            for name, each in value.items():
                inner = f"{path}.{name}" if path else name or '""'
                if name not in schema["properties"]:
                    return inner[:64], "is no field of this operation"
                found = wrong_field(each, schema["properties"][name], inner)
                if found is not None:
                    return found
        return None
    kind = schema.get("type")
    if kind == "string" and "enum" in schema and type(value) is int:
        return path, f"must be one of {', '.join(schema['enum'])}"
    if kind == "array" and type(value) is tuple:
        for index, each in enumerate(value):
            found = wrong_field(each, schema["items"], f"{path}[{index}]")
            if found is not None:
                return found
    for option in schema.get("anyOf", ()):
        if value is not None and option != {"type": "null"}:
            return wrong_field(value, option, path)
    return None
