"""The table of operations: every row whole, every row with a handler, every field of every row judged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.auth.api_key_file import add_key, made_key
from broker.http.json_body import wrong_field
from broker.http.openapi import document, reference_page
from broker.http.problems import STATUS
from broker.operations.caller import Caller, OperationError
from broker.operations.calls import HANDLERS
from broker.server import Broker
from protocol.codes import ErrorCode, Role
from protocol.fields import RECORD_SCHEMAS, SCHEMA_PREFIX, FieldError, renamed, schema_of
from protocol.json_mode import parse_value
from protocol.json_values import as_json
from protocol.operations import BY_NAME, BY_NUMBER, OPERATIONS, KeyUse, OperationRow, Scope
from tests.support.api import API
from tests.support.broker import configuration, raw_link, running_broker
from tests.support.durable import durable_broker
from tests.support.erasing import finished
from tests.support.webhooks import hook_settings

rows = pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)


def backend(*scopes: Scope, rooms: Callable[[str], Role | None] = lambda room: Role.APP, key: str = "") -> Caller:
    return Caller("shop", "Shop", "127.0.0.1", rooms, frozenset({Role.APP}), frozenset(scopes), key)


def key_of(row: OperationRow) -> str:
    """Return the key of a call, where it needs one."""
    return "k1" if row.key is KeyUse.REQUIRED else ""


def viewer(role: Role) -> Caller:
    return Caller("ann", "Ann", "127.0.0.1", lambda room: role, frozenset({role}))


def test_names_and_numbers_are_unique_and_every_row_has_a_handler() -> None:
    assert len(BY_NAME) == len(BY_NUMBER) == len(OPERATIONS)
    assert HANDLERS.keys() == BY_NAME.keys()


def test_every_error_code_has_a_status() -> None:
    assert STATUS.keys() == set(ErrorCode)


@rows
def test_the_example_is_read_and_written(row: OperationRow) -> None:
    request, result = row.example
    assert row.read(tuple(request)) == request
    fields = parse_value(json.dumps(as_json(request)))
    assert row.read(fields) == request
    assert wrong_field(fields, schema_of(row.read)) is None
    assert row.read_result(parse_value(json.dumps(as_json(result)))) == result


@rows
def test_a_wrong_value_in_any_field_names_the_field(row: OperationRow) -> None:
    whole = as_json(row.example[0])
    for name, schema in RECORD_SCHEMAS[row.request.__name__]["properties"].items():
        if set(schema) <= {"default"}:
            continue  # any value
        wrong_values: list[Any] = [["x", {"y": 1}], {"deep": [[[]]]}, 2**70, True, "\x00", "x" * 100_000]
        kind = schema.get("anyOf", [schema])[0].get("$ref", "").removeprefix(SCHEMA_PREFIX)
        if kind and not RECORD_SCHEMAS[kind]["required"]:
            del wrong_values[1]  # an object without any of the fields is the default
        for wrong in wrong_values:
            if wrong is True and "boolean" in {
                schema.get("type"),
                *(each.get("type") for each in schema.get("anyOf", ())),
            }:
                continue
            with pytest.raises(FieldError) as caught:
                row.read(parse_value(json.dumps(whole | {name: wrong})))
            assert caught.value.field.split(".")[0].split("[")[0] == name
    for name in RECORD_SCHEMAS[row.request.__name__]["required"]:
        with pytest.raises(FieldError) as caught:
            row.read({key: value for key, value in whole.items() if key != name})
        assert caught.value.field == name
    assert wrong_field({**whole, "unknown": 1}, schema_of(row.read)) == ("unknown", "is no field of this operation")


@rows
async def test_a_key_without_the_scope_and_a_viewer_without_the_role_are_refused(row: OperationRow) -> None:
    broker = Broker(configuration(), rng=random.Random(1))
    others = {scope for scope in Scope} - {row.scope, Scope.ADMIN}
    with pytest.raises(OperationError) as caught:
        await broker.operations.call(backend(*others), row, as_json(row.example[0]))
    assert caught.value.code is ErrorCode.NOT_ALLOWED
    for role in set(Role) - row.roles:
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(viewer(role), row, as_json(row.example[0]))
        assert caught.value.code is ErrorCode.NOT_ALLOWED
    if row.room:
        elsewhere = backend(Scope.ADMIN, rooms=lambda room: None)
        if row.scope is None:
            elsewhere = replace(elsewhere, scopes=None)
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(elsewhere, row, as_json(row.example[0]))
        assert caught.value.code is ErrorCode.ROOM_NOT_GRANTED


@rows
async def test_more_calls_than_the_rate_are_refused_with_the_wait(row: OperationRow, mock_clock: MockClock) -> None:
    broker = Broker(configuration(), rng=random.Random(1))
    scopes = None if row.scope is None else frozenset({Scope.ADMIN})
    caller = Caller("shop", "", "", lambda room: Role.APP, frozenset({Role.APP}), scopes, key_of(row), dry_run=True)
    for _ in range(row.rate_of(is_backend=True).burst):
        with suppress(OperationError):  # the room is not open
            await broker.operations.call(caller, row, tuple(row.example[0]))
    with pytest.raises(OperationError) as caught:
        await broker.operations.call(caller, row, tuple(row.example[0]))
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.retry_after_ms > 0


async def call(broker: Broker, name: str, *arguments: Any, caller: Caller | None = None) -> Any:
    result, _ = await broker.operations.call(caller or backend(Scope.ADMIN), BY_NAME[name], arguments)
    return result


@pytest.mark.integration
async def test_every_row_answers_with_its_own_record(directory: Path) -> None:
    hooks = hook_settings(directory, "http://127.0.0.1:9/hook", "direct.expired")
    key, _ = made_key("root", frozenset({Scope.ADMIN}), ("*",), "", "", 0, False)
    add_key(directory / "keys.toml", key)
    api = {**API, "key_file": str(directory / "keys.toml")}
    async with durable_broker(directory, webhooks=hooks, api=api) as broker:
        await call(broker, "rooms.open", "live-1")
        await call(broker, "conversations.create", "tea", "Tea", ("ann", "bob"))
        for row in OPERATIONS:
            if (
                row.name
                in (
                    "app.call",
                    "broker.drain",
                    "broker.reload",
                    "rooms.close",
                    "rooms.set_phase",
                    "locks.renew",
                    "locks.release",
                    "sales.confirm",
                    "sales.cancel",
                    "sales.cancel_sale",
                    "coupons.upload",
                    "coupons.check",
                    "gifts.refund",
                    "lotteries.draw",
                    "lotteries.proof",
                    "mic.mute",
                    "moderation.undo",
                    "pk.answer",
                    # An example has no time within 30 days.
                    "schedules.create",
                    "schedules.change",
                    "schedules.cancel",
                    "countdowns.start",
                    "countdowns.move",
                    "countdowns.stop",
                    "dictionaries.use",
                    "polls.reveal",
                    "quizzes.cancel",
                    "conversations.send",
                    "conversations.recall",
                    "desk.open",
                    "desk.ask",
                    "desk.answer",
                    "desk.get",
                    "desk.transfer",
                    "desk.resolve",
                    "desk.tag",
                    "desk.start_stream",
                    "desk.append",
                    "desk.end_stream",
                )
                or row.scope is None
            ):
                continue
            request, caller = row.example[0], backend(Scope.ADMIN, key=key_of(row))
            if row.name == "users.erase_state":
                request = request._replace(job=(await call(broker, "users.erase", "ann", "ann")).job)
            result = await call(broker, row.name, *request, caller=caller)
            assert row.read_result(parse_value(json.dumps(as_json(result)))) == result, row.name
            if row.subject == "users":
                await finished(broker)


@pytest.mark.integration
async def test_a_key_has_one_effect_and_one_answer() -> None:
    row = BY_NAME["messages.publish"]
    async with running_broker() as broker:
        caller = backend(Scope.MESSAGES_WRITE, key="k1")
        results: list[Any] = []

        async def publish() -> None:
            results.append(await broker.operations.call(caller, row, ("live-1", 4, ("hi",))))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(publish)
        assert sorted(replayed for _, replayed in results) == [False, True, True]
        assert len({result for result, _ in results}) == 1
        with pytest.raises(OperationError) as caught:
            await broker.operations.call(caller, row, ("live-1", 4, ("other",)))
        assert caught.value.code is ErrorCode.KEY_REUSED
        assert broker.hub.find("live-1").state.last_offset == 1  # type: ignore[union-attr]


@pytest.mark.integration
async def test_the_same_key_of_two_backends_names_two_operations() -> None:
    async with running_broker() as broker:
        for id in ("shop", "desk"):
            caller = Caller(id, id, "", lambda room: Role.APP, scopes=frozenset({Scope.MESSAGES_WRITE}), key="1")
            arguments = "live-1", 4, (f"from {id}",), "", "ann"
            result, replayed = await broker.operations.call(caller, BY_NAME["messages.publish"], arguments)
            assert (result.outcome.name, result.repeated, replayed) == ("ACCEPTED", False, False)
        assert broker.hub.find("live-1").state.last_offset == 2  # type: ignore[union-attr]


@pytest.mark.integration
async def test_a_dry_run_changes_nothing() -> None:
    async with running_broker() as broker:
        for row in OPERATIONS:
            if row.changes:
                scopes = None if row.scope is None else frozenset({Scope.ADMIN})
                caller = Caller(
                    "shop", "Shop", "", lambda room: Role.APP, frozenset(Role), scopes, key_of(row), dry_run=True,
                    joined_at_ms=lambda room: 1,
                )  # fmt: skip
                await broker.operations.call(caller, row, tuple(row.example[0]))
        assert len(broker.hub) == 0
        assert not broker.draining


@pytest.mark.integration
async def test_lists_page_through_everything_once() -> None:
    async with running_broker() as broker:
        names = sorted(f"live-{number}" for number in range(25))
        for name in names:
            await call(broker, "rooms.open", name)
        await call(broker, "rooms.open", "other")
        found, cursor = [], None
        while True:
            page = await call(broker, "rooms.list", "live-*", None, 10, cursor)
            found += [item.room for item in page.items]
            cursor = page.next
            if cursor is None:
                break
        assert found == names


@pytest.mark.integration
async def test_a_list_of_rooms_by_connections_has_the_largest_first_and_pages() -> None:
    async with running_broker() as broker:
        for name in ("live-1", "live-2", "live-3", "live-4"):
            await call(broker, "rooms.open", name)
        async with raw_link(broker) as ann, raw_link(broker) as bob:
            await ann.login("dev:ann")
            await bob.login("dev:bob")
            for link, name in ((ann, "live-3"), (bob, "live-3"), (bob, "live-2")):
                await link.join(name)
            found: list[tuple[str, int]] = []
            cursor = None
            while not found or cursor:
                page = await call(broker, "rooms.list", "live-*", None, 1, cursor, "online")
                found += [(item.room, item.online) for item in page.items]
                cursor = page.next
            assert found == [("live-3", 2), ("live-2", 1), ("live-1", 0), ("live-4", 0)]
        with pytest.raises(OperationError) as caught:
            await call(broker, "rooms.list", "live-*", None, 1, "live-3", "online")
        assert (caught.value.code, caught.value.field) == (ErrorCode.BAD_FIELD, "cursor")


@pytest.mark.integration
async def test_many_messages_have_a_result_each() -> None:
    async with running_broker() as broker:
        items = (
            ("live-1", 4, ("one",)),
            ("live-1", 250, ("no such type",)),
            ("live-1", 4, ("two",)),
            ("live-1", 1, ()),
        )
        result = await call(broker, "messages.publish_many", items)
        assert [each.outcome.name for each in result.items] == ["ACCEPTED", "REJECTED", "ACCEPTED", "REJECTED"]
        assert [each.code for each in result.items] == [None, ErrorCode.UNKNOWN_TYPE, None, ErrorCode.BAD_FIELD]
        assert result.accepted == 2


def test_openapi_names_every_operation_and_every_reference_leads_somewhere() -> None:
    found = document()
    assert {path["post"]["operationId"] for path in found["paths"].values() if "post" in path} == BY_NAME.keys()
    reads = {path for path, methods in found["paths"].items() if "get" in methods}
    assert reads == {"/stats/{room}", "/stats", "/metrics"}
    stream = found["paths"]["/stats/{room}"]["get"]
    assert [each["name"] for each in stream["parameters"]] == ["room", "seconds"]
    assert stream["responses"]["200"]["content"].keys() == {"text/event-stream"}
    text = json.dumps(found)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in found["components"]["schemas"]
    for row in OPERATIONS:
        assert row.name in reference_page()
        parameters = found["paths"]["/v1/" + row.name.replace(".", "/")]["post"]["parameters"]
        assert ("Idempotency-Key" in str(parameters)) == (row.key is not KeyUse.NONE)


@rows
def test_every_name_in_a_request_belongs_to_the_tenant_of_the_caller(row: OperationRow) -> None:
    """Names of rooms, users and batches are qualified by the rule of their field, wherever they stand."""
    found: list[str] = []

    def rename(name: str) -> str:
        found.append(name)
        return f"acme\x1f{name}"

    request = renamed(row.read, row.example[0], rename)
    for field in ("room", "rooms", "user", "users", "batch", "pattern", "endpoint"):
        value = getattr(request, field, None)
        for each in (value,) if isinstance(value, str) else value or ():
            assert each.startswith("acme\x1f"), f"{row.name}: {field} is not scoped"
    assert renamed(row.read, request, lambda name: name.removeprefix("acme\x1f")) == row.example[0]
    assert all("\x1f" not in name for name in found)
