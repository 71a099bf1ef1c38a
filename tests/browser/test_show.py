"""A host runs a show from the desk, and two viewers see each part of it on their pages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.live_room import Viewers, line, say
from tests.support.pages import PageBroker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Show:
    """A room with its desk and two viewers."""

    def __init__(self, broker: PageBroker, viewers: Viewers, room: str) -> None:
        self.broker = broker
        self.room = room
        broker.call("rooms.open", room=room, title=f"Show {room}")
        for number, title in enumerate(("Celadon mug", "Ink bowl"), 1):
            broker.call(
                "products.put", room=room, id=f"p-{number}", version=1, title=title, price_cents=1000 * number,
                position=number, stock=40,
            )  # fmt: skip
        self.desk = viewers.open_desk(broker, room)
        self.ann, self.bob = (viewers.open(broker, room, user) for user in ("ann", "bob"))
        self.both = (self.ann, self.bob)

    def launch(self, tile: str, **fields: str) -> None:
        """Start something by its tile."""
        self.desk.get_by_role("button", name=tile, exact=True).click()
        sheet = self.desk.get_by_role("dialog")
        for name, value in fields.items():
            sheet.locator(f"[name={name}]").fill(value)
        sheet.get_by_role("button", name="Start").click()
        wait_until(lambda: not sheet.is_visible() or sheet.get_by_role("alert").is_visible())
        assert not sheet.is_visible(), sheet.get_by_role("alert").inner_text()

    def running(self, kind: str) -> Any:
        """Return the desk's row of the activity of a kind."""
        return self.desk.locator(f".running li[data-kind={kind}]")

    def countdowns(self) -> list[str]:
        """Return the ids of the countdowns that run."""
        items = self.broker.call("activities.list", room=self.room)["items"]
        return [item["id"] for item in items if item["kind"] == "countdowns"]

    def stop(self, kind: str) -> None:
        """Stop an activity: the button asks once."""
        row = self.running(kind)
        row.get_by_role("button", name="Stop").click()
        row.locator(".ask").get_by_role("button", name="Stop").click()


def test_a_host_speaks_and_answers(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "phases")
    desk, ann, bob = show.desk, show.ann, show.bob
    show.launch("Announce", text="Welcome all")
    show.launch("Pin", text="Free shipping")
    for page in show.both:
        line(page, "Welcome all").wait_for()
        page.locator("#pinned", has_text="Free shipping").wait_for()
    desk.locator(".toast", has_text="Pin: started").get_by_role("button", name="Undo").click()
    for page in show.both:
        page.locator("#pinned").wait_for(state="hidden")

    # What they say is counted at the desk, and an answered question can be pinned.
    for page, text in ((ann, "does it leak?"), (bob, "Does it leak ?")):
        say(page, text)
        line(page, text).locator(".fate").first.wait_for()
    asked = desk.locator(".asks li", has_text="leak")
    asked.get_by_text("\u00d72").wait_for()
    asked.get_by_role("button", name="Answered").click()
    asked.get_by_role("button", name="Pin the answer").click()
    sheet = desk.get_by_role("dialog")
    assert "leak" in sheet.locator("[name=text]").input_value()
    sheet.locator("[name=text]").fill("No, it does not leak")
    sheet.get_by_role("button", name="Start").click()
    bob.locator("#pinned", has_text="No, it does not leak").wait_for()
    ann.locator("#like").click()
    desk.locator(".figure", has_text="Online").locator("dd", has_text="2").wait_for()


def test_a_host_sets_modes_pauses_and_ends(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "modes")
    desk, ann, bob = show.desk, show.ann, show.bob
    # Modes: each says why to who speaks.
    desk.get_by_label("Mute all").check()
    desk.locator(".toast", has_text="Mute all").wait_for()
    say(ann, "hello")
    line(ann, "hello").locator(".fate.bad").or_(ann.locator("#notice:not([hidden])")).first.wait_for()
    desk.get_by_label("Mute all").uncheck()
    wait_until(lambda: broker.call("moderation.get_modes", room=show.room)["mute_all"] is False)
    desk.get_by_label("No links").check()
    wait_until(lambda: broker.call("moderation.get_modes", room=show.room)["links"] is False)
    say(bob, "look at https://evil.example/x")
    line(bob, "evil.example").locator(".fate", has_text="no links here").wait_for()
    assert line(ann, "evil.example").count() == 0
    desk.get_by_label("Review first").check()
    wait_until(lambda: broker.call("rooms.get", room=show.room)["rules"]["pre_review"])
    say(bob, "is this held")
    line(bob, "is this held").locator(".fate", has_text="held for review").wait_for()
    desk.get_by_label("Review first").uncheck()
    desk.get_by_label("Fans only").check()
    wait_until(lambda: broker.call("moderation.get_modes", room=show.room)["followers_s"] == 0)
    say(ann, "a stranger here")
    line(ann, "a stranger here").locator(".fate", has_text="followers only").wait_for()
    desk.get_by_label("Fans only").uncheck()

    # Pause, back, and the end, which takes a second.
    desk.get_by_role("button", name="Pause").click()
    for page in show.both:
        page.get_by_text("The host is away for a moment").first.wait_for()
    desk.get_by_role("button", name="Resume").click()
    for page in show.both:
        page.locator("#veil").wait_for(state="hidden")
    desk.locator("#end").hover()
    desk.mouse.down()
    for page in show.both:
        page.get_by_text("The show has ended").first.wait_for()
    desk.mouse.up()
    desk.get_by_role("button", name="Go live").click()
    desk.get_by_role("dialog").locator("input").fill("Second evening")
    desk.get_by_role("dialog").get_by_role("button", name="Go live").click()
    wait_until(lambda: broker.call("rooms.get", room=show.room)["phase"] == "live")
    for page in show.both:
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("heading", name="Second evening").wait_for()
        page.locator("#veil").wait_for(state="hidden")


def test_a_host_sells(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "shop")
    desk, ann, bob = show.desk, show.ann, show.bob
    desk.get_by_role("button", name="Explain next").click()
    for page in show.both:
        page.locator(".act.sale", has_text="Celadon mug").get_by_text("On now").wait_for()
    desk.get_by_role("button", name="Add", exact=True).click()
    sheet = desk.get_by_role("dialog")
    sheet.get_by_label("Title").fill("Salt dish")
    sheet.get_by_role("button", name="Save").click()
    bob.get_by_role("tab", name="Products").click()
    bob.locator("#goods", has_text="Salt dish").wait_for()
    bob.get_by_role("tab", name="Chat").click()

    show.launch("Flash sale", price="19.9", stock="1", soon_s="0")
    ann.locator(".buy", has_text="Claim").click()
    ann.locator(".sale .result", has_text="Yours: confirm within").wait_for()
    bob.locator(".sale .stock", has_text="0 of 1 left").wait_for()
    show.running("sales").get_by_text("1 reserved").wait_for()
    [sale] = [each for each in broker.call("activities.list", room=show.room)["items"] if each["kind"] == "sales"]
    broker.call("sales.confirm", room=show.room, id=sale["id"], number=1, order="show-1")  # the shop has been paid
    ann.locator(".sale .result", has_text="Bought").wait_for()
    show.running("sales").get_by_text("1 / 1 confirmed").wait_for()
    row = show.running("sales")
    row.get_by_role("button", name="Stop").click()
    row.get_by_text("1 confirmed stay, 0 units return").wait_for()
    row.locator(".ask").get_by_role("button", name="Stop").click()
    bob.locator(".act.more-sale", has_text="Celadon mug").get_by_text("Closed").wait_for()
    desk.get_by_role("button", name="Explain Ink bowl").click()
    bob.locator(".act.sale", has_text="Ink bowl").get_by_text("On now").wait_for()
    ann.get_by_role("tab", name="Mine").click()
    ann.locator("#mine", has_text="Celadon mug").wait_for()


def test_a_host_gives_money_away(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "money")
    desk, ann = show.desk, show.ann
    # This desk is the platform's own, so the tiles of money are there, with what they cost.
    desk.get_by_role("button", name="Packet", exact=True).click()
    desk.get_by_role("dialog").locator("[name=total]").fill("2")
    desk.get_by_role("dialog").get_by_text("costs \u00a52").wait_for()
    desk.keyboard.press("Escape")
    show.launch("Packet", total="2", shares="2", soon_s="0")
    for page in show.both:
        page.locator(".act.packet").get_by_role("button", name="Open").click()
    show.running("packets").get_by_text("2 / 2 taken").wait_for()
    for page in show.both:
        page.locator(".act.packet", has_text="You got \u00a5").wait_for()
    show.launch("Rain", total="8", drops="2", shares="2", seconds="5", soon_s="3")
    for page in show.both:
        page.locator(".act.rain .drop").first.click()
        page.locator(".act.rain", has_text="You got").wait_for()
    show.launch("Coupons", title="Ten off", prefix="NEW", codes="2")
    for page in show.both:
        page.locator(".act.coupon").get_by_role("button", name="Take").click()
        page.locator(".act.coupon", has_text="Code NEW").wait_for()
    ann.get_by_role("tab", name="Mine").click()
    for text in ("\u00a5", "Ten off", "NEW"):
        ann.locator("#mine", has_text=text).wait_for()


def test_a_host_plays_with_the_viewers(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "games")
    ann, bob = show.both
    show.launch("Lucky bag", prize="mug", winners="1", minutes="60")
    for page in show.both:
        page.locator(".act.lottery").get_by_role("button", name="Enter").click()
        page.locator(".act.lottery").get_by_text("You are in").wait_for()
    show.running("lotteries").get_by_text("2 in").wait_for()
    show.stop("lotteries")
    for page in show.both:
        page.locator(".act.lottery", has_text="Void").wait_for()

    show.launch("Poll", title="Which glaze?", options="celadon | ink")
    for page in show.both:
        page.locator(".act.poll").get_by_role("button", name="ink").click()
        page.locator(".act.poll button", has_text="ink").get_by_text("100%").wait_for()
    show.running("polls").get_by_text("2 votes").wait_for()
    show.stop("polls")
    ann.locator(".act.poll", has_text="closed").wait_for()

    show.launch("Quiz", title="One and one?", options="2 | 3", right="1", seconds="600")
    for page, answer in ((ann, "2"), (bob, "3")):
        quiz = page.locator(".act.poll", has_text="One and one?")
        quiz.get_by_role("button", name=answer).click()
        quiz.locator("button[aria-pressed=true]", has_text=answer).wait_for()
    row = show.running("quizzes")
    row.get_by_role("button", name="Close").click()
    row.get_by_role("button", name="Reveal").click()
    for page in show.both:
        page.locator(".act.poll button.right", has_text="2").wait_for()
    bob.locator(".act.poll button.wrong", has_text="3").wait_for()
    row.get_by_role("button", name="Finish").click()
    ann.locator(".act.poll", has_text="1 made it").wait_for()


def test_a_host_counts_down_and_invites_to_the_mic(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "mic")
    desk, ann, bob = show.desk, show.ann, show.bob
    show.launch("Countdown", label="Doors", minutes="5")
    for page in show.both:
        page.locator(".act.countdown", has_text="Doors").get_by_text("4:").first.wait_for()
    show.running("countdowns").get_by_role("button", name="+30 s").click()
    ann.locator(".act.countdown", has_text="5:").wait_for()
    assert len(show.countdowns()) == 1
    show.stop("countdowns")
    for page in show.both:
        page.locator(".act.countdown").wait_for(state="detached")

    # The mic: ann asks, is invited, speaks, and is asked to leave.
    show.launch("Mic seats", seats="2")
    seats = ann.locator(".act.seats")
    seats.get_by_role("button", name="Ask").click()
    seats.get_by_text("Waiting, number 1").wait_for()
    desk.get_by_role("button", name="Invite ann").click()
    seats.get_by_role("button", name="Accept").click()
    seats.get_by_role("button", name="Go on").click()
    bob.locator(".act.seats", has_text="host 1 / 2").wait_for()
    desk.get_by_text("on the mic").wait_for()
    desk.get_by_role("button", name="Remove from the mic ann").click()
    bob.locator(".act.seats", has_text="host 0 / 2").wait_for()
    seats.get_by_role("button", name="Ask").wait_for()


def test_a_host_competes_with_another_room(broker: PageBroker, viewers: Viewers) -> None:
    show = Show(broker, viewers, "duel")
    desk, ann = show.desk, show.ann
    # The other room accepts from its own desk.
    broker.call("rooms.open", room="rival", title="Rival")
    rival = viewers.open_desk(broker, "rival")
    show.launch("PK", other_room="rival", minutes="5")
    rival.locator(".running li[data-kind=pk]").get_by_role("button", name="Accept").click()
    for page in show.both:
        page.locator(".act.pk", has_text="PK with rival").wait_for()
    ann.locator(".act.pk", has_text="0 : 0 \u00b7 04:").wait_for()  # it begins three seconds after it was accepted
    gift = {"user_id": "zoe", "name": "Zoe", "gift_id": "rose", "price_cents": 100, "order_id": "show-2", "count": 3}
    broker.call("messages.publish", room=show.room, type=5, payload=gift)
    desk.locator(".figure", has_text="Gifts").locator("dd", has_text="3").wait_for()
    for page in show.both:
        page.locator(".act.pk", has_text="300 : 0").wait_for()
    show.stop("pk")
    for page in show.both:
        page.locator(".act.pk", has_text="lost").wait_for()
