"""HTTP and CALL give the same record or refusal for the same request; malformed CALLs get one typed answer."""

from __future__ import annotations

import json
import random
from enum import IntEnum
from typing import Any, get_args, get_type_hints

import httpx
import pytest
import trio

from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, MessageType, Opcode
from protocol.fields import FieldError
from protocol.frames import MAX_CLIENT_BODY_BYTES, build_frame, pack_body
from protocol.json_mode import parse_value
from protocol.json_values import as_json
from protocol.messages import Ack, Call, ErrorReply, GoAway, Result
from protocol.operations import BY_NAME, BY_NUMBER, OPERATIONS, OperationRow, RateLimit
from tests.support.broker import RawLink, joined_link, raw_link, running_broker

pytestmark = pytest.mark.integration

MANY: dict[str, Any] = {"errors_per_minute": 100_000, "frames_per_s": 0, "app_frames_per_s": 0}
SHARED = [row for row in OPERATIONS if row.roles and row.scope is not None and row.subject != "app"]
VARYING = {"uptime_ms": 0, "since_ms": 0, "rates": None, "series": None}
"""Fields whose value is that of the moment, or computed from it."""
VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**53, 1.5, "", "live-1", "no-such", "a/b", "x" * 300, "\u0000", "live-*", (), ("live-1",),
    {}, {"a": {"b": (None,)}}, "paused", "host",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rate of an operation is met: the two faces are two callers."""
    for row in OPERATIONS:
        quick = row._replace(rate=RateLimit(1e6, 1_000_000))
        monkeypatch.setitem(BY_NAME, row.name, quick)
        monkeypatch.setitem(BY_NUMBER, row.number, quick)


async def by_http(client: httpx.AsyncClient, row: OperationRow, request: dict[str, Any]) -> Any:
    """The result record, or (code, field, rule)."""
    found = await client.post("/v1/" + row.name.replace(".", "/"), content=json.dumps(as_json(request)))
    body = parse_value(found.text)
    if found.status_code == 200:
        return row.read_result(body)
    return body["code"], body.get("field", ""), body["rule"][:256]


async def by_call(link: RawLink, row: OperationRow, request: dict[str, Any]) -> Any:
    """The result record, or (code, field, rule)."""
    await link.stream.send_all(build_frame(Opcode.CALL, 0, 0, 5, pack_body((row.number, "", request))))
    while True:
        frame = await link.next_frame()
        assert frame is not None, row.name
        if isinstance(frame.message, Result):
            return frame.message.result
        if isinstance(frame.message, ErrorReply):
            return ErrorCode(frame.message.code).name, frame.message.field, frame.message.message


def without_time(found: Any) -> Any:
    """A result without the fields that vary, in records within it too."""
    if hasattr(found, "_fields"):
        return type(found)(*(VARYING.get(name, without_time(getattr(found, name))) for name in found._fields))
    return tuple(map(without_time, found)) if isinstance(found, tuple) else found


def enumerations(record: type[Any]) -> frozenset[str]:
    """Fields that hold a member of an enumeration: CALL takes its number, HTTP its name."""
    hints = get_type_hints(record)
    return frozenset(
        name
        for name, hint in hints.items()
        if any(isinstance(each, type) and issubclass(each, IntEnum) for each in (hint, *get_args(hint)))
    )


def requests(row: OperationRow, rng: random.Random) -> list[dict[str, Any]]:
    """The example, and copies of it with one field changed or left out."""
    whole = row.example[0]._asdict()
    found = [whole]
    named = enumerations(type(row.example[0]))
    for name in whole:
        found.append({other: value for other, value in whole.items() if other != name})
        values = rng.sample(VALUES, 6)
        found += [whole | {name: value} for value in values if name not in named or not isinstance(value, (int, float))]
    return found


def may_be_sent_twice(row: OperationRow, request: dict[str, Any]) -> bool:
    """Whether both faces may get it one after the other: it changes nothing, or is refused for its fields."""
    if not row.changes:
        return True
    try:
        row.read(request)
    except FieldError:
        return True
    return False


@pytest.mark.parametrize("row", SHARED, ids=lambda row: row.name)
async def test_http_and_call_give_the_same_record_or_refusal(row: OperationRow) -> None:
    rng = random.Random(row.number)
    async with (
        running_broker(link=MANY, api={"listen": "127.0.0.1:0"}) as broker,
        joined_link(broker, "dev:max:host", "live-1") as (host, room),
        joined_link(broker, "dev:ann", "live-1"),
        raw_link(broker) as link,
        httpx.AsyncClient(
            base_url=broker.api_urls[0], trust_env=False, timeout=20, headers={"Content-Type": "application/json"}
        ) as client,
    ):
        await link.login("dev:shop:app")
        for number in (1, 2):
            await host.post(room, number, MessageType.ANNOUNCEMENT, (f"news {number}",))
            await host.expect(Ack)
        compared = 0
        for request in requests(row, rng):
            if may_be_sent_twice(row, request):
                http, call = await by_http(client, row, request), await by_call(link, row, request)
                if isinstance(http, tuple) and http[-1] == "is no field of this operation":
                    assert isinstance(call, tuple), "CALL ignores the field, and refuses another"
                    continue
                assert without_time(http) == without_time(call), (request, http, call)
                compared += 1
        assert compared
        assert broker.operations.failed == 0


def mutated(body: bytes, rng: random.Random) -> bytes:
    data = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[place : place + 1] = bytes((rng.randrange(256),))
            case 1:
                data[place:place] = rng.randbytes(rng.randint(1, 8))
            case 2:
                del data[place : place + rng.randint(1, 8)]
            case _:
                data[place:place] = data[: rng.randint(0, len(data))]
    return bytes(data[:MAX_CLIENT_BODY_BYTES])


async def fuzz(broker: Broker, rng: random.Random, count: int) -> dict[str, int]:
    """Send mutated calls; each has one answer, or ends the link with a typed code."""
    seen = {"answered": 0, "closed": 0}
    while sum(seen.values()) < count:
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            room, _ = await link.join()
            for number in range(count):
                row = rng.choice(OPERATIONS)
                body = mutated(pack_body((row.number, rng.choice(("", "k")), row.example[0])), rng)
                header_room = rng.choice((0, room, room + 1))
                await link.stream.send_all(build_frame(Opcode.CALL, 0, header_room, number, body))
                while True:
                    frame = await link.next_frame()
                    assert frame is not None, "the link ended without a reason"
                    if isinstance(frame.message, (Result, ErrorReply)):
                        assert frame.sequence == number
                        assert frame.room == header_room
                        seen["answered"] += 1
                        break
                    if isinstance(frame.message, GoAway):
                        assert frame.message.code in (CloseCode.BAD_BODY, CloseCode.BAD_FRAME), frame.message
                        seen["closed"] += 1
                        break
                if isinstance(frame.message, GoAway) or sum(seen.values()) >= count:
                    break
    return seen


@pytest.mark.parametrize("seed", range(3))
async def test_a_malformed_call_has_one_typed_answer_or_ends_its_own_link(seed: int) -> None:
    async with running_broker(link=MANY) as broker, joined_link(broker, "dev:max:host") as (host, _):
        with trio.fail_after(60):
            seen = await fuzz(broker, random.Random(seed), 250)
        assert min(seen.values()) > 5, seen
        await host.send((Call(2, "", ("lobby",)), 0, 1))
        assert (await host.expect(Result))[1].result.room == "lobby"
        assert broker.operations.failed == 0
        assert broker.context.closed[CloseCode.INTERNAL_ERROR] == 0
