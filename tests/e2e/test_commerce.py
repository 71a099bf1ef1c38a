"""Money and stock of a real broker with a data directory: red packets over kill -9, a flash sale over a bad platform.

Users come over raw links, one connection a user: what a client sends is encoded once for many of them, so ten thousand
users fit into some seconds.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trio

from protocol.activities.sales import ClaimState
from protocol.codes import ErrorCode, Lane, Opcode, Tier
from protocol.connection import encode
from protocol.frames import HEADER_BYTES, header_fields, unpack_body
from protocol.messages import MAGIC, Auth, Call, ClientHello, Join, Message
from protocol.operations import BY_NAME
from tests.support.api import call, ok
from tests.support.processes import Restarting, restarting, roomcast

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOM = "lobby"
NOT_NOW = 300
"""Codes from here on refuse a call for now."""
FIRST_CALL = 3
"""Number of the first call of a link, after its AUTH and JOIN."""
OPTIONS = ("admission.address_share=1", "admission.accept_per_s=100000", "link.frames_per_s=0")


class Ports(NamedTuple):
    """Ports of a broker, the same over its restarts."""

    links: int
    api: int


class Tap(NamedTuple):
    """A call of a user: its operation, arguments and key."""

    operation: str
    arguments: tuple[Any, ...]
    key: str


class Reply(NamedTuple):
    """Answer to a call: the fields of its result, or the code of its refusal and when to ask again."""

    result: tuple[Any, ...] = ()
    code: int = 0
    retry_after_ms: int = 0


class NotAdmittedNow(Exception):
    """The broker takes no viewers now: it has too much to do."""

    def __init__(self, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms


def free_ports() -> Ports:
    """Return two ports that are free now."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return Ports(one.getsockname()[1], other.getsockname()[1])


@asynccontextmanager
async def shop_and_broker(directory: Path, ports: Ports) -> AsyncIterator[tuple[Restarting, httpx.AsyncClient]]:
    """Serve with a ledger and a control API; the client of the latter is the platform."""
    settings = [part for setting in (*OPTIONS, f"api.listen=127.0.0.1:{ports.api}") for part in ("--set", setting)]
    arguments = ["--data-dir", str(directory), "--port", str(ports.links), "--log-level", "warning", *settings]
    async with (
        restarting(*arguments) as broker,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.api}", trust_env=False, timeout=30) as shop,
    ):
        yield broker, shop


async def answers_over_a_link(port: int, user: str, taps: list[Tap], address: str = "127.0.0.1") -> list[Reply]:
    """Log in, join the room and make the calls in one go; return the answers that arrive before the link ends.

    A busy broker may take no viewers for some time: then they come again after that time.
    """
    messages: list[Message] = [ClientHello(MAGIC, 1, 1, 0, "test"), Auth(f"dev:{user}"), Join(ROOM, Tier.LOW)]
    messages += [Call(BY_NAME[tap.operation].number, tap.key, tap.arguments) for tap in taps]
    request = b"".join(encode(message, 0, number, Lane.CONTROL) for number, message in enumerate(messages))
    found: dict[int, Reply] = {}
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port, local_address=address) as stream:
            await stream.send_all(request)
            data = b""
            while len(found) < len(taps):
                received = await stream.receive_some(65536)
                if not received:
                    break
                data = _take_frames(data + received, found)
    except (OSError, trio.BrokenResourceError):
        pass  # the broker was killed, or is not back yet
    except NotAdmittedNow as refusal:
        await trio.sleep(refusal.retry_after_ms / 1000)
        return await answers_over_a_link(port, user, taps, address)
    return [found[number] for number in sorted(found)]


def _take_frames(data: bytes, found: dict[int, Reply]) -> bytes:
    """Add the answers of the whole frames in ``data`` by the number of the call; return the bytes after them."""
    start = 0
    while len(data) - start >= HEADER_BYTES:
        length, _, _, opcode, _, sequence = header_fields(data, start)
        if len(data) - start < length:
            break
        if opcode in (Opcode.RESULT, Opcode.ERROR):
            fields = unpack_body(data[start + HEADER_BYTES : start + length])
            if sequence < FIRST_CALL:
                assert fields[0] >= NOT_NOW, f"the user was refused: {fields}"
                raise NotAdmittedNow(fields[3])
            is_result = opcode == Opcode.RESULT
            found[sequence] = Reply(fields[1]) if is_result else Reply((), fields[0], (*fields, "", 0)[3])
        start += length
    return data[start:]


async def facts_of(directory: Path, kind: str) -> dict[str, list[tuple[str, Any]]]:
    """Verify the ledger; return the facts of the activities of a kind, by their ids."""
    verified = await roomcast("ledger", "verify", "--data-dir", str(directory))
    assert verified.status == 0, verified.err
    exported = await roomcast("ledger", "export", "--data-dir", str(directory))
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for line in map(json.loads, exported.out.splitlines()):
        if "body" in line:
            body = unpack_body(base64.b64decode(line["body"]))
            if body[0] == kind:
                found[body[1]] += body[2]
    return found


# ---- red packets

PACKETS, USERS, LINKS, KILLS = 100, 10_000, 40, 8
TOTAL_CENTS = 100_003


class Grabs:
    """Users that take shares until each has its answer, and what they were answered."""

    def __init__(self, port: int) -> None:
        self.shares: dict[tuple[str, str], tuple[int, int]] = {}
        """Number and cents, by packet and user."""
        self.too_late: set[tuple[str, str]] = set()
        """Packets and users that were answered EMPTY."""
        self.cut = 0
        """Links that ended before all answers."""
        self.answered = 0
        self._port = port
        self._wake = trio.Event()

    async def run(self, users: range) -> None:
        """Let the users act in turn. Every fifth taps a second time, with another key."""
        for number in users:
            await self.grab(f"user-{number}", f"packet-{number % PACKETS}", 1 + (number % 5 == 0))

    async def grab(self, user: str, packet: str, taps: int) -> None:
        """Tap so often at once, and again with the same keys until every tap is answered."""
        wanted = [Tap("packets.grab", (ROOM, packet), f"tap-{tap}") for tap in range(taps)]
        while True:
            replies = await answers_over_a_link(self._port, user, wanted)
            for reply in replies:
                self._take(packet, user, reply)
            if len(replies) == taps and all(reply.code < NOT_NOW for reply in replies):
                break
            self.cut += len(replies) < taps
            await trio.sleep(max((reply.retry_after_ms for reply in replies), default=0) / 1000 or 0.05)
        self.answered += 1
        self._wake.set()

    def _take(self, packet: str, user: str, reply: Reply) -> None:
        key = packet, user
        if reply.result:
            share, cents = reply.result
            assert self.shares.setdefault(key, (share, cents)) == (share, cents), "one user, one share"
            assert key not in self.too_late
        elif reply.code < NOT_NOW:
            assert reply.code == ErrorCode.EMPTY, reply
            assert key not in self.shares
            self.too_late.add(key)

    async def until_answered(self, count: int) -> None:
        """Wait until so many users have their answers."""
        while self.answered < count:
            self._wake = trio.Event()
            await self._wake.wait()


def shares_of(packet: int) -> int:
    """Return the number of shares: of the hundred users of a packet some come too late, or some shares are left."""
    return (60, 90, 100, 120)[packet % 4]


async def unhurried(shop: httpx.AsyncClient, operation: str, key: str = "", **fields: Any) -> Any:
    """Call an operation that must succeed, again while the limit of its rate refuses it; return the result."""
    while True:
        answer = await call(shop, operation, key, **fields)
        if answer.status_code != 429:
            break
        await trio.sleep(answer.json()["retry_after_ms"] / 1000)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def create_packets(shop: httpx.AsyncClient) -> None:
    """Create as many packets as a room can have."""
    for number in range(PACKETS):
        id, order = f"packet-{number}", f"order-{number}"
        fields = {"total_cents": TOTAL_CENTS, "count": shares_of(number), "mode": ("lucky", "equal")[number // 4 % 2]}
        await unhurried(shop, "packets.create", order, room=ROOM, id=id, order_id=order, **fields)


async def listed_packets(shop: httpx.AsyncClient) -> dict[str, Any]:
    """Return what the platform sees of each packet."""
    page = await ok(shop, "packets.list", room=ROOM, limit=100)
    return {packet["id"]: packet for packet in page["items"]}


async def test_ten_thousand_users_share_a_hundred_packets_over_kills(tmp_path: Path) -> None:
    rng, ports = random.Random(10), free_ports()
    grabs = Grabs(ports.links)
    returned: dict[str, int] = {}
    async with shop_and_broker(tmp_path / "data", ports) as (broker, shop):
        await create_packets(shop)
        async with trio.open_nursery() as nursery:
            for link in range(LINKS):
                nursery.start_soon(grabs.run, range(link, USERS, LINKS))
            for kill_at in sorted(rng.sample(range(USERS // 50, USERS - USERS // 50), KILLS)):
                await grabs.until_answered(kill_at)
                await trio.sleep(rng.uniform(0, 0.03))
                await broker.restart()
        assert grabs.cut >= KILLS, "a kill cuts users off"
        again = rng.sample(sorted(grabs.shares), 50)
        for packet, user in again:
            await grabs.grab(user, packet, 1)
        for id, packet in (await listed_packets(shop)).items():
            taken = [cents for (of, _), (_, cents) in grabs.shares.items() if of == id]
            assert (packet["taken"], packet["taken_cents"]) == (len(taken), sum(taken))
            returned[id] = (await unhurried(shop, "packets.cancel", room=ROOM, id=id))["returned_cents"]
        ended = await listed_packets(shop)
    assert set(grabs.shares) | grabs.too_late == {(f"packet-{n % PACKETS}", f"user-{n}") for n in range(USERS)}
    facts = await facts_of(tmp_path / "data", "packets")
    for number in range(PACKETS):
        id, count = f"packet-{number}", shares_of(number)
        answered = {user: share for (of, user), share in grabs.shares.items() if of == id}
        grabbed = [data for name, data in facts[id] if name == "grabbed"]
        assert {data[2]: (data[0], data[1]) for data in grabbed} == answered
        assert [data[0] for data in grabbed] == list(range(min(count, USERS // PACKETS))), "each share once"
        assert sum(cents for _, cents in answered.values()) + returned[id] == TOTAL_CENTS
        assert ended[id]["taken_cents"] + returned[id] == TOTAL_CENTS
        assert (returned[id] > 0) == (count > USERS // PACKETS)


# ---- a flash sale

STOCK, BUYERS, OUTAGE_S, RESERVE_MS = 100, 400, 10.0, 3000
POLL_S = 0.15
SALE = {"room": ROOM, "id": "sale-1"}


class Platform:
    """Platform of a sale: confirms reservations over HTTP, fails with one in ten, and pauses in the middle."""

    def __init__(self, shop: httpx.AsyncClient) -> None:
        self.confirmed: set[int] = set()
        """Claims whose confirmation the broker has accepted."""
        self.refused: Counter[str] = Counter()
        """Codes of the confirmations that came too late."""
        self.failed: set[int] = set()
        """Claims whose confirmations were never sent, or only after the reservation."""
        self.stale: set[int] = set()
        """Claims that the platform had in hand when its outage began."""
        self.samples = 0
        self.most_confirmed = 0
        """Most units that `watch` has seen confirmed at a time."""
        self._shop = shop
        self._handled = 0
        self._seen: set[int] = set()
        self._late: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Confirm until it is cancelled."""
        while True:
            page = await ok(self._shop, "sales.claims", **SALE, state="reserved")
            in_hand = [each["number"] for each in page["items"] if each["number"] not in self._seen]
            self._seen.update(in_hand)
            if in_hand and not self.stale and len(self.confirmed) >= STOCK // 4:
                self.stale.update(in_hand)
                await trio.sleep(OUTAGE_S)
            for number in in_hand:
                await self._handle(number)
            while self._late and self._late[0][0] < trio.current_time():
                await self._confirm(self._late.pop(0)[1])
            await trio.sleep(POLL_S)

    async def _handle(self, number: int) -> None:
        """Confirm a claim; one in ten never, or after its reservation has expired."""
        self._handled += 1
        if self._handled % 10:
            await self._confirm(number)
            return
        self.failed.add(number)
        if len(self.failed) % 2:
            self._late.append((trio.current_time() + RESERVE_MS / 1000 + 0.5, number))

    async def _confirm(self, number: int) -> None:
        """Confirm it, twice as a platform does whose first answer was lost. What was begun is recorded."""
        order = f"order-{number}"
        with trio.CancelScope(shield=True):
            answers = [await call(self._shop, "sales.confirm", **SALE, number=number, order=order) for _ in range(2)]
        first, again = ((answer.status_code, answer.json().get("code")) for answer in answers)
        assert first == again, "the same confirmation has the same answer"
        if first[0] == 200:
            self.confirmed.add(number)
        else:
            assert first[1] == "EXPIRED", first
            self.refused[first[1]] += 1

    async def watch(self) -> None:
        """Check the counts of the sale again and again, until it is cancelled."""
        while True:
            view = await self.view()
            assert view["available"] + view["reserved"] + view["confirmed"] == view["stock"] == STOCK
            assert min(view["available"], view["reserved"], view["confirmed"]) >= 0
            assert self.most_confirmed <= view["confirmed"] <= STOCK, "a confirmed unit stays so"
            self.most_confirmed = view["confirmed"]
            self.samples += 1
            await trio.sleep(POLL_S)

    async def view(self) -> Any:
        """Return the sale."""
        (view,) = (await ok(self._shop, "sales.list", room=ROOM))["items"]
        return view


async def buy(port: int, lane: int, lanes: int, codes: Counter[str]) -> None:
    """Let the buyers of a lane claim in turn, each again with another key, until the sale is sold out."""
    address = f"127.0.1.{lane + 1}"
    for attempt in itertools.count():
        for number in range(lane, BUYERS, lanes):
            tap = Tap("sales.claim", (ROOM, "sale-1"), f"claim-{attempt}")
            replies = await answers_over_a_link(port, f"buyer-{number}", [tap, tap], address)
            assert len(replies) == 2
            assert replies[0].code or replies[0].result[:2] == replies[1].result[:2], "one key, one claim"
            code = replies[0].code
            codes[ErrorCode(code).name if code else ClaimState(replies[0].result[1]).name] += 1
            if code == ErrorCode.SOLD_OUT:
                return
            await trio.sleep(0.1)


async def test_a_sale_sells_its_stock_over_failing_confirmations_and_an_outage(tmp_path: Path) -> None:
    ports, lanes = free_ports(), 10
    codes: Counter[str] = Counter()
    async with shop_and_broker(tmp_path / "data", ports) as (_, shop):
        at_ms = time.time_ns() // 1_000_000
        await ok(
            shop, "sales.create", **SALE, sku="mug", stock=STOCK, price_cents=1990, open_at_ms=at_ms,
            close_at_ms=at_ms + 600_000, reserve_ms=RESERVE_MS, waiting_max=20,
        )  # fmt: skip
        platform = Platform(shop)
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(platform.run)
                nursery.start_soon(platform.watch)
                async with trio.open_nursery() as buyers:
                    for lane in range(lanes):
                        buyers.start_soon(buy, ports.links, lane, lanes, codes)
                nursery.cancel_scope.cancel()
        last = await platform.view()
        assert (last["confirmed"], last["reserved"], last["available"]) == (STOCK, 0, 0)
        claims = await ok(shop, "sales.claims", **SALE, state="confirmed")
        await ok(shop, "sales.close", **SALE)
        with trio.fail_after(20):
            while (await platform.view())["state"] != "settled":  # noqa: ASYNC110 - the broker settles it
                await trio.sleep(POLL_S)
    facts = (await facts_of(tmp_path / "data", "sales"))["sale-1"]
    names = Counter(name for name, _ in facts)
    confirmed = {data[0] for name, data in facts if name == "claim_confirmed"}
    assert names["claim_confirmed"] == len(confirmed) == STOCK
    assert {each["number"] for each in claims["items"]} == confirmed
    assert len({each["user"] for each in claims["items"]}) == STOCK, "one unit a user"
    assert platform.confirmed == confirmed
    assert platform.stale | platform.failed <= {data[0] for name, data in facts if name == "claim_expired"}
    assert len(platform.failed) >= STOCK // 10
    assert names["claim_dismissed"] == last["waiting"]
    assert platform.samples >= OUTAGE_S / POLL_S / 2
