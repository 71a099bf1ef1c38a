"""Configuration of questions, and an application that answers them as a test says."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from tests.support.receiver import Answer, Received, http_reply

__all__ = ["SECRET", "answering", "misbehaving", "questions_to"]

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def questions_to(url: str, directory: Path, **kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the section of a configuration that asks an endpoint at ``url``; ``kinds``: the settings of each."""
    secret = directory / "webhook-secret"
    secret.write_text(SECRET, encoding="utf-8")
    secret.chmod(0o600)
    return {
        "endpoints": [{"name": "shop", "url": url, "secret_file": str(secret)}],
        "questions": {kind: {"endpoint": "shop", **settings} for kind, settings in kinds.items()},
    }


def answering(decide: Callable[[dict[str, Any]], Any | Awaitable[Any]]) -> Answer:
    """Return what answers each question with the JSON that ``decide`` makes of it; None = 204."""

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        value = decide(json.loads(received.body))
        if isinstance(value, Awaitable):
            value = await value
        return http_reply(204) if value is None else http_reply(200, json.dumps(value).encode())

    return answer


async def _hang(received: Received, stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def _ten_gigabytes(received: Received, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n")
    while True:
        await stream.send_all(b"x" * 65536)


async def _drip(received: Received, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        await stream.send_all(b"{")
        await trio.sleep(0.02)


def _always(data: bytes | None) -> Answer:
    async def answer(received: Received, stream: trio.abc.Stream) -> bytes | None:
        return data

    return answer


misbehaving: dict[str, Answer] = {
    "hang": _hang,
    "drip": _drip,
    "ten-gigabytes": _ten_gigabytes,
    "cut": _always(None),
    "garbage": _always(b"\x00garbage\r\n\r\n"),
    "500": _always(http_reply(500, b'{"action":"allow"}')),
    "301": _always(http_reply(301, b'{"action":"allow"}', location="http://127.0.0.1:1/")),
    "no-json": _always(http_reply(200, b"ok")),
    "wrong-types": _always(http_reply(200, b'{"action":{"allow":true}}')),
    "unknown-action": _always(http_reply(200, b'{"action":"shrug"}')),
    "array": _always(http_reply(200, b'["allow"]')),
    "deep": _always(http_reply(200, b"[" * 60_000)),
}
"""Receivers that answer no question, by name."""
