"""Must-deliver messages on real links: in order, until acknowledged or expired, over links, devices and restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.ledger import Committed, DirectState, FailureKind, LedgerError, LedgerResult, Reader, Repeated, SubmitResult
from broker.server import Broker
from broker.users import inbox as inboxes
from broker.users.inbox import MAX_PAYLOAD_BYTES, WINDOW, BatchResult
from protocol import connection
from protocol.direct_batches import TemplateError
from protocol.frames import pack_body
from protocol.messages import Direct, DirectAck
from tests.support.broker import RawLink, raw_link
from tests.support.directs import ack, acked, login, nothing_more, until_nothing_pends, until_state
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration

COUPON = 200


async def send(broker: Broker, user: str, text: str, **options: Any) -> LedgerResult:
    """Send one message and wait until it is settled."""
    assert broker.inboxes is not None
    results: list[LedgerResult] = []
    assert broker.inboxes.send(user, COUPON, {"text": text}, results.append, **options) is SubmitResult.QUEUED
    assert broker.ledger is not None
    await broker.ledger.flush()
    return results[0]


async def take(link: RawLink, count: int) -> list[tuple[int, str]]:
    """The next messages: number and text."""
    found = []
    for _ in range(count):
        _, direct = await link.expect(Direct)
        assert direct.type == COUPON
        found.append((direct.direct_id, direct.payload["text"]))
    return found


async def test_a_message_reaches_every_device_of_its_user_and_no_other(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as phone, login(broker, "ann") as tablet:
        async with login(broker, "bob") as bob:
            assert await send(broker, "ann", "code 1") == Committed((), (1,))
            assert await take(phone, 1) == await take(tablet, 1) == [(1, "code 1")]
            await nothing_more(bob)


async def test_a_payload_is_packed_once_for_the_ledger_and_all_devices(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = []

    def counting(body: Any) -> bytes:
        if "code 1" in repr(body):
            packed.append(body)
        return pack_body(body)

    monkeypatch.setattr(inboxes, "pack_body", counting)
    monkeypatch.setattr(connection, "pack_body", counting)
    async with durable_broker(directory) as broker, login(broker, "ann") as phone, login(broker, "ann") as tablet:
        await send(broker, "ann", "code 1")
        assert await take(phone, 1) == await take(tablet, 1) == [(1, "code 1")]
    assert len(packed) == 1


async def test_what_is_not_acknowledged_comes_again_on_each_link_in_order(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        for number in (1, 2, 3):
            await send(broker, "ann", f"code {number}")
        async with login(broker, "ann") as first:
            assert await take(first, 3) == [(1, "code 1"), (2, "code 2"), (3, "code 3")]
            await ack(first, 2)
            await acked(broker, "ann", 2)
        async with login(broker, "ann") as second:
            assert await take(second, 1) == [(3, "code 3")]
            await send(broker, "ann", "code 4")
            assert await take(second, 1) == [(4, "code 4")]
            await ack(second, 4)
            await acked(broker, "ann", 4)
        async with login(broker, "ann") as third:
            await nothing_more(third)


async def test_messages_and_acknowledgements_survive_a_restart(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as link:
        for number in (1, 2, 3):
            await send(broker, "ann", f"code {number}")
        await take(link, 3)
        await ack(link, 1)
        await acked(broker, "ann", 1)
    async with durable_broker(directory) as broker, login(broker, "ann") as link:
        assert await take(link, 2) == [(2, "code 2"), (3, "code 3")]
        assert await send(broker, "ann", "code 4") == Committed((), (4,))
        assert await take(link, 1) == [(4, "code 4")]


async def test_a_long_inbox_comes_in_windows(directory: Path) -> None:
    total = 2 * WINDOW + 10
    async with durable_broker(directory) as broker:
        for number in range(1, total + 1):
            await send(broker, "ann", str(number))
        async with login(broker, "ann") as link:
            assert [number for number, _ in await take(link, WINDOW)] == list(range(1, WINDOW + 1))
            await nothing_more(link)
            await send(broker, "ann", "one more")
            await nothing_more(link)
            received = WINDOW
            while received < total + 1:
                await ack(link, received)
                for number, _ in await take(link, min(WINDOW, total + 1 - received)):
                    received += 1
                    assert number == received
            await ack(link, received)
            await acked(broker, "ann", received)
            await nothing_more(link)


async def test_what_a_link_was_never_sent_it_cannot_acknowledge(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as link:
        await send(broker, "ann", "code 1")
        await take(link, 1)
        await ack(link, 2**40)
        await acked(broker, "ann", 1)
        assert await send(broker, "ann", "code 2") == Committed((), (2,))
        assert await take(link, 1) == [(2, "code 2")]
        assert broker.inboxes is not None
        assert await broker.inboxes.state("ann", 2) is DirectState.PENDING


async def test_an_expired_message_is_not_delivered(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert broker.ledger is not None
        await send(broker, "ann", "too late", expires_at_ms=1)
        await send(broker, "ann", "in time")
        await until_state(broker, "ann", 1, DirectState.EXPIRED)
        async with login(broker, "ann") as link:
            assert await take(link, 1) == [(2, "in time")]
        assert await broker.ledger.ask(Reader.outbox_page, None, False, 0, 10) == [], "no endpoint asks for it"


async def cancel(broker: Broker, **which: Any) -> tuple[tuple[str, int], ...]:
    """Cancel messages; return user and number of each."""
    assert broker.inboxes is not None
    assert broker.ledger is not None
    results: list[LedgerResult] = []
    assert broker.inboxes.cancel(results.append, **which) is SubmitResult.QUEUED
    await broker.ledger.flush()
    (result,) = results
    assert isinstance(result, Committed)
    return result.cancelled


async def test_a_cancelled_message_is_not_delivered_to_the_next_link(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        for number in (1, 2, 3):
            await send(broker, "ann", f"code {number}")
        assert await cancel(broker, user="ann", direct_id=2) == (("ann", 2),)
        assert await cancel(broker, user="ann", direct_id=2) == ()
        async with login(broker, "ann") as link:
            assert await take(link, 2) == [(1, "code 1"), (3, "code 3")]
            await ack(link, 3)
            await acked(broker, "ann", 3)
            assert broker.inboxes is not None
            assert await broker.inboxes.state("ann", 2) is DirectState.CANCELLED
            await until_nothing_pends(broker)
            assert await cancel(broker, user="ann", direct_id=3) == (), "one that was shown stays acknowledged"


async def test_a_live_link_is_not_sent_what_was_cancelled_beyond_its_window(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as link:
        for number in range(1, WINDOW + 4):
            await send(broker, "ann", str(number), batch="sale" if number == WINDOW + 2 else "")
        await take(link, WINDOW)
        assert await cancel(broker, batch="sale") == (("ann", WINDOW + 2),)
        await ack(link, WINDOW)
        assert [number for number, _ in await take(link, 2)] == [WINDOW + 1, WINDOW + 3]
        await ack(link, WINDOW + 3)
        await acked(broker, "ann", WINDOW + 3)
        await nothing_more(link)
        assert await send(broker, "ann", "next") == Committed((), (WINDOW + 4,))
        assert await take(link, 1) == [(WINDOW + 4, "next")]


async def test_a_message_that_is_cancelled_while_it_is_read_is_not_delivered(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with durable_broker(directory) as broker:
        assert broker.inboxes is not None
        for number in (1, 2):
            await send(broker, "ann", f"code {number}")
        asked: list[tuple[Any, ...]] = []
        queries = broker.queries
        assert queries is not None

        def capture(*query: Any) -> bool:
            asked.append(query)
            return True

        with monkeypatch.context() as patch:
            patch.setattr(queries, "submit", capture)
            async with login(broker, "ann") as link:
                await until(lambda: asked)
                read, arguments, on_done = asked[0]
                assert broker.ledger is not None
                found = await broker.ledger.ask(read, *arguments)
                assert [each.direct_id for each in found] == [1, 2]
                assert await cancel(broker, user="ann", direct_id=1) == (("ann", 1),)
                patch.undo()
                on_done(found)
                assert await take(link, 1) == [(2, "code 2")]


async def test_a_message_that_was_shown_and_cancelled_stays_cancelled(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        async with login(broker, "ann") as link:
            await send(broker, "ann", "code 1")
            await take(link, 1)
            assert await cancel(broker, user="ann", direct_id=1) == (("ann", 1),)
            await ack(link, 1)
            await until_nothing_pends(broker)
            assert broker.inboxes is not None
            assert await broker.inboxes.state("ann", 1) is DirectState.CANCELLED


async def test_an_inbox_whose_messages_all_expired_is_forgotten(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert broker.inboxes is not None
        await send(broker, "ann", "too late", expires_at_ms=1)
        await until_state(broker, "ann", 1, DirectState.EXPIRED)
        async with login(broker, "ann") as link:
            await nothing_more(link)
            await until_nothing_pends(broker)
            assert await send(broker, "ann", "new") == Committed((), (2,))
            assert await take(link, 1) == [(2, "new")]


async def test_an_inbox_whose_last_message_expired_is_forgotten_with_the_one_before(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert broker.inboxes is not None
        await send(broker, "ann", "in time")
        await send(broker, "ann", "too late", expires_at_ms=1)
        await until_state(broker, "ann", 2, DirectState.EXPIRED)
        async with login(broker, "ann") as link:
            assert await take(link, 1) == [(1, "in time")]
            await nothing_more(link)
            await link.send((DirectAck(1), 0, 0))
            await until_state(broker, "ann", 1, DirectState.ACKED)
            await until_nothing_pends(broker)


async def test_the_same_key_is_the_same_message_for_ever(directory: Path) -> None:
    for life in range(2):
        async with durable_broker(directory) as broker, login(broker, "ann") as link:
            for attempt in range(2):
                settled = await send(broker, "ann", "code", key="order-1")
                assert isinstance(settled, Repeated if life or attempt else Committed)
            assert await take(link, 1) == [(1, "code")]
            await nothing_more(link)


async def test_a_batch_sends_each_user_its_own_code_once(directory: Path) -> None:
    users = {f"user-{number}": {"code": f"C{number:04}"} for number in range(300)}
    template = {"text": "Your code: {code}"}
    async with durable_broker(directory, ledger={"queue_items": 50}) as broker, login(broker, "user-7") as link:
        assert broker.inboxes is not None
        half = dict(list(users.items())[:150])
        assert await broker.inboxes.send_batch("sale", COUPON, template, half) == BatchResult(150, 0, 0)
        assert await broker.inboxes.send_batch("sale", COUPON, template, users) == BatchResult(150, 150, 0)
        assert await take(link, 1) == [(1, "Your code: C0007")]
        await nothing_more(link)
        await ack(link, 1)
        await acked(broker, "user-7", 1)
        progress = await broker.inboxes.progress("sale")
        assert progress == {
            DirectState.PENDING: 299,
            DirectState.ACKED: 1,
            DirectState.EXPIRED: 0,
            DirectState.CANCELLED: 0,
        }
    async with durable_broker(directory) as broker, login(broker, "user-299") as link:
        assert broker.inboxes is not None
        assert await broker.inboxes.send_batch("sale", COUPON, template, users) == BatchResult(0, 300, 0)
        assert await take(link, 1) == [(1, "Your code: C0299")]


async def test_a_batch_with_a_fault_sends_nothing(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert broker.inboxes is not None
        values = {"ann": {"code": "1"}, "bob": {}}
        with pytest.raises(TemplateError, match="code"):
            await broker.inboxes.send_batch("sale", COUPON, "{code}", values)
        with pytest.raises(ValueError, match="above"):
            await broker.inboxes.send_batch("sale", COUPON, "x" * MAX_PAYLOAD_BYTES, values)
        with pytest.raises(ValueError, match="above"):
            broker.inboxes.send("ann", COUPON, "x" * MAX_PAYLOAD_BYTES, lambda settled: None)
        assert sum((await broker.inboxes.progress("sale")).values()) == 0


async def test_a_message_that_is_not_durable_is_not_sent(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as link:
        assert broker.inboxes is not None
        disk(broker).fault = disk_error("SQLITE_FULL")
        settled = await send(broker, "ann", "lost")
        assert isinstance(settled, LedgerError)
        assert settled.kind is FailureKind.DISK_FULL
        await nothing_more(link)
        assert (await broker.inboxes.send_batch("sale", COUPON, "x", {"ann": {}})).failed == 1


async def test_messages_that_could_not_be_read_come_when_they_can_be(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inboxes, "SAVE_AGAIN_S", 0.05)
    async with durable_broker(directory) as broker:
        await send(broker, "ann", "one")

        def cannot(*args: object) -> None:
            raise disk_error("SQLITE_IOERR_READ")

        with monkeypatch.context() as broken:
            broken.setattr(Reader, "inbox", cannot)
            async with raw_link(broker) as link:
                await link.login("dev:ann")
                queries = broker.queries
                assert queries is not None
                await until(lambda: queries.failed)
                broken.undo()
                assert (await link.expect(Direct))[1].direct_id == 1


async def test_users_beyond_what_is_remembered_are_looked_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.users.inbox.MAX_USERS", 2)
    async with durable_broker(directory) as broker:
        for user in ("ann", "bob", "cat", "dan"):
            await send(broker, user, "one")
        async with login(broker, "dan") as link:
            await send(broker, "dan", "two")
            assert await take(link, 2) == [(1, "one"), (2, "two")]
    async with durable_broker(directory) as broker:
        for user, texts in (("cat", ["one"]), ("dan", ["one", "two"]), ("eve", [])):
            async with login(broker, user) as link:
                assert [text for _, text in await take(link, len(texts))] == texts
                await nothing_more(link)
                await send(broker, user, "new")
                assert await take(link, 1) == [(len(texts) + 1, "new")]
