"""The audit: every change by staff or a backend is an entry of the chain, and a user who is erased is in none of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from broker.cli.main import main
from broker.ledger import LedgerState, Reader
from broker.ledger.audits import AuditEntry, erased_audit
from broker.operations.audit_log import NOT_AUDITED, AuditLog, summary_of
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import Role, RoomPhase
from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS, STAFF, KeyUse
from protocol.operations.audit import AuditActor, AuditItem
from protocol.operations.coupons import UploadCodes
from protocol.operations.rooms import SetPhase
from tests.support.broker import running_broker
from tests.support.durable import DurableBroker, durable_broker
from tests.support.erasing import VICTIM, erase, marks_in, marks_in_files
from tests.support.faulty_disk import disk_error
from tests.support.operating import operate
from tests.support.tenants import backend
from tests.support.until import until

ENDS = frozenset({"broker.drain"})
"""Operations that end the broker."""


def staff(user: str, role: Role = Role.MODERATOR) -> Caller:
    return Caller(
        user, user, "10.0.0.1", lambda room: role, frozenset({role}), joined_at_ms=lambda room: 1
    )  # fmt: skip


async def call(broker: Broker, caller: Caller, name: str, **fields: Any) -> Any:
    result, _ = await broker.operations.call(caller, BY_NAME[name], fields)
    return result


async def audit(broker: Broker, **fields: Any) -> list[AuditItem]:
    return list((await call(broker, backend(""), "moderation.audit", **fields)).items)


@pytest.mark.integration
async def test_an_entry_has_who_what_about_whom_why_and_before_and_after(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await operate(broker, "rooms.open", "live-1")
        await operate(broker, "rooms.set_rules", "live-1", {"likes_per_s": 7})
        await call(broker, staff("mod"), "moderation.mute", room="live-1", user="eve", seconds=60, reason="insults")
        with pytest.raises(OperationError):
            await operate(broker, "coupons.upload", "live-1", "nope", ["SECRET"], key="k")
        opened, rules, mute, refused = await audit(broker)
        assert (opened.operation, opened.actor_kind, opened.actor, opened.outcome) == (
            "rooms.open", AuditActor.KEY, "shop", "OK"
        )  # fmt: skip
        assert (rules.before, rules.after) == ({}, {"likes_per_s": 7})
        assert mute[2:10] == (AuditActor.USER, "mod", "", "moderation.mute", "live-1", "eve", "insults", "OK")
        assert mute.request == {"room": "live-1", "seconds": 60}
        assert (refused.operation, refused.outcome) == ("coupons.upload", "UNKNOWN_ACTIVITY")
        assert refused.entry > mute.entry > rules.entry > opened.entry
        assert broker.operations.audit.counts == {"OK": 3, "refused": 1}


@pytest.mark.integration
async def test_what_viewers_do_and_reads_and_traffic_are_not_in_it(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await operate(broker, "rooms.open", "live-1")
        await operate(broker, "coupons.create", "live-1", "new", 5, key="c")
        viewer = Caller(
            "ann", "Ann", "10.0.0.1", lambda room: Role.VIEWER, frozenset({Role.VIEWER}), key="k",
            joined_at_ms=lambda room: 1,
        )  # fmt: skip
        await call(broker, viewer, "coupons.claim", room="live-1", id="new")
        await operate(broker, "rooms.get", "live-1")
        await operate(broker, "messages.publish", "live-1", 4, ["hello"])
        again = await operate(broker, "coupons.create", "live-1", "new", 5, key="c")
        assert again.id == "new"
        assert [item.operation for item in await audit(broker)] == ["rooms.open", "coupons.create"]


@pytest.mark.integration
async def test_a_page_ends_at_the_limit_and_the_next_begins_behind_it(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        for number in range(7):
            await operate(broker, "rooms.open", f"live-{number}")
        found: list[str] = []
        after: int | None = 0
        while after is not None:
            page = await call(broker, backend(""), "moderation.audit", after=after, limit=3)
            assert len(page.items) <= 3
            found += [item.room for item in page.items]
            after = page.next
        assert found == [f"live-{number}" for number in range(7)]
        assert [item.room for item in await audit(broker, room="live-3")] == ["live-3"]
        assert await audit(broker, actor="another") == await audit(broker, operation="rooms.close") == []


@pytest.mark.integration
async def test_staff_reads_the_audit_of_its_room_and_no_tenant_that_of_another(directory: Path) -> None:
    async with running_broker(
        kind=DurableBroker, ledger={"data_dir": str(directory)}, tenants=[{"name": "acme"}]
    ) as broker:
        await operate(broker, "rooms.open", "live-1")
        await operate(broker, "rooms.open", "live-1", tenant="acme")
        assert [item.room for item in (await call(broker, staff("mod"), "moderation.audit", room="live-1")).items] == [
            "live-1"
        ]
        for caller, fields in ((staff("mod"), {}), (staff("ann", Role.VIEWER), {"room": "live-1"})):
            with pytest.raises(OperationError):
                await call(broker, caller, "moderation.audit", **fields)
        assert len((await call(broker, backend("acme"), "moderation.audit")).items) == 1


@pytest.mark.integration
async def test_an_erased_user_is_in_no_entry_and_the_chain_verifies(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await operate(broker, "rooms.open", "live-1")
        await operate(broker, "moderation.mute", "live-1", VICTIM, 60, "about secret things")
        await call(broker, staff(VICTIM), "moderation.mute", room="live-1", user="bob", seconds=60, reason="rude")
        await erase(broker)
        items = await audit(broker)
        assert not marks_in(repr(items).encode())
        muted, by_victim = (item for item in items if item.operation == "moderation.mute")
        assert muted.subject == by_victim.actor != VICTIM
        assert (muted.reason, by_victim.reason, by_victim.subject) == ("", "", "bob")
        assert marks_in_files(directory) == []
    reader = Reader(directory / "ledger.db")
    reader.verify_all()
    reader.close()


@pytest.mark.integration
async def test_entries_wait_in_memory_while_the_disk_is_full(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        assert isinstance(broker, DurableBroker)
        await operate(broker, "rooms.open", "live-1")
        assert broker.store is not None
        broker.store.fault = disk_error("SQLITE_FULL")
        await operate(broker, "users.disconnect", "ann")
        assert broker.operations.audit.unwritten == 1
        broker.store.fault = None
        await until(lambda: broker.ledger is not None and broker.ledger.state is LedgerState.READY)
        await operate(broker, "users.disconnect", "bob")
        assert broker.operations.audit.unwritten == broker.operations.audit.lost == 0
        assert [item.subject for item in await audit(broker)] == ["", "ann", "bob"]


@pytest.mark.integration
async def test_the_command_verifies_anchors_and_exports(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await operate(broker, "rooms.open", "live-1")
        await operate(broker, "users.disconnect", "ann")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["audit", *arguments, "--data-dir", str(directory)])

    head = run("head").output.strip()
    number, hashed = head.split(":")
    assert "2 entries of the audit" in run("verify", "--anchor", head).output
    for anchor, why in (
        (f"{number}:{'0' * 64}", "another chain"),
        (f"{int(number) + 9}:{hashed}", "the chain ends at entry"),
        ("here", "is not NUMBER:HASH"),
    ):
        result = run("verify", "--anchor", anchor)
        assert result.exit_code
        assert why in result.output
    lines = [json.loads(line) for line in run("export", "--subject", "ann").output.splitlines()]
    assert [(line["operation"], line["actor"]) for line in lines] == [("users.disconnect", "shop")]
    nothing = run("export", "--subject", "bob")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no entry of the audit matches\n")


def test_a_summary_has_no_text_no_code_and_no_secret() -> None:
    assert summary_of(UploadCodes("live-1", "new", ("SECRET-1", "SECRET-2"))) == {
        "room": "live-1", "id": "new", "codes": "2 items",
    }  # fmt: skip
    assert summary_of(SetPhase("acme\x1flive-1", RoomPhase.PAUSED, "why")) == {"room": "live-1", "phase": "paused"}
    for row in OPERATIONS:
        assert "secret" not in repr(summary_of(row.example[0])).lower()


def test_every_change_by_staff_or_a_backend_is_covered_but_for_a_reason() -> None:
    class Kept:
        ledger = object()

    log = AuditLog(Kept())  # type: ignore[arg-type]  # it asks for the ledger alone
    shop, viewer, host = backend(""), staff("ann", Role.VIEWER), staff("max", Role.HOST)
    changes = [row for row in OPERATIONS if row.changes]
    by_backends = {row.name for row in changes if row.scope is not None}
    assert {row.name for row in changes if log.covers(shop, row, row.example[0])} >= by_backends - NOT_AUDITED.keys()
    assert NOT_AUDITED.keys() <= {row.name for row in changes}
    by_viewers = {row.name for row in changes if Role.VIEWER in row.roles}
    assert not {row.name for row in changes if log.covers(viewer, row, row.example[0])} & by_viewers
    by_staff = {row.name for row in changes if row.roles & STAFF and row.scope is not None} - NOT_AUDITED.keys()
    in_rooms = {row.name for row in changes if row.room or row.roles <= STAFF}
    assert {row.name for row in changes if log.covers(host, row, row.example[0])} >= by_staff & in_rooms


@pytest.mark.integration
async def test_each_operation_that_changes_something_leaves_an_entry_however_it_ends(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        log = broker.operations.audit
        for row in sorted(OPERATIONS, key=lambda row: row.name == "users.erase"):  # others name its user
            shop = replace(backend(""), key="k" if row.key is KeyUse.REQUIRED else "")
            if not log.covers(shop, row, row.example[0]) or row.scope is None or row.name in ENDS:
                continue
            before, end = sum(log.counts.values()), ""
            try:
                await broker.operations.call(shop, row, as_json(row.example[0]))
            except OperationError as error:
                end = str(error)
            assert sum(log.counts.values()) == before + 1, (row.name, end)
        assert log.unwritten == log.lost == 0


def test_entries_of_other_tenants_and_of_others_are_the_same() -> None:
    entry = AuditEntry("", "key", "ann", "", "users.kick", "live-1", "bob", "rude", "OK", {"users": ("ann", "bob")})
    assert erased_audit(entry, "acme", "bob", "x") is entry
    erased = erased_audit(entry, "", "ann", "x")
    assert (erased.actor, erased.request, erased.reason) == ("ann", {"users": ("x", "bob")}, "")
    assert erased_audit(entry, "", "bob", "x")[5:8] == ("live-1", "x", "")
