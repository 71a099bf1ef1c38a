"""Checks of the simulated world: at every moment (`check_invariants`) and at the end (`check`)."""

from __future__ import annotations

from typing import Any
from typing import cast as cast_to

from broker.core.rooms.totals import RoomReading
from broker.ledger import DirectState
from broker.ledger import Reader as Ledger
from broker.rooms.publishing import MAX_JOINED_EVENTS
from broker.sessions.session import Session
from protocol.codes import MessageType, Role, RoomPhase
from protocol.frames import unpack_body
from tests.simulation.actors import DEVICES, EXPIRY_LATE_MS, GIFTS, NEWS, ROOMS, SIDE, USERS, VISITS, Actors, is_end
from tests.simulation.disk import Written

__all__ = ["check", "check_invariants", "unfinished"]

FRAME_BYTES = 2048
"""Above any frame of the scenario."""
BEGUN_BYTES = MAX_JOINED_EVENTS * 600
"""A queue may exceed its bound by the buffer that is written in part: events of one commit, at most so many bytes."""


def check_invariants(actors: Actors) -> None:
    """Check the broker's accounts and bounds."""
    broker_run = actors.broker_run
    if broker_run is None or not broker_run.is_up:
        return
    broker = broker_run.broker
    for account in broker.hub.accounts():
        assert account.admitted == sum(account[1:]), account
        assert min(account) >= 0, account
    for room in broker.hub:
        if room.reading is not None:  # no change of its numbers has been missed
            assert room.reading == RoomReading.of(room.state.counters, room.state.activities.activities), room.name
    queued = 0
    limits = broker.config.queue
    for transport in broker_run.transports():
        queue = transport.queue
        if queue is not None:
            queued += queue.nbytes
            assert queue.critical_nbytes <= limits.critical_bytes, queue.critical_nbytes
            assert queue.nbytes <= limits.queue_bytes + limits.critical_bytes + BEGUN_BYTES, queue.nbytes
    assert broker.budget.used_bytes == queued, (broker.budget.used_bytes, queued)
    assert queued <= actors.world.conditions.total_bytes + FRAME_BYTES, f"{queued} bytes in all queues"
    assert broker.ledger is not None
    assert broker.ledger.waiting <= actors.world.conditions.ledger_items
    links = broker.users.session_count
    assert links <= len(broker.context.sessions), "links are counted that have ended"
    for room in broker.hub:
        if room.state.phase is RoomPhase.ENDED:
            continue  # its members are leaving
        sessions = [cast_to(Session, session) for session in broker.context.sessions]
        roles = [each.role for session in sessions for each in session.memberships if each.room is room]
        assert len(roles) == len(room.members), (room.name, roles)
        assert len(roles) - roles.count(Role.APP) == room.state.online, (room.name, roles)


def unfinished(actors: Actors) -> str | None:
    """Return the first promise that is not kept yet; None if all are."""
    broker_run = actors.broker_run
    if broker_run is None or not broker_run.is_up:
        return "the broker is not up"
    broker = broker_run.broker
    inboxes, ledger = broker.inboxes, broker.ledger
    assert inboxes is not None
    assert ledger is not None
    if actors.remaining:
        return f"{actors.remaining} actions are not acknowledged"
    if ledger.waiting or inboxes.unsaved_count:
        return "the ledger has a backlog"
    for reader in actors.readers:
        stream = actors.disk.streams.get((reader.room, reader.epoch), [])
        if reader.offset != len(stream):
            return f"{reader.name} has received {reader.offset} of {len(stream)}"
    side = broker.hub.find(SIDE)
    if side is None or side.state.phase is not _last_phase(actors, SIDE, side.state.epoch):
        return f"the phase of {SIDE} is not the last one of its stream"
    pending = sorted(inboxes.pending_users.intersection(USERS))  # an interrupted probe may leave others
    if pending:
        return f"messages are pending: {pending}"
    for liker in actors.likers:
        if liker.likes.waiting:
            return "likes wait to be sent"
        room = broker.hub.find(liker.name)
        if room is None:
            return f"{liker.name} has no member yet"
        assert room.state.phase is RoomPhase.LIVE
        actors.like_totals[liker.name] = room.state.like_total
    return None


def check(actors: Actors) -> None:
    """Compare what the clients received and what was acknowledged with the disk."""
    _check_events(actors)
    _check_likes(actors)
    ledger = Ledger(actors.disk.path)
    try:
        ledger.verify_all()
        _check_entries(actors, ledger)
        _check_messages(actors, ledger)
    finally:
        ledger.close()


def _streams(actors: Actors, room: str) -> list[list[Written]]:
    """Return the streams of a room in order; all but the last have ended."""
    streams = [stream for (name, _), stream in actors.disk.streams.items() if name == room and stream]
    assert all(is_end(stream[-1]) for stream in streams[:-1]), (
        f"{room} has a new stream although the old one has not ended"
    )
    assert room == SIDE or len(streams) <= 1, f"{room} has ended"
    return streams


def _last_phase(actors: Actors, room: str, epoch: int) -> RoomPhase:
    """Return the last phase in the room's stream."""
    stream = actors.disk.streams.get((room, epoch), ())
    phases = [unpack_body(each.body)[4][0] for each in stream if each.kind == MessageType.ROOM_PHASE]
    return RoomPhase(phases[-1]) if phases else RoomPhase.LIVE


def _check_events(actors: Actors) -> None:
    """Check gifts and announcements: each acknowledged one is stored once, at its offset."""
    for name in ROOMS:
        stream = [written for stream in _streams(actors, name) for written in stream]
        given = {order: gift for order, gift in actors.gifts.items() if gift.room == name}
        assert len(given) == GIFTS
        for offset, written in enumerate(stream, 1):
            if written.kind == MessageType.GIFT:
                count = unpack_body(written.body)[4][4]
                there = {order: gift.count for order, gift in given.items() if gift.offset == offset}
                assert count == sum(there.values()), f"{name} {offset}: {count} gifts, acknowledged were {there}"
        facts = {fact.order_id: (event, fact) for room, event, fact in actors.disk.orders if room == name}
        assert len(facts) == sum(room == name for room, _, _ in actors.disk.orders), "an order is a fact once"
        assert facts.keys() == given.keys()
        for order, gift in given.items():
            event, fact = facts[order]
            assert stream[gift.offset - 1].kind == MessageType.GIFT, (order, gift)
            assert stream[gift.offset - 1] is event, (order, gift)
            assert (fact.user_id, fact.count) == (gift.giver, gift.count), (order, gift, fact)
    for room, wanted in ((ROOMS[0], NEWS + actors.world.conditions.burst), (ROOMS[1], NEWS), (SIDE, VISITS)):
        texts = [
            unpack_body(written.body)[4][0]
            for stream in _streams(actors, room)
            for written in stream
            if written.kind == MessageType.ANNOUNCEMENT
        ]
        assert len({text.split(",")[0] for text in texts}) == len(texts) == wanted, f"{room}: {texts}"
    for what, (room, offset) in actors.news.items():
        found = [stream[offset - 1] for stream in _streams(actors, room) if offset <= len(stream)]
        bodies = [unpack_body(each.body)[4] for each in found if each.kind == MessageType.ANNOUNCEMENT]
        assert what in [body[0].split(",")[0] for body in bodies], (what, room, offset, bodies)


def _check_likes(actors: Actors) -> None:
    """Check likes: each counts at most once; only a crash may drop some."""
    happened = actors.world.happened
    for name in ROOMS:
        rooms = [room for room in actors.likers if room.name == name]
        counted = sum(room.likes.counted for room in rooms)
        unknown = sum(room.likes.unknown for room in rooms)
        assert all(sum(room.likes) == actors.likes[room] for room in rooms), [r.likes for r in rooms]
        total = actors.like_totals[name]
        assert total <= counted + unknown, f"{name}: {total} likes, {counted} were counted, {unknown} may have been"
        if not happened["killed"] and not any(what.startswith("disk fails") for what in happened):
            assert total >= counted, f"{name}: {total} likes are left of {counted}"


def _check_entries(actors: Actors, ledger: Ledger) -> None:
    """Check that stored entries are those that were written."""
    for entry, *_ in ledger.entries():
        if entry.lane is None:
            continue
        written = actors.disk.streams[entry.room, entry.epoch][entry.offset - 1]
        assert (entry.kind, entry.body) == written, entry


def _check_messages(actors: Actors, ledger: Ledger) -> None:
    """Check messages to users: each is stored once, and either received, or expired if it has an expiry."""
    for user in USERS:
        sent = actors.sent[user]
        stored = [ledger.direct(user, number) for number in range(1, len(sent) + 1)]
        assert ledger.direct(user, len(sent) + 1) is None, f"{user}: a message was written twice"
        seen = {text for device in DEVICES if device.split(":")[0] == user for _, text in actors.shown[device]}
        for message in sent:
            there = [direct for direct in stored if direct is not None and _text(direct) in message.texts]
            assert len(there) == 1, f"{user}: {message} is stored {len(there)} times"
            direct = there[0]
            assert message.direct_id in (0, direct.direct_id)
            if direct.state is not DirectState.ACKED:
                actors.world.happened["message expired"] += 1
                assert message.may_expire, f"{user} has not received {message}: {direct.state}"
                # While the clock is not trusted, nothing expires.
                is_known = direct.state is DirectState.EXPIRED or actors.world.happened["clock leaps"]
                assert is_known or direct.expires_at_ms > actors.world.wall_ms() - EXPIRY_LATE_MS, message
            else:
                seen_elsewhere = (user, direct.direct_id) in actors.seen_elsewhere
                assert _text(direct) in seen or seen_elsewhere, f"{user} has not received {message}"
    for device, messages in actors.shown.items():
        sent_texts = {text for message in actors.sent[device.split(":")[0]] for text in message.texts}
        assert {text for _, text in messages} <= sent_texts, device


def _text(direct: Any) -> str:
    text: str = unpack_body(direct.body)[0]
    return text
