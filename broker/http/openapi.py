"""OpenAPI 3.1 of the control API, and its reference page: both are made from the table of operations."""

from __future__ import annotations

import html
import json
import re
from functools import cache
from inspect import cleandoc
from typing import Any

from broker.http.live import MAX_SECONDS
from broker.http.problems import STATUS
from broker.telemetry.history import HISTORY_S
from protocol.codes import MESSAGE_TYPES, ErrorCode, MessageType, Role
from protocol.fields import RECORD_SCHEMAS, SCHEMA_PREFIX, schema_of
from protocol.json_values import as_json
from protocol.operations import BY_NAME, EDITION, OPERATIONS, KeyUse, OperationRow
from protocol.payloads import PAYLOAD_KINDS
from protocol.webhook_events import EVENTS, EventRow, envelope_schema

__all__ = ["DRY_RUN", "document", "reference_page"]

DRY_RUN = {"0": False, "1": True, "false": False, "true": True}
"""Values of the parameter ``dry_run``."""
_COMMON = (
    ErrorCode.BAD_FIELD,
    ErrorCode.NOT_ALLOWED,
    ErrorCode.ROOM_NOT_GRANTED,
    ErrorCode.KEY_REUSED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.OVERLOADED,
    ErrorCode.LOCKED,
    ErrorCode.PAYLOAD_TOO_LARGE,
)
_REASONS = {
    400: "A field breaks its rule", 401: "No valid key", 403: "The key may not do this", 404: "Not found",
    408: "The body came too slowly", 409: "Not in the present state", 413: "The body is too large",
    415: "The body is not JSON",
    429: "Too many requests", 500: "A defect of the broker", 503: "Not now",
}  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document. Any: JSON."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "roomcast control API", "version": str(EDITION)},
        "security": [{"key": []}],
        "paths": {_path(row): {"post": _operation(row)} for row in OPERATIONS}
        | {path: {"get": read} for path, read in _reads().items()},
        "webhooks": {row.type: {"post": _webhook(row)} for row in EVENTS},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "rk_<id>_<secret>"}},
            "schemas": _schemas(),
        },
    }


def _path(row: OperationRow) -> str:
    subject, _, verb = row.name.partition(".")
    return f"/v1/{subject}/{verb}"


def _operation(row: OperationRow) -> dict[str, Any]:
    statuses = sorted({STATUS[code] for code in (*_COMMON, *row.errors)} | {401, 408, 415, 500})
    parameters: list[dict[str, Any]] = []
    if row.key is not KeyUse.NONE:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": row.key is KeyUse.REQUIRED,
                "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
            }
        )
    if row.changes:
        parameters.append({"name": "dry_run", "in": "query", "schema": {"type": "string", "enum": list(DRY_RUN)}})
    return {
        "operationId": row.name,
        "tags": [row.subject],
        "summary": row.summary,
        "description": "\n\n".join(filter(None, (_description(row), _fields_in_words(row).replace("``", "`")))),
        "parameters": parameters,
        "requestBody": {
            "required": bool(_required(row)),
            "content": {"application/json": {"schema": schema_of(row.read), "example": as_json(row.example[0])}},
        },
        "responses": {
            "200": {
                "description": "Done",
                "content": {
                    "application/json": {"schema": schema_of(row.read_result), "example": as_json(row.example[1])}
                },
            },
            **{str(status): _problem(_REASONS[status]) for status in statuses},
        },
    }


def _reads() -> dict[str, dict[str, Any]]:
    """Return the paths that are read with GET. Any: JSON."""
    stats = schema_of(BY_NAME["rooms.stats"].read_result)
    room = {"name": "room", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    seconds = {
        "name": "seconds", "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_SECONDS, "default": 1},
    }  # fmt: skip
    past = {"name": "seconds", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": HISTORY_S}}
    text = {"type": "string"}
    return {
        "/stats/{room}": _read(
            "stats.room", "Live statistics of a room, an event a second, as Server-Sent Events.",
            "The data of an event is a result of rooms.stats with the seconds since the last one; the first has so many"
            " of the past as `seconds` says. The event `closed` is the last one. Scope rooms:read.",
            "text/event-stream", stats, (room, seconds), (400, 401, 403, 404, 429, 503),
        ),
        "/stats": _read(
            "stats.broker", "Live statistics of the broker, an event a second, as Server-Sent Events.",
            "For keys of no tenant with the scope admin. With `seconds` an event `history` comes first: arrays of one"
            " number a second by name, the oldest first.",
            "text/event-stream", {"type": "object"}, (past,), (400, 401, 403, 429, 503),
        ),
        "/metrics": _read(
            "metrics", "Metrics in the text format of Prometheus.", "For keys of no tenant, where keys are configured.",
            "text/plain", text, (), (401, 403, 429),
        ),
    }  # fmt: skip


def _read(
    id: str,
    summary: str,
    description: str,
    media_type: str,
    schema: dict[str, Any],
    parameters: tuple[dict[str, Any], ...],
    statuses: tuple[int, ...],
) -> dict[str, Any]:
    """Return the description of a path that is read. Any: JSON."""
    return {
        "operationId": id,
        "tags": ["reads"],
        "summary": summary,
        "description": description,
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "Done", "content": {media_type: {"schema": schema}}},
            **{str(status): _problem(_REASONS[status]) for status in statuses},
        },
    }


def _webhook(row: EventRow) -> dict[str, Any]:
    """Return the description of an event as the receiver gets it."""
    return {
        "operationId": f"event.{row.type}",
        "tags": ["webhooks"],
        "summary": row.summary,
        "description": "Signed as Standard Webhooks: verify webhook-signature before you trust the body.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": envelope_schema(row), "example": _example(row)}},
        },
        "responses": {
            "2XX": {"description": "Taken. Any other answer, or none, is tried again."},
            "410": {"description": "Gone: nothing more is sent until an operator enables the endpoint."},
        },
    }


def _example(row: EventRow) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": "ev_3f0c2a", "type": row.type, "created_at_ms": 1_800_000_000_000, "tenant": ""}
    if row.in_room:
        fields |= {"room": "live-1", "epoch": 7}
    if row.has_offset:
        fields["offset"] = 12
    return {**fields, "data": as_json(row.example)}


def _required(row: OperationRow) -> list[str]:
    required: list[str] = RECORD_SCHEMAS[row.request.__name__]["required"]
    return required


def _description(row: OperationRow) -> str:
    parts = [f"Scope: {row.scope}." if row.scope else "Not for backends."]
    rate = row.rate_of(is_backend=True)
    parts.append(f"{rate.per_s:g} calls a second of a caller, {rate.burst} at once.")
    if row.durable:
        parts.append("Answered when it is on disk, where the broker has a ledger.")
    return " ".join(parts)


def _fields_in_words(row: OperationRow) -> str:
    """Return what the fields of the request mean; "" where their names say it."""
    words = cleandoc(row.request.__doc__ or "")
    return " ".join(words.split()) if "``" in words else ""


def _problem(reason: str) -> dict[str, Any]:
    return {
        "description": reason,
        "content": {"application/problem+json": {"schema": {"$ref": SCHEMA_PREFIX + "Problem"}}},
    }


def _schemas() -> dict[str, Any]:
    """Return the schemas of all records that the operations use, and that of a problem."""
    found: dict[str, Any] = {
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "code", "rule", "request_id"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"type": "string"},
                "rule": {"type": "string"},
                "field": {"type": "string"},
                "retry_after_ms": {"type": "integer"},
                "request_id": {"type": "string"},
            },
        }
    }
    waiting = [schema for row in OPERATIONS for schema in (schema_of(row.read), schema_of(row.read_result))]
    waiting += [schema_of(row.read) for row in EVENTS]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in found:
                found[name] = RECORD_SCHEMAS[name]
                waiting.append(RECORD_SCHEMAS[name])
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        inner = [name for value in schema.values() for name in _references(value)]
        return [reference.removeprefix(SCHEMA_PREFIX), *inner] if isinstance(reference, str) else inner
    if isinstance(schema, list):
        return [name for value in schema for name in _references(value)]
    return []


@cache
def reference_page() -> str:
    """Return the reference page as HTML."""
    rows = "".join(_section(row) for row in OPERATIONS)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>roomcast control API</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
        "pre{background:#f4f4f5;padding:.75rem;overflow-x:auto}table{border-collapse:collapse}"
        "td,th{border-bottom:1px solid #ddd;padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}</style>"
        f"<h1>roomcast control API</h1><p>Edition {EDITION}. Send one JSON object with "
        "<code>Authorization: Bearer rk_...</code>; failures are <code>application/problem+json</code>. "
        "The same as <a href=/v1/openapi.json>OpenAPI 3.1</a>.</p>" + rows + _message_types() + _events() + "</html>"
    )


def _section(row: OperationRow) -> str:
    fields = RECORD_SCHEMAS[row.request.__name__]
    lines = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(_type(schema))}"
        f"<td>{'required' if name in fields['required'] else ''}"
        for name, schema in fields["properties"].items()
    )
    example = html.escape(json.dumps(as_json(row.example[0]), ensure_ascii=False))
    result = html.escape(json.dumps(as_json(row.example[1]), ensure_ascii=False, indent=1))
    return (
        f"<h2 id={row.name}><code>POST {_path(row)}</code></h2><p>{html.escape(row.summary)} "
        f"{html.escape(_description(row))}</p><p>{_as_html(_fields_in_words(row))}</p><table>{lines}</table><pre>{example}</pre><pre>{result}</pre>"
    )


def _as_html(words: str) -> str:
    return re.sub("``(.*?)``", r"<code>\1</code>", html.escape(words))


def _message_types() -> str:
    """Return the table of the types that a backend may publish, with the fields of their payloads."""
    lines = "".join(
        f"<tr><td>{kind:d}<td>{MessageType(kind).name.lower()}<td>{_payload_fields(kind)}<td>{rule.lane.name.lower()}"
        for kind, rule in MESSAGE_TYPES.items()
        if Role.APP in rule.post_roles
    )
    return (
        "<h2 id=types>Message types</h2><p>A <code>payload</code> is an array of these fields in their order, or an "
        "object with their names; what has a default may be left out. 128 to 255 are your own types, with any payload."
        f"</p><table><tr><th>type<th>name<th>payload<th>lane{lines}</table>"
    )


def _payload_fields(kind: int) -> str:
    record = PAYLOAD_KINDS[kind]
    schema = RECORD_SCHEMAS[record.__name__]
    return ", ".join(
        f"<code>{name}</code> {html.escape(_type(of))}" + ("" if name in schema["required"] else " (optional)")
        for name, of in schema["properties"].items()
    )


def _events() -> str:
    lines = "".join(f"<tr><td><code>{row.type}</code><td>{html.escape(row.summary)}" for row in EVENTS)
    return (
        "<h2 id=events>Events of webhooks</h2><p>Their fields are under <code>webhooks</code> of the OpenAPI document."
        f"</p><table>{lines}</table>"
    )


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(SCHEMA_PREFIX)
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}"
    return str(schema.get("type", "any value"))
