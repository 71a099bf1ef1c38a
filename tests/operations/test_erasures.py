"""Erasure of a user: nothing of it is left, in memory or in the file, and nothing of others is touched."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given

from broker.ledger import ACTIVITY_FACTS, Entry, LedgerState, Reader
from broker.ledger.backup import back_up
from broker.ledger.erasures import user_erased_of
from broker.ledger.orders import order_of
from broker.ledger.replay import replay
from broker.operations import erasures
from broker.operations.caller import OperationError
from protocol.codes import CloseCode, ErrorCode, MessageType
from protocol.frames import pack_body, unpack_body
from protocol.operations.users import ErasureState
from tests.support.broker import raw_link, running_broker
from tests.support.durable import DurableBroker, disk
from tests.support.erasing import (
    EVERYTHING,
    VICTIM,
    Step,
    Untouched,
    amounts_of,
    erase,
    erasing_broker,
    finished,
    histories,
    marks_in_files,
    marks_in_memory,
    populate,
)
from tests.support.examples import examples
from tests.support.faulty_disk import FaultyStore, crashed_copy, disk_error, quick_directory
from tests.support.logins import login, refused
from tests.support.operating import exported, operate
from tests.support.tokens import HS256, SECRET, sign
from tests.support.until import until

pytestmark = pytest.mark.integration


def money_of(reader: Reader) -> list[tuple[Any, ...]]:
    """Return what was paid in every room, and by how many users, whoever they are."""
    rooms = replay(entry for entry, *_ in reader.entries()).values()
    return [
        (room.room, room.gifts, room.gift_cents, room.orders, room.order_cents, sorted(room.cents_by_user.values()))
        for room in rooms
        if room.room
    ]


def assert_kept(before: Untouched, after: Untouched) -> None:
    """Check that everything but the user is there as it was, and that the chain only grew."""
    assert before.entries.items() <= after.entries.items()
    assert after.hashes[: len(before.hashes)] == before.hashes
    assert (after.inboxes, after.keys) == (before.inboxes, before.keys)
    assert [row for row in before.directs if row not in after.directs] == []
    # A gift that waited for its combo may have raised a score since.
    names = {row[:3] for row in after.records if row[0] == "room.score"}
    gone = [row for row in before.records if row not in after.records and row[:3] not in names]
    assert [row for row in gone if row[0] not in ("room.key", "room.combo")] == []
    assert [row for row in before.outbox if row not in after.outbox] == []
    assert after.gift_reports == before.gift_reports


@examples(12)
@example(EVERYTHING)
@given(histories)
def test_nothing_of_an_erased_user_is_left_and_all_of_the_others(history: Sequence[Step]) -> None:
    async def check() -> None:
        with quick_directory() as root:
            directory = root / "data"
            async with erasing_broker(directory) as broker:
                await populate(broker, history)
                assert broker.ledger is not None
                before = await broker.ledger.ask(Untouched)
                paid, amounts = await broker.ledger.ask(money_of), amounts_of(broker)
                state = await erase(broker)
                assert amounts_of(broker) == amounts
                assert marks_in_memory(broker) == []
                crashed_copy(directory, root / "crashed")
                await broker.ledger.ask(back_up, root / "copy.db")
                assert {path.name for path in directory.iterdir()} >= {"ledger.db", "ledger.db-wal", "ledger.head"}
                assert marks_in_files(root) == []
                await broker.ledger.ask(Reader.verify_all)
                assert_kept(before, await broker.ledger.ask(Untouched))
                assert await broker.ledger.ask(money_of) == paid
                assert await broker.ledger.ask(Reader.redacted) == state.entries
            assert marks_in_files(directory) == []
            async with erasing_broker(directory) as broker:
                assert marks_in_memory(broker) == []
                assert amounts_of(broker) == amounts

    trio.run(check)


class CopyingStore(FaultyStore):
    """Disk that keeps what a kill would leave behind each commit, while `copies` is a directory."""

    copies: Path | None = None

    def _finish(self) -> None:
        super()._finish()
        if self.copies is not None:
            crashed_copy(self.path.parent, self.copies / f"{len(list(self.copies.iterdir())):03}")


class CopiedBroker(DurableBroker):
    def _open_store(self, path: Path) -> FaultyStore:
        self.store = self.store or CopyingStore(path)
        return self.store


async def test_an_erasure_goes_on_after_a_kill_behind_each_of_its_commits() -> None:
    with quick_directory() as root:
        directory, copies = root / "data", root / "copies"
        copies.mkdir()
        async with erasing_broker(directory, CopiedBroker) as broker:
            await populate(broker, EVERYTHING)
            assert broker.ledger is not None
            assert isinstance(broker, DurableBroker)
            before = await broker.ledger.ask(Untouched)
            paid = await broker.ledger.ask(money_of)
            assert isinstance(broker.store, CopyingStore)
            broker.store.copies = copies
            await erase(broker)
            broker.store.copies = None
        names = sorted(copies.iterdir())
        assert len(names) >= 8
        for copy in names:
            async with erasing_broker(copy) as broker:
                await finished(broker)
                assert broker.ledger is not None
                assert marks_in_memory(broker) == []
                assert marks_in_files(copy) == []
                assert await broker.ledger.ask(money_of) == paid
                after = await broker.ledger.ask(Untouched)
                assert before.entries.items() <= after.entries.items()
                assert after.hashes[: len(before.hashes)] == before.hashes
            shutil.rmtree(copy)


async def test_an_erasure_ends_the_connections_of_the_user_and_refuses_its_tokens(directory: Path) -> None:
    now_s = int(time.time())
    claims = {"sub": VICTIM, "aud": "roomcast", "exp": now_s + 3600, "rooms": [{"pattern": "*"}]}
    old, new = (sign(HS256, claims | {"iat": now_s + age_s}) for age_s in (-60, 20))
    settings: dict[str, Any] = {"auth": {"secret": SECRET}, "ledger": {"data_dir": str(directory)}}
    async with running_broker(kind=DurableBroker, **settings) as broker, raw_link(broker) as link:
        await login(link, old)
        await link.join("live-1")
        await operate(broker, "directs.send", VICTIM, 4, ["secret"])
        await erase(broker)
        assert (await link.expect_close()).code == CloseCode.KICKED
        assert await refused(broker, old) == CloseCode.TOKEN_REVOKED
        assert marks_in_files(directory) == []
        async with raw_link(broker) as again:
            assert (await login(again, new)).user_id == VICTIM
    async with running_broker(kind=DurableBroker, **settings) as broker:
        assert await refused(broker, old) == CloseCode.TOKEN_REVOKED


async def test_only_a_confirmed_erasure_begins_and_only_its_tenant_knows_it(directory: Path) -> None:
    async with erasing_broker(directory) as broker:
        with pytest.raises(OperationError, match="confirm must be the user id again"):
            await operate(broker, "users.erase", VICTIM, "bob")
        assert broker.erasures is not None
        assert broker.erasures.unfinished == 0
        started = await operate(broker, "users.erase", VICTIM, VICTIM, tenant="acme")
        again = await operate(broker, "users.erase", VICTIM, VICTIM, tenant="acme")
        other = await operate(broker, "users.erase", VICTIM, VICTIM)
        assert again == started != other
        with pytest.raises(OperationError, match="names no erasure"):
            await operate(broker, "users.erase_state", started.job)
        await finished(broker)
        assert (await operate(broker, "users.erase_state", started.job, tenant="acme")).state is ErasureState.DONE
        assert (await operate(broker, "users.erase", VICTIM, VICTIM, tenant="acme")).job != started.job
    async with erasing_broker(directory) as broker:
        await finished(broker)
        assert (await operate(broker, "users.erase_state", other.job)).state is ErasureState.DONE


async def test_the_same_id_in_another_tenant_is_another_user(directory: Path) -> None:
    async with erasing_broker(directory) as broker:
        for tenant in ("", "acme"):
            await operate(broker, "rooms.open", "live-1", tenant=tenant)
            await operate(broker, "users.set_tags", VICTIM, ["gold"], tenant=tenant)
            await operate(broker, "messages.publish", "live-1", 4, ["secret"], "", VICTIM, tenant=tenant)
            await operate(broker, "directs.send", VICTIM, 4, ["secret"], tenant=tenant)
        await erase(broker, tenant="acme")
        assert (await exported(broker, VICTIM, tenant="acme"))[0] == []
        kinds = [each["kind"] for each in (await exported(broker, VICTIM))[0]]
        assert kinds == ["tags", "direct", "event"]
        assert (await operate(broker, "rooms.history", "live-1")).items[0].user == VICTIM


async def test_an_erasure_waits_for_a_disk_that_fails(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasures, "RETRY_S", 0.01)
    async with erasing_broker(directory) as broker:
        await populate(broker, EVERYTHING)
        started = await operate(broker, "users.erase", VICTIM, VICTIM)
        disk(broker).fault = disk_error("SQLITE_FULL")
        assert broker.ledger is not None
        await until(lambda: broker.ledger is not None and broker.ledger.state is LedgerState.DEGRADED)
        assert (await operate(broker, "users.erase_state", started.job)).state is ErasureState.REDACTING
        disk(broker).fault = None
        await finished(broker)
        assert marks_in_files(directory) == []


async def test_the_ledger_says_who_let_erase_which_pseudonym_and_when(directory: Path) -> None:
    async with erasing_broker(directory) as broker:
        await operate(broker, "rooms.open", "live-1")
        order = "order 1", VICTIM, "Vic the Great", "rose", 2, 100, ""
        await operate(broker, "messages.publish", "live-1", int(MessageType.GIFT), order)
        state = await erase(broker)
        assert broker.ledger is not None
        entries = await broker.ledger.ask(lambda reader: [entry for entry, *_ in reader.entries()])
        (erased,) = filter(None, map(user_erased_of, entries))
        assert (erased.by, erased.asked_at_ms, erased.entries, state.entries) == ("shop", state.asked_at_ms, 4, 4)
        (paid,) = filter(None, map(order_of, entries))
        assert (paid.order_id, paid.user_id, paid.name, paid.count) == ("order 1", erased.pseudonym, "", 2)
        gift, _ = (await operate(broker, "rooms.history", "live-1")).items
        assert gift.payload[:2] == ("order 1", erased.pseudonym)


async def test_facts_of_a_kind_that_is_not_known_lose_the_id_too(directory: Path) -> None:
    facts = pack_body(("jumps", "s1", (("claimed", (1, VICTIM, 2)), ("claimed", (2, "bob", 1)))))
    async with erasing_broker(directory) as broker:
        assert broker.ledger is not None
        now_ms = broker.clock.now_ms()
        broker.ledger.record((Entry("runs", 7, None, ACTIVITY_FACTS, now_ms, facts),), lambda result: None)
        await erase(broker)
        entries = await broker.ledger.ask(lambda reader: [entry for entry, *_ in reader.entries()])
        (erased,) = filter(None, map(user_erased_of, entries))
        (body,) = [unpack_body(entry.body) for entry in entries if entry.kind == ACTIVITY_FACTS]
        assert body == ("jumps", "s1", (("claimed", (1, erased.pseudonym, 2)), ("claimed", (2, "bob", 1))))


async def test_a_user_who_is_being_erased_can_do_nothing_new(directory: Path) -> None:
    async with erasing_broker(directory) as broker:
        await operate(broker, "rooms.open", "live-1")
        await operate(broker, "coupons.create", "live-1", "new", 5, key="c1")
        with broker.revocations.refusing(VICTIM):
            for operation, request in (
                ("coupons.issue", ("live-1", "new", VICTIM)),
                ("users.set_tags", (VICTIM, ["gold"])),
                ("audiences.set_tags", ("live-1", [VICTIM], None)),
            ):
                with pytest.raises(OperationError, match="is being erased") as refusal:
                    await operate(broker, operation, *request, key="k1")
                assert refusal.value.code is ErrorCode.LOCKED
            await operate(broker, "coupons.issue", "live-1", "new", "bob", key="k2")
        await operate(broker, "coupons.issue", "live-1", "new", VICTIM, key="k1")
