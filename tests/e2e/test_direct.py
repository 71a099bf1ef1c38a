"""Must-deliver messages as a platform sends them that has only the README: ``serve``, ``direct``, ``tail``."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest
import trio

from broker.ledger import DirectState, Reader, database_path
from protocol.clients import Direct, open_client
from tests.support.processes import Running, roomcast, running, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

USERS = 2000
TEMPLATE = "您的优惠码 {code}"


def codes(path: Path, users: int = USERS) -> str:
    rows = (f"user-{n},C-{n:04},555-{n}\n" for n in range(users))
    path.write_text("user,code,phone\n" + "".join(rows), encoding="utf-8")
    return str(path)


async def shown(tail: Running) -> list[dict[str, object]]:
    """The DIRECT messages that a ``tail --json`` has printed until it ended."""
    with contextlib.suppress(EOFError):
        while True:
            await tail.out.next()
    return [each for each in map(json.loads, tail.out.text.splitlines()) if each["event"] == "direct"]


def stored(directory: Path) -> dict[str, list[tuple[str, DirectState]]]:
    """What of every user is on the disk: text and state of each message."""
    reader = Reader(database_path(directory))
    try:
        found: dict[str, list[tuple[str, DirectState]]] = {}
        rows = reader.connection.execute("SELECT user, direct_id FROM directs ORDER BY user, direct_id")
        for user, direct_id in rows.fetchall():
            each = reader.direct(user, direct_id)
            assert each is not None
            found.setdefault(user, []).append((each.body.decode("utf-8", "ignore")[-6:], each.state))
        return found
    finally:
        reader.close()


async def test_every_user_gets_its_code_once_over_a_kill_in_the_middle(tmp_path: Path) -> None:
    data, listed = tmp_path / "data", codes(tmp_path / "codes.csv")
    # So few frames a second that the kill meets the batch in its middle.
    async with serving("--data-dir", str(data), "--set", "link.frames_per_s=2") as broker:
        port, url = str(broker.port), broker.url
        watch = ("tail", "lobby", "--url", url, "--json", "--token")
        async with (
            running(*watch, "dev:user-3") as early,
            running(*watch, "dev:user-1999") as late,
            running(
                "direct", "--batch", "may", "--template", TEMPLATE, "--values", listed, "--url", url, "--json"
            ) as sending,
        ):  # fmt: skip
            await early.out.until('"snapshot"')
            await late.out.until('"snapshot"')
            assert "500 of 2,000" in await sending.err.next()
            broker.process.kill()
            await broker.wait()
            async with serving("--data-dir", str(data), "--port", port) as second:
                assert await sending.wait() == 0
                progress = json.loads(await sending.out.next())
                assert progress["sent"] + progress["repeated"] == progress["users"] == USERS
                assert progress["pending"] + progress["acked"] == USERS
                await sending.err.until("link lost; trying again")
                await sending.err.until("2,000 of 2,000")

                again = await roomcast(
                    "direct", "--batch", "may", "--template", TEMPLATE, "--values", listed, "--url", url, "--json"
                )  # fmt: skip
                assert again.status == 0
                assert (json.loads(again.out)["sent"], json.loads(again.out)["repeated"]) == (0, USERS)

                for tail in (early, late):
                    if '"direct"' not in tail.out.text:
                        await tail.out.until('"direct"')
                # Both have acknowledged: one acknowledgement a second.
                with trio.fail_after(60):
                    while True:
                        state = json.loads((await roomcast("direct", "--batch", "may", "--url", url, "--json")).out)
                        if state["acked"] == 2:
                            break
                for number, tail in ((3, early), (1999, late)):
                    tail.signal(signal.SIGINT)
                    (one,) = await shown(tail)
                    assert one["payload"] == [f"您的优惠码 C-{number:04}"]
                second.signal(signal.SIGTERM)
                assert await second.wait() == 0
    found = stored(data)
    assert len(found) == USERS
    for number in range(USERS):
        state = DirectState.ACKED if number in (3, 1999) else DirectState.PENDING
        assert found[f"user-{number}"] == [(f"C-{number:04}", state)]


async def test_what_was_cancelled_stays_cancelled_over_a_kill(tmp_path: Path) -> None:
    data, listed = tmp_path / "data", codes(tmp_path / "codes.csv", 50)
    options = ("--data-dir", str(data), "--set", "api.listen=127.0.0.1:0")
    async with serving(*options) as broker:
        send = ("direct", "--batch", "may", "--template", TEMPLATE, "--values", listed, "--url", broker.url)
        assert (await roomcast(*send)).status == 0
        cancelled = await roomcast("call", "directs.cancel", "batch=may", "--url", broker.announced["api"][0])
        assert cancelled.status == 0, cancelled.err
        assert json.loads(cancelled.out) == {"cancelled": 50, "more": False}
        broker.process.kill()
        await broker.wait()
    async with serving(*options) as broker:
        followed = await roomcast("direct", "--batch", "may", "--url", broker.url, "--follow")
        assert followed.out == "may: 0 pending, 0 acknowledged, 0 expired, 50 cancelled\n"
        assert followed.status == 1
        broker.signal(signal.SIGTERM)
        assert await broker.wait() == 0
    assert {state for each in stored(data).values() for _, state in each} == {DirectState.CANCELLED}
    assert (await roomcast("ledger", "verify", "--data-dir", str(data))).status == 0


async def test_follow_ends_when_everybody_has_acknowledged(tmp_path: Path) -> None:
    listed = codes(tmp_path / "codes.csv", 3)
    send = ("direct", "--batch", "may", "--template", TEMPLATE, "--values", listed)
    async with serving("--data-dir", str(tmp_path / "data")) as broker, trio.open_nursery() as nursery:

        async def user(name: str) -> None:
            async with open_client(broker.url, f"dev:{name}") as client:
                async for event in client.events():
                    if isinstance(event, Direct):
                        got[name] = (*got.get(name, ()), event.payload)

        got: dict[str, tuple[object, ...]] = {}
        for number in range(3):
            nursery.start_soon(user, f"user-{number}")
        followed = await roomcast(*send, "--url", broker.url, "--follow")
        assert (followed.status, followed.out) == (0, "may: 3 sent, 0 before; 0 pending, 3 acknowledged, 0 expired\n")
        assert got == {f"user-{number}": ((f"您的优惠码 C-{number:04}",),) for number in range(3)}

        more = codes(tmp_path / "more.csv", 4)
        gone = await roomcast(
            "direct", "--batch", "june", "--template", TEMPLATE, "--values", more, "--expires", "1s", "--follow",
            "--url", broker.url,
        )  # fmt: skip
        assert gone.status == 1
        assert gone.out == "june: 4 sent, 0 before; 0 pending, 3 acknowledged, 1 expired\n"
        nursery.cancel_scope.cancel()


async def test_who_may_not_and_where_it_cannot_be_promised(tmp_path: Path) -> None:
    listed = codes(tmp_path / "codes.csv", 3)
    send = ("direct", "--batch", "may", "--template", TEMPLATE, "--values", listed)
    async with serving() as broker:
        refused = await roomcast(*send, "--url", broker.url)
        assert refused.status == 1
        assert "has no ledger (--ephemeral)" in refused.err
        refused = await roomcast(*send, "--url", broker.url, "--token", "dev:ann")
        assert refused.status == 1
        assert "does not have the role app" in refused.err
