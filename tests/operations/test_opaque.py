"""Opaque types carry base64 that the broker does not read: it is passed on and kept as it is, and not moderated."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from broker.operations.caller import OperationError
from protocol.codes import ErrorCode, Outcome
from protocol.messages import Ack, Event
from tests.support.broker import raw_link, running_broker

pytestmark = pytest.mark.integration

SEALED, NOTE = 200, 201
TYPES: list[dict[str, Any]] = [
    {"id": SEALED, "name": "sealed", "lane": "commerce", "opaque": True, "roles": ["viewer", "app"], "burst": 100},
    {"id": NOTE, "name": "note", "lane": "commerce", "roles": ["viewer", "app"], "burst": 100},
]
CIPHERTEXT = base64.b64encode(b"whatever it is").decode()


def settings(tmp_path: Path) -> dict[str, Any]:
    words = tmp_path / "words.txt"
    words.write_text(CIPHERTEXT + "\n", encoding="utf-8")
    lists = [{"name": "worst", "file": str(words), "action": "block", "category": "any"}]
    return {"types": TYPES, "moderation": {"lists": lists}}


async def test_an_opaque_payload_is_passed_on_where_the_same_text_of_another_type_is_blocked(tmp_path: Path) -> None:
    async with running_broker(**settings(tmp_path)) as broker, raw_link(broker) as ann, raw_link(broker) as bob:
        for link, user in ((ann, "ann"), (bob, "bob")):
            await link.login(f"dev:{user}")
        room, _ = await ann.join("live-1")
        await bob.join("live-1")
        await ann.post(room, 1, NOTE, CIPHERTEXT)
        _, ack = await ann.expect(Ack)
        assert ack.results[0].detail == ErrorCode.BLOCKED
        await ann.post(room, 2, SEALED, CIPHERTEXT)
        _, event = await bob.expect(Event)
        assert (event.type, event.payload, event.user_id) == (SEALED, CIPHERTEXT, "ann")


@pytest.mark.parametrize("payload", ["", "no base64!", "YQ=", "YQ==\n", "ÄÖ==", 7, None, ["YQ=="], {"text": "YQ=="}])
async def test_another_payload_of_an_opaque_type_is_refused_on_every_way_in(directory: Path, payload: Any) -> None:
    async with running_broker(types=TYPES, ledger={"data_dir": str(directory)}) as broker, raw_link(broker) as ann:
        await ann.login("dev:ann")
        room, _ = await ann.join("live-1")
        await ann.post(room, 1, SEALED, payload)
        _, ack = await ann.expect(Ack)
        assert (ack.results[0].outcome, ack.results[0].detail) == (Outcome.REJECTED, ErrorCode.BAD_FIELD)
        for operation, whose in (("messages.publish", {"room": "live-1"}), ("directs.send", {"user": "ann"})):
            with pytest.raises(OperationError) as refused:
                await broker.call(operation, **whose, type=SEALED, payload=payload)  # type: ignore[arg-type]
            assert (refused.value.code, refused.value.field) == (ErrorCode.BAD_FIELD, "payload")
