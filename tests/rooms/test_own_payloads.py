"""Messages of the deployment's own types hold any value: none of them ends a room, whatever looks into messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol.codes import MessageType, Outcome
from protocol.messages import Ack, Post
from protocol.payloads import DanmakuPayload
from tests.support.broker import RawLink, joined_link, raw_link
from tests.support.durable import durable_broker
from tests.support.operating import operate

CHAT, EVENT = 141, 142
PAYLOADS: list[Any] = [
    {"a": 1}, {}, (), ({},), ({"a": ({},)}, 1), None, True, 0, -1.5, "badword", ("bad", "word"), (("badword",),), 2**62,
    (None, "hi"), {"text": "hi"}, ("hi", None, None),
]  # fmt: skip


def settings(tmp_path: Path) -> dict[str, Any]:
    words = tmp_path / "words.txt"
    words.write_text("badword\n", encoding="utf-8")
    of_type = {"roles": ["viewer"], "rate_per_s": 1000.0, "burst": 1000}
    return {
        "room": {"user_chat_per_s": 1000.0, "user_chat_burst": 1000, "tick_ms": 20},
        "privacy": {"mask_names_for_guests": True},
        "types": [
            {"id": CHAT, "name": "note", "lane": "chat", **of_type},
            {"id": EVENT, "name": "event", "lane": "commerce", **of_type},
        ],
        "moderation": {
            "lists": [{"name": "w", "file": str(words), "action": "mask"}],
            "detectors": {"links": "mask", "repetition": "flag", "near_duplicates": "shadow"},
            "hints": [{"id": "h", "words": "hi", "template": "{name} {word}"}],
            "raid_repeats": 1000,
        },
    }


async def outcome(link: RawLink, number: int) -> Outcome:
    while True:
        _, ack = await link.expect(Ack)
        for each in ack.results:
            if each.sequence == number:
                return each.outcome


@pytest.mark.integration
@pytest.mark.parametrize("rules", [{}, {"pre_review": True}])
async def test_no_payload_of_an_own_type_ends_a_room(tmp_path: Path, rules: dict[str, Any]) -> None:
    async with (
        durable_broker(tmp_path / "data", **settings(tmp_path)) as broker,
        joined_link(broker, "dev:ann") as (ann, number),
        joined_link(broker, "dev:bob") as (bob, bobs),
        joined_link(broker, "dev:mod:moderator"),
        raw_link(broker) as guest,
    ):
        await guest.login()
        await guest.join()
        room = broker.hub.find("lobby")
        await operate(broker, "moderation.set_modes", "lobby", 0, -1, False, False, True, False, False, 20)
        await operate(broker, "rooms.set_rules", "lobby", rules)
        for sequence, payload in enumerate(PAYLOADS, 1):
            await bob.send(
                (Post(CHAT, "", payload), bobs, 2 * sequence), (Post(EVENT, "", payload), bobs, 2 * sequence + 1)
            )
            said = DanmakuPayload(f"hi {sequence}")
            await ann.send((Post(MessageType.DANMAKU, f"k-{sequence}", said), number, sequence))
            assert await outcome(ann, sequence) is not Outcome.REJECTED
            assert await outcome(bob, 2 * sequence) is not Outcome.REJECTED
        assert broker.hub.find("lobby") is room
        assert room is not None
