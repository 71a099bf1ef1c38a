"""Operations on sanctions: what they bring about on open links, who may, undoing, restarts, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker.rooms.members import Members
from protocol.activities.moderation import SanctionVerb
from protocol.codes import CloseCode, ErrorCode, LeaveReason, MessageType, Outcome, Tier
from protocol.messages import Ack, AckResult, Auth, Call, ErrorReply, Event, Join, Left, Result, Resume, Resumed, Tick
from protocol.operations import BY_NAME
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.receiver import receiver
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration


async def result_of(link: RawLink) -> tuple[AckResult, str, int]:
    """The next result of a post, with its reason and wait."""
    (_, ack) = await link.expect(Ack)
    (result,) = ack.results
    reason = ack.reasons[0] if ack.reasons else None
    return result, "" if reason is None else reason.text, 0 if reason is None else reason.retry_after_ms


async def call_of(link: RawLink, name: str, *arguments: Any) -> Result | ErrorReply:
    await link.send((Call(BY_NAME[name].number, "", arguments), 0, 99))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, Result | ErrorReply) and frame.sequence == 99:
            return frame.message


async def own_mute(link: RawLink) -> tuple[bool, int, str]:
    while True:
        _, event = await link.expect(Event)
        if event.type == MessageType.ACTIVITY_COUNTER and event.payload[0] == "moderation.muted":
            data = event.payload[2]
            return data["is_muted"], data["until_ms"], data["reason"]


async def test_a_mute_holds_at_once_is_shown_to_its_user_and_is_lifted() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, number), joined_link(broker, "dev:bob") as (bob, _):
            done = await ok(client, "moderation.mute", room="lobby", user="ann", seconds=600, reason="spam")
            assert done["links"] == 1
            assert await own_mute(ann) == (True, done["until_ms"], "spam")
            for kind, payload in ((MessageType.DANMAKU, ("hi", None)), (MessageType.LIKE, (3,))):
                await ann.post(number, 5, kind, payload)
                result, reason, wait_ms = await result_of(ann)
                assert (result.outcome, result.detail, reason) == (Outcome.REJECTED, ErrorCode.MUTED, "spam")
                assert 590_000 < wait_ms <= 600_000
            await bob.post(number, 6, MessageType.DANMAKU, ("bob", None))
            (_, tick) = await ann.expect(Tick)
            assert [entry.payload[0] for entry in tick.entries] == ["bob"]
            await ok(client, "moderation.unmute", room="lobby", user="ann")
            assert await own_mute(ann) == (False, 0, "")
            await ann.post(number, 7, MessageType.DANMAKU, ("again", None))
            assert (await result_of(ann))[0].outcome is Outcome.ACCEPTED


async def test_a_shadow_is_seen_by_all_links_of_its_user_and_by_nobody_else() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with (
            joined_link(broker, "dev:ann") as (ann, number),
            joined_link(broker, "dev:ann") as (phone, _),
            joined_link(broker, "dev:bob") as (bob, _),
        ):
            await ok(client, "moderation.mute", room="lobby", user="ann", shadow=True)
            await ann.post(number, 5, MessageType.DANMAKU, ("buy gold", None))
            for link in (ann, phone):
                _, tick = await link.expect(Tick)
                assert [(entry.user_id, entry.payload[0]) for entry in tick.entries] == [("ann", "buy gold")]
            assert (await result_of(ann))[:2] == (AckResult(5, Outcome.ACCEPTED), "")
            await bob.post(number, 6, MessageType.DANMAKU, ("hello", None))
            _, tick = await bob.expect(Tick)
            assert [entry.user_id for entry in tick.entries] == ["bob"]
            async with raw_link(broker) as late:
                await late.login("dev:eve")
                _, joined = await late.join()
                assert [entry.user_id for entry in joined.recent] == ["bob"]


async def test_a_ban_removes_the_user_from_the_room_and_clears_its_messages() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, number), joined_link(broker, "dev:bob") as (bob, _):
            await ann.post(number, 5, MessageType.DANMAKU, ("spam", None))
            await bob.expect(Tick)
            done = await ok(client, "moderation.ban", room="lobby", user="ann", reason="spam", clear=True)
            assert done["until_ms"] == 0
            assert (await ann.expect(Left))[1] == Left(LeaveReason.BANNED, "spam")
            _, event = await bob.expect(Event)
            assert (event.type, event.payload[1]) == (MessageType.MESSAGES_DELETED, "ann")
            await ann.send((Join("lobby"), 0, 7))
            _, error = await ann.expect(ErrorReply)
            assert (error.code, error.retry_after_ms) == (ErrorCode.BANNED, 0)
            await ann.join("other", sequence=8)
            async with raw_link(broker) as late:
                await late.login("dev:eve")
                assert (await late.join())[1].recent == ()


async def test_a_ban_from_every_room_ends_the_links_and_refuses_log_ins() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, _):
            done = await ok(client, "moderation.ban", room=None, user="ann", seconds=60, reason="fraud")
            goaway = await ann.expect_close()
            assert (goaway.code, goaway.reason, done["links"]) == (CloseCode.BANNED, "fraud", 1)
            assert 0 < goaway.retry_after_ms <= 60_000
        async with raw_link(broker) as again:
            await again.hello()
            await again.send((Auth("dev:ann"), 0, 0))
            assert (await again.expect_close()).code == CloseCode.BANNED
        await ok(client, "moderation.undo", action=done["action"])
        async with joined_link(broker, "dev:ann"):
            pass


async def test_moderators_sanction_those_below_them_and_never_themselves() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with (
            joined_link(broker, "dev:mod:moderator") as (mod, _),
            joined_link(broker, "dev:max:host") as (host, number),
            joined_link(broker, "dev:ann") as (ann, _),
        ):
            for name in ("moderation.mute", "moderation.ban"):
                for user in ("max", "mod"):
                    found = await call_of(mod, name, "lobby", user, 60)
                    assert isinstance(found, ErrorReply)
                    assert (found.code, found.field) == (ErrorCode.NOT_ALLOWED, "user")
            assert isinstance(await call_of(ann, "moderation.mute", "lobby", "mod", 60), ErrorReply)
            assert isinstance(await call_of(mod, "moderation.mute", None, "ann", 60), ErrorReply)
            assert isinstance(await call_of(mod, "moderation.mute", "lobby", "ann", 60), Result)
            by_host = await call_of(host, "moderation.mute", "lobby", "mod", 60)
            assert isinstance(by_host, Result)
            own = await call_of(mod, "moderation.undo", by_host.result[0])
            assert isinstance(own, ErrorReply)
            assert own.code == ErrorCode.NOT_ALLOWED
            # A host that is not here now is no host that a moderator can keep out.
            await ok(client, "rooms.open", room="other")
        async with joined_link(broker, "dev:mod:moderator") as (mod, _):
            assert isinstance(await call_of(mod, "moderation.ban", "lobby", "max", 60), Result)
        async with joined_link(broker, "dev:max:host"):
            pass
        async with raw_link(broker) as viewer:
            await viewer.login("dev:max")
            await viewer.send((Join("lobby"), 0, 3))
            assert (await viewer.expect(ErrorReply))[1].code == ErrorCode.BANNED
        assert number


async def test_sanctions_are_listed_newest_first_and_undone_within_their_window() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="lobby")
        for user in ("ann", "bob", "eve"):
            await ok(client, "moderation.mute", room="lobby", user=user, reason=user)
        lifted = await ok(client, "moderation.unmute", room="lobby", user="bob")
        page = await ok(client, "moderation.list", room="lobby", limit=1)
        assert [each["user"] for each in page["items"]] == ["eve"]
        rest = await ok(client, "moderation.list", room="lobby", cursor=page["next"])
        assert ([each["user"] for each in rest["items"]], rest["next"]) == (["ann"], None)
        over = await ok(client, "moderation.list", active=False)
        assert [(each["verb"], each["user"]) for each in over["items"]] == [("unmute", "bob"), ("mute", "bob")]
        await ok(client, "moderation.undo", action=lifted["action"])
        assert [each["user"] for each in (await ok(client, "moderation.list"))["items"]] == ["eve", "bob", "ann"]
        assert await refused(client, "moderation.undo", action=lifted["action"]) == (409, "STALE", "action")
        assert await refused(client, "moderation.undo", action="nothing") == (404, "UNKNOWN_ACTION", "action")
        assert await refused(client, "moderation.list", cursor="x") == (400, "BAD_FIELD", "cursor")
        assert (await ok(client, "moderation.unban", room="lobby", user="ann"))["action"] == ""
        assert (await call(client, "moderation.mute", room="nowhere", user="ann")).status_code == 404


async def test_sanctions_and_undoing_outlive_a_restart(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="lobby")
        muted = await ok(client, "moderation.mute", room="lobby", user="ann", seconds=600, reason="spam")
        await ok(client, "moderation.ban", room=None, user="bob")
        lifted = await ok(client, "moderation.unmute", room="lobby", user="ann")
        await ok(client, "users.kick", room="lobby", user="eve", ban_s=600)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, number):
            await ok(client, "moderation.undo", action=lifted["action"])
            await ann.post(number, 5, MessageType.DANMAKU, ("hi", None))
            assert (await result_of(ann))[0].detail == ErrorCode.MUTED
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        found = {(each["verb"], each["user"]) for each in (await ok(client, "moderation.list"))["items"]}
        assert found == {("mute", "ann"), ("ban", "bob"), ("ban", "eve")}
        await ok(client, "moderation.undo", action=muted["action"])
        items = (await ok(client, "users.export", user="bob"))["items"]
        assert [(each["kind"], each["about"]["sanction"]) for each in items] == [
            ("sanction", "ban"), ("sanction_action", "ban"),
        ]  # fmt: skip
        await ok(client, "users.erase", user="bob", confirm="bob")
        await until(lambda: not broker.hub.sanctions.of_user("bob", 0))


async def test_what_the_ledger_cannot_take_does_not_hold(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, number):
            disk(broker).fault = disk_error("SQLITE_FULL")
            failed = await call(client, "moderation.mute", room="lobby", user="ann")
            assert (failed.status_code, failed.json()["code"]) == (503, "OVERLOADED")
            disk(broker).fault = None
            await ann.post(number, 5, MessageType.DANMAKU, ("hi", None))
            assert (await result_of(ann))[0].outcome is Outcome.ACCEPTED


async def test_the_platform_hears_of_each_change_once(directory: Path, tmp_path: Path) -> None:
    async with receiver() as running:
        hooks = hook_settings(tmp_path, running.url, "user.sanctioned")
        async with durable_broker(directory, api=API, webhooks=hooks) as broker, client_of(broker) as client:
            await ok(client, "rooms.open", room="lobby")
            done = await ok(client, "moderation.mute", room="lobby", user="ann", seconds=60, reason="spam")
            await ok(client, "moderation.undo", action=done["action"])
            with trio.fail_after(10):
                await until(lambda: len(running.requests) == 2)
            first, second = (event["data"] for event in events_of(running))
            assert (first["verb"], first["room"], first["user"], first["until_ms"], first["undone"]) == (
                SanctionVerb.MUTE.name.lower(), "lobby", "ann", done["until_ms"], False,
            )  # fmt: skip
            assert (second["action"], second["undone"]) == (done["action"], True)


async def test_a_sanction_touches_the_links_of_its_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_asked(self: Members) -> None:
        raise AssertionError("the members of a room are walked through")

    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, _), joined_link(broker, "dev:bob"):
            with monkeypatch.context() as patched:
                patched.setattr(Members, "all", not_asked)
                patched.setattr(Members, "variants", not_asked)
                await ok(client, "moderation.mute", room="lobby", user="ann")
                await ok(client, "moderation.ban", room="lobby", user="ann")
                await ann.expect(Left)


async def test_modes_are_shown_to_all_hold_at_once_and_outlive_a_restart(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with (
            joined_link(broker, "dev:mod:moderator") as (mod, number),
            joined_link(broker, "dev:ann") as (ann, _),
        ):
            found = await call_of(mod, "moderation.set_modes", "lobby", 600, None, None, True)
            assert isinstance(found, Result)
            _, event = await ann.expect(Event)
            assert event.payload[0] == "moderation.modes_changed"
            assert (event.payload[2]["slow_s"], event.payload[2]["emote_only"]) == (600, True)
            await ann.post(number, 5, MessageType.DANMAKU, ("hi", None))
            assert (await result_of(ann))[0] == AckResult(5, Outcome.REJECTED, ErrorCode.EMOTE_ONLY)
            await ann.post(number, 6, MessageType.EMOTE, ("heart",))
            assert (await result_of(ann))[0].outcome is Outcome.ACCEPTED
            await ann.post(number, 7, MessageType.EMOTE, ("star",))
            result, _, wait_ms = await result_of(ann)
            assert result.detail == ErrorCode.SLOW_MODE
            assert 590_000 < wait_ms <= 600_000
            assert isinstance(await call_of(ann, "moderation.set_modes", "lobby", 0), ErrorReply)
            disk(broker).fault = disk_error("SQLITE_FULL")
            assert (await call(client, "moderation.set_modes", room="lobby", slow_s=0)).status_code == 503
            disk(broker).fault = None
            assert (await ok(client, "moderation.get_modes", room="lobby"))["slow_s"] == 600
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with raw_link(broker) as late:
            await late.login("dev:eve")
            _, joined = await late.join()
            (view,) = [each for each in joined.activities if each.kind == "moderation"]
            assert (view.data["slow_s"], view.data["emote_only"]) == (600, True)
        modes = await ok(client, "moderation.set_modes", room="lobby", slow_s=0)
        assert (modes["slow_s"], modes["emote_only"]) == (0, True)


async def test_who_follows_the_host_may_chat_in_followers_mode(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (ann, number):
            await ok(client, "moderation.set_modes", room="lobby", followers_s=0)
            await ann.post(number, 5, MessageType.DANMAKU, ("hi", None))
            assert (await result_of(ann))[0].detail == ErrorCode.FOLLOWERS_ONLY
            await ok(client, "audiences.follow", room="lobby", follows=True, user="ann")
            await ann.post(number, 6, MessageType.DANMAKU, ("hi", None))
            assert (await result_of(ann))[0].outcome is Outcome.ACCEPTED


async def test_a_muted_user_that_joins_learns_of_it() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="lobby")
        await ok(client, "moderation.mute", room=None, user="ann", reason="spam")
        async with raw_link(broker) as ann:
            await ann.login("dev:ann")
            _, joined = await ann.join()
            (own,) = joined.own_activities
            assert (own.kind, own.data["is_muted"], own.data["reason"]) == ("moderation", True, "spam")
        async with raw_link(broker) as again:
            await again.login("dev:ann")
            await again.send((Resume("lobby", Tier.FULL, joined.epoch, joined.offset), 0, 1))
            _, resumed = await again.expect(Resumed)
            assert (resumed.recovered, [each.kind for each in resumed.snapshot.own_activities]) == (
                True,
                ["moderation"],
            )


async def test_staff_see_messages_before_viewers_and_what_they_delete_never_reaches_them() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with (
            joined_link(broker, "dev:mod:moderator") as (mod, _),
            joined_link(broker, "dev:ann") as (ann, number),
            joined_link(broker, "dev:bob") as (bob, _),
        ):
            await ok(client, "moderation.set_modes", room="lobby", delay_ms=1000)
            await ann.post(number, 5, MessageType.DANMAKU, ("spam", None))
            _, tick = await mod.expect(Tick)
            assert [entry.payload[0] for entry in tick.entries] == ["spam"]
            await ok(client, "messages.delete", room="lobby", user="ann")
            await bob.post(number, 6, MessageType.DANMAKU, ("hello", None))
            _, tick = await mod.expect(Tick)
            assert [entry.payload[0] for entry in tick.entries] == ["hello"]
            shown: list[str] = []
            while "hello" not in shown:
                _, tick = await bob.expect(Tick)
                shown += [entry.payload[0] for entry in tick.entries]
            assert shown == ["hello"]
            await ok(client, "moderation.set_modes", room="lobby", delay_ms=0)
            await bob.post(number, 7, MessageType.DANMAKU, ("again", None))
            _, tick = await mod.expect(Tick)
            assert [entry.payload[0] for entry in tick.entries] == ["again"]
