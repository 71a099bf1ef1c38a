"""CALLs answered a second and core, against a bare loop that receives, unpacks, packs and sends the same bytes.

`calls`: ``rooms.get``, a pure read. `claims`: ``sales.claim`` of a sale that has nothing left, as of every buyer who
comes too late. Both by the binary protocol over TCP to a broker with a ledger: *single*, one call a read, as from
thousands of clients, and *pipelined*, 16 calls a write. The clients run in a thread, so only the CPU of the broker's
own thread is counted. The rates of the operations and of errors are lifted.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from typing import Any, NamedTuple

import msgspec
import trio
from msgpack import packb, unpackb

from bench.micro.harness import config, serving, without_rate
from bench.micro.result import Result, median
from bench.micro.wire import HEADER, frame, hello_auth_join
from broker.config.schema import Config, LedgerConfig
from broker.operations.caller import Caller
from broker.server import Broker
from protocol.codes import ErrorCode, Opcode, Role
from protocol.messages import ErrorReply
from protocol.operations import BY_NAME, OperationRow, Scope

__all__ = ["Load", "calls", "claims", "floor_of", "open_links"]

GOAL = 30_000
TIMEOUT_S = 60.0
ROOM = "lobby"


class Load(NamedTuple):
    """What is called, and how it is answered."""

    row: OperationRow
    arguments: tuple[Any, ...]
    key: str
    opcode: Opcode
    answer: tuple[Any, ...]
    """A typical answer, of which the floor makes copies."""

    def request(self, room: int, sequence: int) -> bytes:
        """Return one CALL on a link that has joined ``room``."""
        return frame(Opcode.CALL, packb([self.row.number, self.key, self.arguments]), room, sequence)


_READ = BY_NAME["rooms.get"]
_CLAIM = BY_NAME["sales.claim"]
READS = Load(_READ, (None,), "", Opcode.RESULT, (_READ.number, tuple(_READ.example[1])))
CLAIMS = Load(
    _CLAIM, (None, "flash"), "claim", Opcode.ERROR,
    ErrorReply(ErrorCode.SOLD_OUT, "everything is sold", "", 0),
)  # fmt: skip


async def calls(smoke: bool) -> list[Result]:
    """Measure pure reads."""
    return await _both("CALLs of a pure read", READS, config(), smoke)


async def claims(smoke: bool) -> list[Result]:
    """Measure claims that a sale refuses from memory."""
    settings = config()
    link = msgspec.structs.replace(settings.link, errors_per_minute=100_000)
    return await _both("claims that are refused", CLAIMS, msgspec.structs.replace(settings, link=link), smoke)


async def _both(what: str, load: Load, settings: Config, smoke: bool) -> list[Result]:
    passes, rounds = (5, 1) if smoke else (200, 5)
    results = []
    for how, links, burst in (("single", 50, 1), ("pipelined", 10, 16)):
        with tempfile.TemporaryDirectory(prefix="roomcast-calls-", dir=os.environ.get("ROOMCAST_BENCH_DIR")) as name:
            durable = msgspec.structs.replace(settings, ledger=LedgerConfig(data_dir=name))
            results.append(await _one(f"{what} a second and core, {how}", load, durable, links, burst, passes, rounds))
    return results


async def _one(what: str, load: Load, settings: Config, links: int, burst: int, passes: int, rounds: int) -> Result:
    broker_s: list[float] = []
    floor_s: list[float] = []
    with without_rate(load.row.name):
        async with serving(settings) as broker:
            if load is CLAIMS:
                await _sell_out(broker)
            port = broker.addresses[0][1]
            clients = await trio.to_thread.run_sync(open_links, port, links)
            try:
                for _ in range(rounds):
                    before = broker.operations.called
                    used = time.thread_time()
                    await trio.to_thread.run_sync(_ask, clients, load, burst, passes)
                    used = time.thread_time() - used
                    made = links * burst * passes
                    if broker.operations.called - before != made:
                        raise RuntimeError(f"{broker.operations.called - before} of {made} were called")
                    broker_s.append(used / made)
                    floor_s.append(floor_of(load, burst, links * passes))
            finally:
                for sock, _ in clients:
                    sock.close()
    return Result(
        "calls", what, 1 / median(broker_s), "/s", GOAL, False, 1 / median(floor_s), "bare recv + unpack + pack + send",
        detail={"links": links, "calls_a_write": burst, "cpu_us": round(median(broker_s) * 1e6, 2)},
    )  # fmt: skip


def open_links(port: int, links: int) -> list[tuple[socket.socket, int]]:
    """Return joined links, each with the number of its room."""
    found = []
    for number in range(links):
        sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(hello_auth_join(f"dev:u{number}", ROOM))
        data, room = b"", 0
        while not room:
            data += sock.recv(65536)
            while len(data) >= 16 and len(data) >= HEADER.unpack_from(data)[0]:
                length, _, _, opcode, named, _ = HEADER.unpack_from(data)
                if opcode == Opcode.JOIN:
                    room = named
                data = data[length:]
        found.append((sock, room))
    return found


def _ask(clients: list[tuple[socket.socket, int]], load: Load, burst: int, passes: int) -> None:
    """Send ``burst`` calls on each link and read their answers, ``passes`` times. RuntimeError for another answer."""
    other = {Opcode.RESULT, Opcode.ERROR, Opcode.GOAWAY} - {load.opcode}
    rests = {sock: b"" for sock, _ in clients}
    requests = [
        (sock, b"".join(load.request(room, number) for number in range(1, burst + 1))) for sock, room in clients
    ]
    for _ in range(passes):
        for sock, request in requests:
            sock.sendall(request)
        for sock, _ in clients:
            answers, data = 0, rests[sock]
            while answers < burst:
                data += sock.recv(262_144)
                position = 0
                while len(data) - position >= 16:
                    length, _, _, opcode, _, _ = HEADER.unpack_from(data, position)
                    if len(data) - position < length:
                        break
                    if opcode in other:
                        raise RuntimeError(unpackb(data[position + 16 : position + length]))
                    answers += opcode == load.opcode
                    position += length
                data = data[position:]
            rests[sock] = data


async def _sell_out(broker: Broker) -> None:
    """Open a sale of one unit and sell it; no claim may wait."""
    begun_ms = time.time_ns() // 1_000_000
    scopes = frozenset({Scope.COMMERCE_READ, Scope.COMMERCE_WRITE, Scope.ROOMS_WRITE})
    shop = Caller("shop", "", "127.0.0.1", lambda room: Role.APP, scopes=scopes)
    buyer = Caller(
        "first", "", "127.0.0.1", lambda room: Role.VIEWER, frozenset({Role.VIEWER}), key="claim",
        joined_at_ms=lambda room: begun_ms,
    )  # fmt: skip

    async def call(caller: Caller, name: str, **fields: Any) -> Any:
        result, _ = await broker.operations.call(caller, BY_NAME[name], {"room": ROOM, "id": "flash", **fields})
        return result

    await call(
        shop, "sales.create", sku="mug", stock=1, price_cents=1990, open_at_ms=begun_ms - 1,
        close_at_ms=begun_ms + 3_600_000, first_window_ms=0, window_ms=0, waiting_max=0,
    )  # fmt: skip
    await trio.sleep(0.1)
    claim = await call(buyer, "sales.claim")
    await call(shop, "sales.confirm", number=claim.number, order="order-1")


def floor_of(load: Load, burst: int, writes: int) -> float:
    """Return the CPU of one call in a bare loop over a socket pair, in the same bytes."""
    server, client = socket.socketpair()
    request = b"".join(load.request(1, number) for number in range(burst))
    answered = len(frame(load.opcode, packb(load.answer))) * burst
    thread = threading.Thread(target=_client, args=(client, request, answered, writes))
    thread.start()
    used = time.thread_time()
    for _ in range(writes):
        data = server.recv(65536)
        while len(data) < len(request):
            data += server.recv(65536)
        answers = []
        position = 0
        while position < len(data):
            length, _, _, _, room, sequence = HEADER.unpack_from(data, position)
            unpackb(data[position + 16 : position + length], use_list=False)
            answers.append(frame(load.opcode, packb(load.answer), room, sequence))
            position += length
        server.sendall(b"".join(answers))
    used = time.thread_time() - used
    thread.join()
    server.close()
    client.close()
    return used / (burst * writes)


def _client(sock: socket.socket, request: bytes, answered: int, writes: int) -> None:
    for _ in range(writes):
        sock.sendall(request)
        left = answered
        while left:
            left -= len(sock.recv(65536))
