"""RTC calls over real links: every device rings, one answers, both have the same token."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.core.users import rtc as core
from broker.users import rtc
from protocol.codes import ErrorCode
from tests.support.conversations import do, event, group, refusal
from tests.support.directs import login
from tests.support.durable import durable_broker
from tests.support.receiver import receiver
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration


async def test_several_devices_ring_and_one_answers(directory: Path) -> None:
    async with receiver() as platform:
        hooks = hook_settings(directory, platform.url, "rtc.*")
        async with (
            durable_broker(directory, webhooks=hooks) as broker,
            login(broker, "ann") as ann,
            login(broker, "bob") as phone,
            login(broker, "bob") as tablet,
        ):
            pair = (await do(broker, "ann", "open", user="bob")).id
            ringing = await do(broker, "ann", "rtc.ring", conversation=pair, video=True)
            for link in (phone, tablet):
                _, data = await event(link, "rtc.ringing")
                assert (data["user"], data["conversation"], data["video"]) == ("ann", pair, True)
            mine = await do(broker, "bob", "rtc.mine")
            assert tuple(mine.call) == (ringing.call, pair, "ann", True, False)
            code, _ = await refusal(broker, "ann", "rtc.accept", call=ringing.call)
            assert code is ErrorCode.OUT_OF_STATE
            code, _ = await refusal(broker, "eve", "rtc.accept", call=ringing.call)
            assert code is ErrorCode.UNKNOWN_CALL
            token = (await do(broker, "bob", "rtc.accept", call=ringing.call)).token
            code, _ = await refusal(broker, "bob", "rtc.accept", call=ringing.call)  # the other device
            assert code is ErrorCode.OUT_OF_STATE
            assert (await event(ann, "rtc.accepted"))[1] == {"token": token}
            for link in (phone, tablet):
                assert (await event(link, "rtc.answered"))[1] == {}
            code, _ = await refusal(broker, "bob", "rtc.reject", call=ringing.call)
            assert code is ErrorCode.OUT_OF_STATE
            await do(broker, "bob", "rtc.hang_up", call=ringing.call)
            for link in (ann, phone, tablet):
                assert (await event(link, "rtc.ended"))[1]["reason"] == "hung_up"
            assert (await do(broker, "ann", "rtc.mine")).call is None
            await until(lambda: len(platform.requests) == 2)
            assert [each["type"] for each in events_of(platform)] == ["rtc.ringing", "rtc.ended"]
            assert token not in str(platform.requests)


async def test_busy_rejected_and_blocked(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "bob"):
        pair = (await do(broker, "ann", "open", user="bob")).id
        other = (await do(broker, "cem", "open", user="bob")).id
        first = await do(broker, "ann", "rtc.ring", conversation=pair)
        for user, conversation in (("cem", other), ("bob", pair), ("ann", pair)):
            code, _ = await refusal(broker, user, "rtc.ring", conversation=conversation)
            assert code is ErrorCode.BUSY
        await do(broker, "bob", "rtc.reject", call=first.call)
        assert (await event(ann, "rtc.ended"))[1] == {"reason": "rejected", "lasted_ms": 0}
        await do(broker, "bob", "block", user="ann")
        assert (await refusal(broker, "ann", "rtc.ring", conversation=pair))[0] is ErrorCode.NOT_ALLOWED
        await group(broker, "ann", "bob")
        assert (await refusal(broker, "ann", "rtc.ring", conversation="tea"))[0] is ErrorCode.BAD_FIELD


async def test_a_call_that_nobody_answers_and_one_whose_user_is_gone_end(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtc, "TICK_S", 0.001)
    async with durable_broker(directory) as broker, login(broker, "bob") as bob:
        async with login(broker, "ann") as ann:
            pair = (await do(broker, "ann", "open", user="bob")).id
            with monkeypatch.context() as patch:
                patch.setattr(core, "RING_S", 0.0)
                await do(broker, "ann", "rtc.ring", conversation=pair)
                assert (await event(ann, "rtc.ended"))[1]["reason"] == "timeout"
                assert (await event(bob, "rtc.ended"))[1]["reason"] == "timeout"
            call = await do(broker, "ann", "rtc.ring", conversation=pair)
            await do(broker, "bob", "rtc.accept", call=call.call)
            monkeypatch.setattr(core, "LOST_S", 0.0)
        assert (await event(bob, "rtc.ended"))[1]["reason"] == "lost"
