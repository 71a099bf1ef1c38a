"""Export of what the broker keeps on one user: whole, once, in bounded pages, and nothing of others."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.operations.exports import Position
from broker.server import Broker
from protocol.codes import MessageType
from tests.support.api import API, call, client_of, ok
from tests.support.broker import running_broker
from tests.support.durable import durable_broker
from tests.support.operating import exported, operate
from tests.support.tokens import SECRET

MESSAGE_BYTES = 64 * 1024


names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20)
numbers = st.integers(0, 2**63 - 1)
positions = st.one_of(
    st.builds(Position, st.integers(0, 4), st.just(())),
    st.builds(Position, st.sampled_from([3, 4]), st.tuples(numbers)),
    st.builds(Position, st.just(0), st.tuples(numbers, names)),
    st.builds(Position, st.just(1), st.tuples(st.integers(0, 1), names)),
    st.builds(Position, st.just(2), st.tuples(names, names)),
)


@given(positions)
def test_a_position_is_read_from_its_cursor(position: Position) -> None:
    assert Position.decode(position.encode()) == position


@given(
    st.text(max_size=40)
    | st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda each: st.lists(each, max_size=3)).map(
        lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    )
)
def test_any_other_text_is_no_cursor(cursor: str) -> None:
    try:
        position = Position.decode(cursor)
    except (ValueError, TypeError, RecursionError):
        return
    assert Position.decode(position.encode()) == position


async def populate(broker: Broker, tenant: str = "", *, events: int = 6) -> None:
    """Give ann, and bob beside her, something of everything that a broker keeps."""
    for room in ("live-1", "live-2"):
        await operate(broker, "rooms.open", room, tenant=tenant)
    for user in ("ann", "bob"):
        await operate(broker, "users.set_preferences", user, False, None, "hidden", tenant=tenant)
        await operate(broker, "users.set_tags", user, [f"tag of {user}"], tenant=tenant)
        await operate(broker, "users.kick", "live-2", user, f"{user} sent spam", 600, tenant=tenant)
        for room in ("live-1", "live-2"):
            request = room, f"{user}.seat", {"of": user}, None, None, user
            await operate(broker, "keys.set", *request, tenant=tenant)
        for number in range(3):
            await operate(broker, "directs.send", user, 4, [f"direct {number} to {user}"], tenant=tenant)
        for number in range(events):
            room, text = f"live-{1 + number % 2}", f"event {number} of {user}, for ann and bob"
            await operate(broker, "messages.publish", room, 4, [text], "", user, user.title(), tenant=tenant)
    gift = "order", "ann", "Ann", "rose", 1, 100, ""
    await operate(broker, "messages.publish", "live-1", int(MessageType.GIFT), gift, tenant=tenant)
    assert broker.ledger is not None
    await broker.ledger.flush()


def of_kind(items: Iterable[Any], kind: str) -> list[Any]:
    return [each for each in items if each["kind"] == kind]


@pytest.mark.integration
async def test_an_export_has_everything_of_the_user_once_and_nothing_of_others_on_pages_of_any_size(
    directory: Path,
) -> None:
    async with durable_broker(directory) as broker:
        await populate(broker)
        items, pages = await exported(broker, "ann")
        assert pages == 1
        assert [(each["id"], each["data"]) for each in of_kind(items, "preference")] == [
            ("marketing", False), ("visibility", "hidden"),
        ]  # fmt: skip
        assert [each["data"] for each in of_kind(items, "tags")] == [["tag of ann"]]
        assert [(each["room"], each["about"]["reason"]) for each in of_kind(items, "sanction")] == [
            ("live-2", "ann sent spam")
        ]
        assert [each["about"]["lifts"] for each in of_kind(items, "sanction_action")] == [False]
        assert [(each["room"], each["id"], each["data"]) for each in of_kind(items, "key")] == [
            ("live-1", "ann.seat", {"of": "ann"}), ("live-2", "ann.seat", {"of": "ann"}),
        ]  # fmt: skip
        assert [(each["data"], each["about"]["state"]) for each in of_kind(items, "direct")] == [
            ([f"direct {number} to ann"], "pending") for number in range(3)
        ]
        events = of_kind(items, "event")
        assert [(each["room"], each["type"], each["data"][0]) for each in events] == [
            *((f"live-{1 + number % 2}", 4, f"event {number} of ann, for ann and bob") for number in range(6)),
            ("live-1", int(MessageType.GIFT), "order"),
        ]
        for limit in (1, 2, 3, 5, 1000):
            assert (await exported(broker, "ann", limit))[0] == items
        assert await exported(broker, "an") == ([], 1)
    async with durable_broker(directory) as broker:
        assert (await exported(broker, "ann"))[0] == items


@pytest.mark.integration
async def test_a_deleted_event_has_no_content_in_an_export(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await populate(broker, events=2)
        before = of_kind((await exported(broker, "ann"))[0], "event")
        await operate(broker, "messages.delete", "live-1", [int(before[0]["id"])])
        after = of_kind((await exported(broker, "ann"))[0], "event")
        assert (after[0]["data"], after[0]["about"].pop("deleted")) == (None, True)
        assert after == [{**before[0], "data": None}, *before[1:]]
        await operate(broker, "messages.delete", "live-2", None, "ann")
        await operate(broker, "messages.publish", "live-2", 4, ["later"], "", "ann", "Ann")
        last = of_kind((await exported(broker, "ann", 2))[0], "event")
        assert [each["data"] and each["data"][0] for each in last] == [None, None, "order", "later"]


@pytest.mark.integration
async def test_pages_are_bounded_in_bytes_on_both_faces(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        for number in range(180):
            await operate(broker, "directs.send", "ann", 4, [f"{number} " + "\U0001f600" * 480])
        items, pages = await exported(broker, "ann", 1000)
        assert [each["id"] for each in items] == [str(number) for number in range(1, 181)]
        assert pages >= 3
        over_calls, more_pages = await exported(broker, "ann", 1000, max_bytes=MESSAGE_BYTES)
        assert over_calls == items
        assert more_pages > pages
        cursor, found = None, []
        while True:
            answer = await call(client, "users.export", user="ann", limit=1000, cursor=cursor)
            assert answer.status_code == 200
            assert len(answer.content) <= 1024 * 1024
            found += answer.json()["items"]
            cursor = answer.json()["next"]
            if cursor is None:
                break
        assert found == items


@pytest.mark.integration
async def test_a_ledger_of_many_entries_is_inspected_in_parts(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with durable_broker(directory) as broker:
        await populate(broker)
        items, _ = await exported(broker, "ann")
        monkeypatch.setattr("broker.ledger.reader.SCAN_ENTRIES", 2)
        in_parts, pages = await exported(broker, "ann")
        assert in_parts == items
        assert pages > 5


@pytest.mark.integration
async def test_an_export_stays_in_the_tenant_of_the_caller(directory: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "globex"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:
        await populate(broker, "acme")
        items, _ = await exported(broker, "ann", 2, tenant="acme")
        assert len(items) == 17
        assert {each["room"] for each in items} == {None, "live-1", "live-2"}
        for tenant in ("", "globex"):
            assert await exported(broker, "ann", tenant=tenant) == ([], 1)
        page = await operate(broker, "users.export", "ann", 14, tenant="acme")
        cursor_of_another = ("ann", 100, page.next)
        assert (await operate(broker, "users.export", *cursor_of_another, tenant="globex")).items == ()
        assert len((await operate(broker, "users.export", *cursor_of_another, tenant="acme")).items) == 3


@pytest.mark.integration
async def test_what_is_refused_names_the_field(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        for cursor in ("x", "W10=", Position(2, (1, 2)).encode(), Position(1, ("acme\x1flive-1",)).encode()):
            refused = await call(client, "users.export", user="ann", cursor=cursor)
            assert (refused.status_code, refused.json()["field"]) == (400, "cursor")
        assert await ok(client, "users.export", user="ann") == {"items": [], "next": None}
    async with running_broker(api=API) as broker, client_of(broker) as client:
        refused = await call(client, "users.export", user="ann")
        assert (refused.status_code, refused.json()["code"]) == (409, "NOT_KEPT")
