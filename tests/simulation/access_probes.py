"""Probes of who may do what: addresses, log-ins, tickets, guests, joins, batches, origins and a reload."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec
import trio

from protocol.codes import CloseCode, ErrorCode, MessageType, Outcome, Tier
from protocol.connection import Frame
from protocol.messages import (
    Call,
    Direct,
    DirectAck,
    ErrorReply,
    Event,
    Join,
    Leave,
    Ping,
    Pong,
    Result,
    Resume,
)
from protocol.operations import BY_NAME
from protocol.operations.directs import SendManyDirects
from tests.simulation.broker import (
    DIRECT_TYPE,
    FAILED_LOGINS,
    HOST_TYPE,
    JOINS,
    NEW_ROOMS,
    TICKET_S,
    UNUSED_CLOSE_S,
)
from tests.simulation.probes import Probe, Prober
from tests.simulation.raw import NOT_NOW, LinkEnded, RawLink
from tests.support.websocket import JSON_UPGRADE

__all__ = ["ACCESS_PROBES"]

ANSWERS_S = 20.0
SEND_MANY, PROGRESS = BY_NAME["directs.send_many"].number, BY_NAME["directs.progress"].number
CLOSED = frozenset({CloseCode.AUTH_FAILED, CloseCode.TOKEN_EXPIRED})


async def login_fails(p: Prober, token: str | None, why: str, source: str = "") -> None:
    """Check that a token is refused."""
    async with p.connect(source) as link:
        try:
            await link.login(token)
        except LinkEnded as ended:
            if ended.goaway is not None and ended.goaway.code == CloseCode.AUTH_FAILED:
                return
            raise
        raise AssertionError(f"{why} was accepted")


# ---- addresses


async def probe_addresses(p: Prober) -> None:
    """Silent connections of one address leave place for others."""
    async with AsyncExitStack() as stack:
        for _ in range(130):
            run = p.actors.broker_run
            p.actors.connections += 1
            if run is None or run.accept(p.actors.connections, p.address(7)) is None:
                raise LinkEnded("the broker is not up")
        await trio.sleep(0.5)
        link = await stack.enter_async_context(p.connect(p.address(8)))
        try:
            await link.login(p.token("honest"))
        except LinkEnded as ended:
            if ended.goaway is not None and ended.goaway.code == CloseCode.OVERLOADED:
                raise AssertionError("one address uses up all unauthenticated connections") from ended
            raise
    await trio.sleep(6.0)


async def probe_logins(p: Prober) -> None:
    """Failed log-ins of one address are limited."""
    codes = []
    for _ in range(FAILED_LOGINS + 2):
        async with p.connect(p.address(9)) as link:
            try:
                await link.login("not a token")
            except LinkEnded as ended:
                codes.append(ended.goaway.code if ended.goaway is not None else 0)
    if not set(codes) <= {CloseCode.AUTH_FAILED, CloseCode.TOO_MANY_FROM_ADDRESS}:
        raise LinkEnded(f"closed with {codes}")
    assert CloseCode.TOO_MANY_FROM_ADDRESS in codes, "log-ins may fail without limit"
    async with p.connect(p.address(10)) as link:
        await link.login(p.token("honest"))


async def probe_rooms(p: Prober) -> None:
    """Viewers of one address open few rooms, unused ones close soon, and guests open none."""
    async with p.link("opener", source=p.address(11)) as link:
        codes = [await _enter_code(link, p.room(f"n{number}")) for number in range(NEW_ROOMS + 1)]
        if ErrorCode.OVERLOADED in codes:
            raise LinkEnded("overloaded")
        assert codes[-1] == ErrorCode.RATE_LIMITED, f"one address opens rooms without limit: {codes}"
    await trio.sleep(UNUSED_CLOSE_S + 3.0)
    left = [name for name in map(p.room, ("n0", "n1")) if p.broker.hub.find(name) is not None]
    assert not left, f"unused rooms stay open: {left}"
    assert p.broker.room_store is not None
    assert not p.broker.room_store.knows(p.room("n0")), "an unused room keeps a checkpoint"


async def _enter_code(link: RawLink, name: str) -> int:
    """Return the error code of a JOIN; 0 if it is admitted."""
    found = await link.enter(Join(name, Tier.FULL))
    return found.code if isinstance(found, ErrorReply) else 0


async def probe_joins(p: Prober) -> None:
    """A user joins so many new rooms at once; coming back to them costs nothing."""
    names = [p.room(f"n{number}") for number in range(JOINS + 2)]
    async with p.link("host", "host") as host:
        epochs = [(await host.join(name))[1].epoch for name in names]
        async with p.link("hopper") as hopper:
            codes = [await _enter_code(hopper, name) for name in names]
            if not set(codes) <= {0, ErrorCode.RATE_LIMITED}:
                raise LinkEnded(f"refused with {codes}")
            assert ErrorCode.RATE_LIMITED in codes, "joins are not limited"
            assert codes[:JOINS] == [0] * JOINS, f"joins within the burst are refused: {codes}"
        async with p.link("hopper") as hopper:
            for name, epoch in list(zip(names, epochs, strict=True))[:JOINS]:
                found = await hopper.enter(Resume(name, Tier.FULL, epoch, 0))
                if isinstance(found, ErrorReply) and found.code == ErrorCode.OVERLOADED:
                    raise LinkEnded("overloaded")
                assert not isinstance(found, ErrorReply), f"coming back is refused: {found}"


# ---- roles


async def probe_guests(p: Prober) -> None:
    """Guests come into the rooms that are named for them, and get nothing of the past by resuming."""
    if p.world.conditions.development:
        return  # every name is taken there, and every room is open
    name, closed = p.room(), f"closed {p.room()}".replace(" ", "-")
    async with p.link("host", "host") as host, p.connect() as guest:
        room, snapshot = await host.join(name)
        await host.join(closed)
        await p.post(host, room, MessageType.ANNOUNCEMENT, ("before the guest",))
        await guest.login(None)
        code = await _enter_code(guest, closed)
        assert code in (ErrorCode.ROOM_NOT_GRANTED, ErrorCode.OVERLOADED), f"a closed room: {code}"
        code = await _enter_code(guest, f"{name}-new")
        assert code in (ErrorCode.UNKNOWN_ROOM, *NOT_NOW), f"a guest has opened a room: {code}"
        sequence = guest.sequence()
        await guest.send((Resume(name, Tier.FULL, snapshot.epoch, 0), 0, sequence))
        frames = await guest.collect(3.0)
        past = [frame for frame in frames if isinstance(frame.message, Event)]
        assert not past, f"a guest resumed from 0 and got {past}"


async def probe_batches(p: Prober) -> None:
    """Batches keep the rules of a type: role, size, types that the token allows; each user gets one message."""
    users = {p.user("one"): {"name": "One"}, p.user("two"): {"name": "Two"}}
    message = SendManyDirects(p.room(), DIRECT_TYPE, "for {name}", users)

    async def refused(link: RawLink, wrong: SendManyDirects, code: ErrorCode) -> None:
        _, found = await link.request(Call(SEND_MANY, "", wrong), Result)
        assert isinstance(found, ErrorReply), f"{wrong} was sent"
        if found.code in NOT_NOW:
            raise LinkEnded(str(found))
        assert found.code == code, found

    async with p.link("viewer") as viewer:
        await refused(viewer, message, ErrorCode.NOT_ALLOWED)
    async with p.link("app", "app") as app:
        await refused(app, message._replace(type=HOST_TYPE), ErrorCode.NOT_ALLOWED)
        await refused(app, message._replace(type=250), ErrorCode.UNKNOWN_TYPE)
        await refused(app, message._replace(template="x" * 300), ErrorCode.PAYLOAD_TOO_LARGE)
        if not p.world.conditions.development:
            async with p.connect() as narrow:
                rooms = [{"pattern": "*", "role": "app", "allow": ["gift"]}]
                await narrow.login(p.token("narrow", "app", rooms=rooms))
                await refused(narrow, message, ErrorCode.NOT_ALLOWED)
        async with p.link("one") as one:
            for _ in range(2):
                _, found = await app.request(Call(SEND_MANY, "", message), Result)
                if isinstance(found, ErrorReply) or found.result.failed:
                    raise LinkEnded(str(found))
            assert isinstance(found, Result)
            assert (found.result.sent, found.result.repeated) == (0, 2), f"a batch was sent twice: {found}"
            await refused(app, message._replace(template="other {name}"), ErrorCode.KEY_REUSED)
            await one.collect(1.0)
            got = [frame.message for frame in await _replayed(p) if isinstance(frame.message, Direct)]
            assert [direct.payload for direct in got] == ["for One"], got
            await one.send((DirectAck(got[0].direct_id), 0, 0))
            await one.collect(1.0)
        async with p.link("two") as two:
            _, direct = await two.answer(Direct)
            await two.send((DirectAck(direct.direct_id), 0, 0))
            await two.collect(1.0)
        _, found = await app.request(Call(PROGRESS, "", (message.batch,)), Result)
        assert isinstance(found, ErrorReply) or found.result.acked == 2, f"the state of the batch: {found}"


async def probe_calls(p: Prober) -> None:
    """Each CALL has one answer: reads of a member, wrong ones, and those under way when the link leaves the room."""
    async with p.link("caller") as link:
        room, joined = await link.join(p.room())
        calls = (
            (Call(2, "", ()), room), (Call(7, "", (None, 0, 5)), room), (Call(6, "", (joined.room_name,)), 0),
            (Call(2, "", ("no-such-room",)), 0), (Call(4, "", (None, "paused")), room), (Call(9_999, "", ()), 0),
            (Call("rooms.explode", "", {}), 0), (Call(2, "", (5,)), 0), (Call(6, "", ({},)), room),
            (Call(3, "", ()), 0), (Call(60, "", ()), 0), (Call(7, "", (None, 0)), room),
        )  # fmt: skip
        wanted = {link.sequence(): call for call in calls}
        leaving = link.sequence()
        await link.send(*((call, number, each) for each, (call, number) in wanted.items()), (Leave(), room, leaving))
        answers: dict[int, list[Result | ErrorReply]] = {}
        for frame in await link.collect(ANSWERS_S):
            if isinstance(frame.message, (Result, ErrorReply)) and frame.sequence in wanted:
                answers.setdefault(frame.sequence, []).append(frame.message)
        assert answers.keys() == wanted.keys(), f"calls without an answer: {wanted.keys() - answers.keys()}"
        assert all(len(found) == 1 for found in answers.values()), f"a call was answered twice: {answers}"
        for number, (found,) in answers.items():
            operation = wanted[number][0].operation
            if isinstance(found, Result):
                assert operation in (2, 6, 7), f"{wanted[number]} was carried out: {found}"
                assert found.operation == operation
            else:
                assert found.code != ErrorCode.INTERNAL_ERROR, found


async def _replayed(p: Prober) -> list[Frame]:
    """Return what a second device of the first user gets."""
    async with p.link("one") as device:
        return await device.collect(1.0)


# ---- tokens


async def probe_tickets(p: Prober) -> None:
    """A ticket logs in until it expires, over a restart too; a changed, foreign or expired one does not."""
    if p.world.conditions.development:
        return  # development identities get no ticket
    token = p.token("rider")
    async with p.connect() as link:
        user = await link.login(token)
        assert user.ticket, "no ticket"
        assert user.ticket_ms <= TICKET_S * 1000
        tickets = []
        for _ in range(2):
            await link.send((Ping(1, renew=True), 0, 0))
            tickets.append((await link.answer(Pong))[1].ticket)
        assert "" in tickets, "tickets are renewed without limit"
    head, body, mark = user.ticket.split(".")
    changed = f"{head}.{body}.{'A' if mark[0] != 'A' else 'B'}{mark[1:]}"
    await login_fails(p, changed, "a ticket with a wrong signature", p.address(12))
    await login_fails(p, f"{head}.{token.split('.')[1]}.{mark}", "a token's claims in a ticket", p.address(12))
    await login_fails(p, f"{token.split('.')[0]}.{body}.{mark}", "a ticket as a token", p.address(12))
    if p.world.happened["clock leaps"]:
        return  # a restart may take another time over
    async with p.connect() as link:
        ends = await link.login(p.token("short", lifetime_s=8))
        left_ms = ends.expires_at_ms - p.broker.clock.now_ms()
        assert ends.ticket_ms <= left_ms + 3000, f"a ticket for {ends.ticket_ms} ms of a token for {left_ms} ms"
    await p.kill()
    async with p.connect() as link:
        again = await link.login(user.ticket)
        assert again.user_id == user.user_id
        assert again.expires_at_ms == user.expires_at_ms, "a ticket lasts longer than its token"
    await trio.sleep(TICKET_S + 1)
    await login_fails(p, user.ticket, "an expired ticket", p.address(12))


async def probe_origins(p: Prober) -> None:
    """Web pages of other origins do not connect in development mode, nor through a proxy of this machine."""
    for header, value in ((b"Origin", b"https://evil.example"), (b"Host", b"broker.example")):
        async with p.connect() as link:
            request = JSON_UPGRADE.replace(b"Host: x\r\n", b"Host: localhost\r\n", 1)
            if header == b"Host":
                request = request.replace(b"Host: localhost", b"Host: " + value, 1)
            else:
                request = request.replace(b"\r\n", b"\r\n" + header + b": " + value + b"\r\n", 1)
            head = await link.upgrade(request)
            is_refused = not head.startswith(b"HTTP/1.1 101")
            assert is_refused or not p.world.conditions.development, f"{header!r} {value!r}: {head!r}"


async def probe_reload(p: Prober) -> None:
    """A reload takes new limits over and keeps the open links."""
    async with p.link("kept", "host") as kept:
        room, _ = await kept.join(p.room())
        config = p.broker.config
        most = msgspec.structs.replace(config.link, connections_per_user=2)
        try:
            for_restart = p.broker.reload(msgspec.structs.replace(config, link=most))
            assert for_restart == []
            result = await p.post(kept, room, MessageType.ANNOUNCEMENT, ("still here",))
            assert result.outcome is Outcome.ACCEPTED
            async with p.link("kept"), p.connect() as third:
                await third.login(p.token("kept"))
                links = len(p.broker.users.sessions(p.user("kept")))
                assert links == 2, f"{links} links of a user after a reload with a limit of 2"
        finally:
            run = p.actors.broker_run
            if run is not None:
                run.broker.reload(config)


ACCESS_PROBES: dict[str, Probe] = {
    "addresses": probe_addresses,
    "batches": probe_batches,
    "calls": probe_calls,
    "guests": probe_guests,
    "joins": probe_joins,
    "logins": probe_logins,
    "origins": probe_origins,
    "reload": probe_reload,
    "rooms": probe_rooms,
    "tickets": probe_tickets,
}
