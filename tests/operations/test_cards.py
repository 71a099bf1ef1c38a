"""Cards over a real broker and ledger: the platform alone sends them, and each state of one arrives once."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.config.schema import ConfigError
from broker.ledger import Reader
from broker.operations.caller import OperationError
from broker.users.cards import OF_USER
from protocol.codes import ErrorCode, MessageType
from tests.support.broker import configuration
from tests.support.conversations import do, event, group, refusal
from tests.support.directs import login, nothing_more
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.operating import operate

pytestmark = pytest.mark.integration


def payment(id: str = "p-1", status: str = "paid", version: int = 0, **more: Any) -> dict[str, Any]:
    return {"kind": "payment", "id": id, "status": status, "version": version, "title": "Payment", **more}


async def send(broker: Any, card: dict[str, Any], **target: str) -> Any:
    return await broker.call("cards.send", card=card, **target)


async def test_repeated_shuffled_and_simultaneous_reports_show_each_state_once_also_after_a_crash(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    reports = [payment(status=status) for status in ("pending", "paid", "failed")] * 3
    random.Random(5).shuffle(reports)
    async with durable_broker(first) as broker:
        async with trio.open_nursery() as nursery:
            for report in reports[:5]:
                nursery.start_soon(partial(send, broker, report, user="ann"))
        for report in reports[5:]:
            await send(broker, report, user="ann")
        crashed_copy(first, second)
    async with durable_broker(second) as broker, login(broker, "ann") as ann:
        shown = [(await event(ann, "cards.changed"))[1]["status"]]
        while shown[-1] != "paid":
            shown.append((await event(ann, "cards.changed"))[1]["status"])
        assert shown == sorted(set(shown), key=["pending", "failed", "paid"].index)
        late = await send(broker, payment(status="failed", version=7), user="ann")
        assert (late.sent, late.number, late.status.name, late.version) == (False, 0, "PAID", 0)
        refund = await send(broker, payment(status="refunded"), user="ann")
        assert refund.sent
        number, data = await event(ann, "cards.changed")
        assert (number, data["status"]) == (refund.number, "refunded")
        await nothing_more(ann)


async def test_a_card_in_a_conversation_is_a_message_of_the_platform(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "bob") as bob:
        pair = (await do(broker, "ann", "open", user="bob")).id
        parcel = {"kind": "logistics", "id": "l-1", "status": "in_transit", "version": 1, "title": "On its way"}
        assert (await send(broker, parcel, conversation=pair)).number == 1
        assert not (await send(broker, parcel, conversation=pair)).sent
        assert (await send(broker, {**parcel, "version": 2}, conversation=pair)).number == 2
        for offset in (1, 2):
            _, data = await event(bob)
            assert (data["offset"], data["user"], data["text"]) == (offset, "", "On its way")
            assert (data["card"]["id"], data["card"]["version"]) == ("l-1", offset)
        for name in ("ann", "bob"):
            assert (await do(broker, name, "get", conversation=pair)).unread == 2
            assert await refusal(broker, name, "recall", conversation=pair, offset=1) == (
                ErrorCode.NOT_ALLOWED, "offset",
            )  # fmt: skip
        with pytest.raises(OperationError) as caught:
            await send(broker, parcel, conversation="other")
        assert caught.value.code is ErrorCode.UNKNOWN_CONVERSATION


async def test_a_client_that_forges_a_card_is_refused(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "bob") as bob:
        id = await group(broker, "ann", "bob")
        await event(bob, "joined")
        with pytest.raises(OperationError) as caught:
            await do(broker, "ann", "cards.send", card=payment(), user="bob")
        assert caught.value.code is ErrorCode.NOT_ALLOWED
        await do(broker, "ann", "send", conversation=id, text="paid", card=payment())
        _, data = await event(bob)
        assert (data["user"], data["card"]) == ("ann", None)  # a request has no such field
        with pytest.raises(OperationError) as caught:
            await operate(broker, "directs.send", "bob", int(MessageType.ACTIVITY), ["cards.changed", "p", payment()])
        assert caught.value.code is not None
        await nothing_more(bob)
    with pytest.raises(ConfigError, match="name"):
        configuration(types=[{"id": 200, "name": "cards.changed", "lane": "commerce"}])


async def test_bad_reports_name_their_field_and_old_cards_make_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.users.cards.MAX_CARDS", 2)
    async with durable_broker(directory) as broker:
        for card, target, field in (
            (payment(), {}, "user"), (payment(), {"user": "ann", "conversation": "tea"}, "user"),
            (payment(status="shipped"), {"user": "ann"}, "card.status"),
            (payment(status="gone"), {"user": "ann"}, "card.status"),
            (payment(version=-1), {"user": "ann"}, "card.version"),
        ):  # fmt: skip
            with pytest.raises(OperationError) as caught:
                await send(broker, card, **target)
            assert (caught.value.code, caught.value.field) == (ErrorCode.BAD_FIELD, field)
        for number in range(4):
            assert (await send(broker, payment(f"p-{number}"), user="ann")).sent
        assert broker.ledger is not None
        kept = await broker.ledger.ask(Reader.records, OF_USER, "ann")
        assert sorted(each.name for each in kept) == ["payment p-2", "payment p-3"]
