"""Webhooks in tests: settings of an endpoint on loopback, and its events as the published library verifies them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.support.receiver import Received, Receiver

__all__ = ["SECRET", "config_file", "event_of", "events_of", "firsts", "hook_settings", "secret_file"]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def secret_file(directory: Path, *secrets: str) -> str:
    """Write the secret, or other ones, to a file that only its owner may read; return its path."""
    path = directory / "hook.secret"
    path.touch(mode=0o600)
    path.write_text("\n".join(secrets or (SECRET,)))
    return str(path)


def hook_settings(directory: Path, url: str, *events: str, name: str = "shop", **more: Any) -> dict[str, Any]:
    """Return the section [webhooks] with one endpoint that asks for ``events``, by default for all; ``more``: its
    other settings, or (with a dictionary ``webhooks``) those of the section."""
    section = more.pop("webhooks", {})
    endpoint = {"name": name, "url": url, "secret_file": secret_file(directory), "events": list(events or ("*",))}
    return {"endpoints": [{**endpoint, **more}], **section}


def event_of(received: Received) -> Any:
    """Return the event of a request, verified; its id is that of the header. Any: JSON."""
    event = Webhook(SECRET).verify(received.body.decode(), received.headers)
    assert event["id"] == received.headers["webhook-id"]
    return json.loads(received.body)


def events_of(receiver: Receiver) -> list[Any]:
    """Return the events of all requests, repeated ones included."""
    return [event_of(received) for received in receiver.requests]


def config_file(directory: Path, url: str, *events: str, api: int | None = None) -> Path:
    """Write a configuration with one endpoint."""
    (endpoint,) = hook_settings(directory, url, *events)["endpoints"]
    lines = [f'[ledger]\ndata_dir = "{directory / "data"}"']
    if api is not None:
        lines.append(f'[api]\nlisten = "127.0.0.1:{api}"')
    lines.append("[[webhooks.endpoints]]")
    lines += [f"{name} = {json.dumps(value)}" for name, value in endpoint.items()]
    path = directory / "roomcast.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def firsts(events: Sequence[dict[str, Any]], room: str) -> list[int]:
    """Return the offsets of a room's events in the order in which each first arrived."""
    return list(dict.fromkeys(event["offset"] for event in events if event["room"] == room))
