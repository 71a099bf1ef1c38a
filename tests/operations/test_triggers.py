"""Triggered marketing over a real broker and ledger: sent once, cancelled, kept over a crash, and only if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.operations.caller import OperationError
from broker.server import Broker
from broker.users import triggered
from protocol.codes import ErrorCode
from tests.support.clocks import advance
from tests.support.conversations import do, event
from tests.support.directs import login, nothing_more
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.operating import operate
from tests.support.until import until

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggered, "TICK_S", 0.01)


async def rule(broker: Broker, id: str = "come-back", **more: Any) -> None:
    await broker.call(
        "marketing.put_rule",
        id=id,
        trigger="viewed",
        title="Still thinking about {product}?",
        cancelled_by="bought",
        **more,
    )


async def report(broker: Broker, trigger: str = "viewed", user: str = "ann", **more: Any) -> Any:
    more.setdefault("values", {"product": "the mug"})
    return await broker.call("marketing.report", user=user, trigger=trigger, **more)


def counts(answer: Any) -> dict[str, int]:
    return {name: count for name, count in answer._asdict().items() if count}


def waiting(broker: Broker) -> int:
    assert broker.talk is not None
    return broker.talk.waiting_offers


async def test_an_offer_is_sent_at_once_or_later_once_within_its_cooldown(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann:
        pair = (await do(broker, "ann", "open", user="shop")).id
        await rule(broker, url="https://shop.example/mug")
        assert counts(await report(broker, subject="mug-1", conversation=pair)) == {"sent": 1}
        number, data = await event(ann, "marketing.offered")
        assert number > 0
        assert data == {
            "trigger": "viewed", "subject": "mug-1", "title": "Still thinking about the mug?", "text": "",
            "url": "https://shop.example/mug", "conversation": pair,
        }  # fmt: skip
        assert counts(await report(broker, subject="mug-2")) == {"repeated": 1}
        await rule(broker, "later", delay_s=1800)
        assert counts(await report(broker, subject="mug-1")) == {"repeated": 1, "waiting": 1}
        assert counts(await report(broker, subject="mug-1")) == {"repeated": 1, "waiting": 1}, "in place of the first"
        assert waiting(broker) == 1
        advance(60_000)
        await nothing_more(ann)
        assert counts(await report(broker, "bought", subject="mug-2")) == {}
        advance(1_750_000)
        assert (await event(ann, "marketing.offered"))[1]["subject"] == "mug-1"
        await until(lambda: waiting(broker) == 0)


async def test_what_waits_survives_a_crash_and_is_cancelled_by_what_the_user_does(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    async with durable_broker(first) as broker:
        await rule(broker, delay_s=1800)
        for user in ("ann", "bob", "cem", "dan"):
            await report(broker, user=user, subject="mug-1")
        assert counts(await report(broker, "bought", user="bob")) == {"cancelled": 1}
        await operate(broker, "users.set_preferences", "cem", False)
        crashed_copy(first, second)
    async with durable_broker(second) as broker, login(broker, "ann") as ann, login(broker, "cem") as cem:
        assert waiting(broker) == 3
        assert [each.id for each in (await operate(broker, "marketing.rules")).items] == ["come-back"]
        await operate(broker, "users.erase", "dan", "dan")
        await until(lambda: waiting(broker) == 2)
        advance(1_900_000)
        assert (await event(ann, "marketing.offered"))[0] > 0
        await until(lambda: waiting(broker) == 0)
        await nothing_more(cem)
        assert counts(await report(broker, user="bob")) == {"waiting": 1}
        assert (await operate(broker, "marketing.remove_rule", "come-back")).removed
        advance(1_900_000)
        await until(lambda: waiting(broker) == 0)
        assert (await operate(broker, "directs.list", "bob")).items == ()
    async with durable_broker(second) as broker:
        assert waiting(broker) == 0


async def test_preferences_caps_and_quiet_hours_hold_and_what_is_wrong_is_named(directory: Path) -> None:
    async with durable_broker(directory, privacy={"marketing_per_day": 1}) as broker:
        await rule(broker)
        await rule(broker, "second")
        await operate(broker, "users.set_preferences", "bob", False)
        assert counts(await report(broker, user="bob")) == {"suppressed": 2}
        assert counts(await report(broker)) == {"sent": 1, "suppressed": 1}
        for fields, code, field in (
            ({"values": {}}, ErrorCode.BAD_FIELD, "values"),
            ({"conversation": "tea"}, ErrorCode.UNKNOWN_CONVERSATION, "conversation"),
        ):
            with pytest.raises(OperationError) as caught:
                await report(broker, **fields)
            assert (caught.value.code, caught.value.field) == (code, field)
        with pytest.raises(OperationError) as caught:
            await do(broker, "ann", "marketing.report", user="bob", trigger="viewed")
        assert caught.value.code is ErrorCode.NOT_ALLOWED
