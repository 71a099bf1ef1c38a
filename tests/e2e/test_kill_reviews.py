"""SIGKILL while messages are held, claimed and decided: each is shown at most once, after its approval, in order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from broker.ledger import ACTIVITY_FACTS, Reader, database_path
from broker.ledger.replay import event_of
from protocol.activities.reviews import ReviewState
from protocol.clients import open_client
from protocol.clients.client import Client
from protocol.clients.events import CallLost, CallRefused
from protocol.clients.room import JoinedRoom
from protocol.codes import Outcome
from protocol.frames import unpack_body
from protocol.operations.reviews import ClaimReview, DecideReview, ListReview, Verdict
from tests.support.processes import Eager, free_port, read_all, restarting

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NOTE = 140
KILLS = 3
CONFIG = """
[room]
pre_review = true
user_chat_per_s = 1000.0
user_chat_burst = 1000
duplicate_window_s = 0

[[types]]
id = 140
name = "note"
lane = "commerce"
roles = ["viewer"]
rate_per_s = 1000.0
burst = 1000
"""


class Show:
    """Users who post until told to stop, and a reviewer who decides by the number in each text."""

    def __init__(self) -> None:
        self.held: list[str] = []
        """Texts whose authors have heard that they are held, or what became of them."""
        self.posted = 0
        self.decided = 0
        self.is_over = False
        self.active = 0

    async def post(self, room: JoinedRoom, user: str) -> None:
        self.active += 1
        while not self.is_over:
            self.posted += 1
            text = f"{self.posted} of {user}"
            while True:
                result = await room.post(NOTE, text, client_msg_id=text, retry=True, timeout_s=60)
                if result.outcome in (Outcome.HELD, Outcome.ACCEPTED, Outcome.REJECTED):
                    break
                await trio.sleep(result.retry_after_ms / 1000 or 0.01)
            self.held.append(text)
            await trio.sleep(0.02)
        self.active -= 1

    async def review(self, client: Client) -> None:
        """Claim and decide, the newest first, until all is decided after the last post.

        A claim without items is not the end: what an earlier claim has, whose answer or decisions were lost, comes back
        when that claim ends.
        """
        while True:
            is_last = self.is_over and not self.active
            try:
                claim = await client.call(ClaimReview("show", (), 2_000, 10))
                for item in reversed(claim.items):
                    verdict = Verdict.REJECT if int(str(item.payload).split()[0]) % 3 == 0 else Verdict.APPROVE
                    decided = await client.call(DecideReview("show", (item.id,), verdict, fence=claim.fence))
                    self.decided += decided.decided
                if is_last and not claim.items and await is_decided(client):
                    return
            except (CallLost, CallRefused):
                continue
            finally:
                await trio.sleep(0.01)


async def test_what_is_held_is_shown_once_after_approval_and_in_order_over_kill_9(tmp_path: Path) -> None:
    show, port, config = Show(), str(free_port()), tmp_path / "roomcast.toml"
    config.write_text(CONFIG)
    data = tmp_path / "data"
    options = ["--config", str(config), "--data-dir", str(data), "--port", port, "--log-level", "warning"]
    address = f"roomcast://127.0.0.1:{port}"
    with trio.fail_after(90):
        async with (
            restarting(*options) as broker,
            open_client(address, "dev:ann", rng=Eager(1)) as ann,
            open_client(address, "dev:bob", rng=Eager(2)) as bob,
            open_client(address, "dev:mod:moderator", rng=Eager(3)) as mod,
            trio.open_nursery() as nursery,
        ):
            await mod.join("show")
            for user, client in (("ann", ann), ("bob", bob)):
                room = await client.join("show")
                nursery.start_soon(read_all, room)
                nursery.start_soon(show.post, room, user)
            async with trio.open_nursery() as reviewing:
                reviewing.start_soon(show.review, mod)
                for kill in range(1, KILLS + 1):
                    while show.decided < 30 * kill:  # noqa: ASYNC110 - only the broker knows when
                        await trio.sleep(0.01)
                    await trio.sleep(random.Random(kill).uniform(0, 0.05))
                    await broker.restart()
                show.is_over = True
            await trio.sleep(1.5)  # twenty a second are released
            await wait_for_release(mod)
            nursery.cancel_scope.cancel()
    check(data, show.held)


async def is_decided(client: Client) -> bool:
    """Return whether no message waits for a reviewer, claimed or not."""
    return all(each.state is ReviewState.APPROVED for each in (await client.call(ListReview("show"))).items)


async def wait_for_release(client: Client) -> None:
    """Wait until everything that is approved is shown."""
    while (await client.call(ListReview("show"))).items:  # noqa: ASYNC110 - only the broker knows when
        await trio.sleep(0.1)


def check(directory: Path, acknowledged: list[str]) -> None:
    held: dict[int, str] = {}
    facts: dict[str, list[int]] = {"approved": [], "rejected": [], "released": []}
    shown: list[str] = []
    reader = Reader(database_path(directory))
    try:
        reader.verify_all()
        for entry, *_ in reader.entries():
            event = event_of(entry)
            if event is not None and event.type == NOTE:
                shown.append(event.payload)
            elif entry.kind == ACTIVITY_FACTS and entry.lane is None:
                for name, data in unpack_body(entry.body)[2]:
                    if name == "held":
                        held[data[0]] = data[1]["payload"]
                    elif name in facts:
                        facts[name].append(data[0])
    finally:
        reader.close()
    assert max(Counter(held.values()).values()) == 1, "a post is held twice"
    assert set(acknowledged) <= set(held.values()), "what was acknowledged is lost"
    assert facts["released"] == sorted(facts["approved"]), "shown out of order, twice, or never"
    assert not set(facts["approved"]) & set(facts["rejected"])
    assert sorted(facts["approved"] + facts["rejected"]) == sorted(held)
    assert shown == [held[id] for id in facts["released"]]
    assert len(shown) >= 30
