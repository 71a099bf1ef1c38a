"""Texts that no encoder takes, in every field of every operation over HTTP: refused as a field, never a defect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS
from tests.support.api import API, client_of
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration

HALF = "\ud800"
ROOM = [
    ("rooms.open", {"room": "live-1"}),
    ("messages.publish", {"room": "live-1", "type": 200, "payload": 1}),
]
ENDING = {"broker.drain", "broker.rotate_keys"}


def with_halves(value: Any) -> Any:
    """Return JSON with half of a surrogate pair in place of each text."""
    if isinstance(value, dict):
        return {HALF: 1} | {name: with_halves(each) for name, each in value.items()}
    return [with_halves(each) for each in value] if isinstance(value, list) else HALF


async def test_half_of_a_surrogate_pair_is_refused_in_every_field(directory: Path) -> None:
    types = [{"id": 200, "name": "note", "lane": "commerce"}]
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    async with durable_broker(directory, api=API, types=types) as broker, client_of(broker) as client:
        for name, request in ROOM:
            assert (await client.post(f"/v1/{name.replace('.', '/')}", json=request)).status_code == 200
        tried = 0
        for row in OPERATIONS:
            example = as_json(row.example[0])
            if row.name == "messages.publish":
                example |= {"type": 200}
            for field, value in example.items():
                if row.name in ENDING or value is None or isinstance(value, bool | int):
                    continue
                body = json.dumps(example | {field: with_halves(value)})
                answer = await client.post(f"/v1/{row.name.replace('.', '/')}", content=body, headers=headers)
                assert 400 <= answer.status_code < 500, (row.name, field, answer.text)
                tried += 1
        assert tried > len(BY_NAME)
        value = json.dumps({"room": "live-1", "name": "price", "value": HALF})
        answer = await client.post("/v1/keys/set", content=value, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["field"]) == (400, "value")
