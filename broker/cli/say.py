"""``roomcast say``: post messages to a room and print the result of each.

In development mode no token is needed: the identity is the login name, with the role that the type of message needs.
With a token the identity is the token's.

Exit status 0 only if every message was shown, merged, counted or published, so that scripts can rely on it.
"""

from __future__ import annotations

import itertools
import json
import secrets
from functools import partial
from typing import Any, NamedTuple

import click
import trio

from broker.cli.client import client_options, connected_client, development_token, join_room, run_command
from protocol.clients.events import ClientClosed, PostResult
from protocol.clients.room import JoinedRoom
from protocol.codes import CUSTOM_TYPE_MAX, CUSTOM_TYPE_MIN, MESSAGE_TYPES, ErrorCode, MessageType, Outcome
from protocol.errors import LocalProtocolError
from protocol.payloads import (
    ORDER_TYPES,
    AnnouncementPayload,
    DanmakuPayload,
    EmotePayload,
    GiftPayload,
    HighlightPayload,
    LikePayload,
)

__all__ = ["PostReport", "PostTemplate", "message_type", "report_of", "say"]

MAX_IN_FLIGHT = 256
"""Posts without a result at a time; a faster rate waits for the oldest."""
GIFT_CENTS = 100
"""Price of one gift of this command."""
HIGHLIGHT_CENTS = 1000
"""Price of one paid message of this command."""

_TYPES = {
    kind.name.lower(): kind
    for kind in MessageType
    if MESSAGE_TYPES[kind].post_roles and kind is not MessageType.ROOM_PHASE
}
"""Types that this command posts; pausing or ending a room is not among them."""
_ROLES = {MessageType.ANNOUNCEMENT: "host", MessageType.GIFT: "app", MessageType.HIGHLIGHT: "app"}


def message_type(text: str) -> int:
    """Return the number of a message type given by name or number; click.BadParameter for anything else."""
    if text in _TYPES:
        return int(_TYPES[text])
    if text.isdecimal() and (int(text) in _TYPES.values() or CUSTOM_TYPE_MIN <= int(text) <= CUSTOM_TYPE_MAX):
        return int(text)
    raise click.BadParameter(
        f"{text!r} is neither one of {', '.join(_TYPES)}, nor the number of one, nor {CUSTOM_TYPE_MIN} to "
        f"{CUSTOM_TYPE_MAX}"
    )


class PostTemplate(NamedTuple):
    """Type and text of the posts; ``{n}`` in ``text`` and ``order_id`` is the number of the message, from 1 on."""

    type: int
    text: str
    order_id: str = "{n}"
    """Idempotency key of gifts and paid messages."""

    def payload(self, number: int, user: str) -> Any:
        """Return the payload of message ``number``.

        Any: the payload of a custom type is JSON if the text is valid JSON, else text.
        """
        text = self.text.replace("{n}", str(number))
        if self.type == MessageType.DANMAKU:
            return DanmakuPayload(text)
        if self.type == MessageType.EMOTE:
            return EmotePayload(text)
        if self.type == MessageType.ANNOUNCEMENT:
            return AnnouncementPayload(text)
        if self.type == MessageType.LIKE:
            return LikePayload(int(text or 1))
        if self.type == MessageType.GIFT:
            return GiftPayload(self.order_id.replace("{n}", str(number)), user, user, text, 1, GIFT_CENTS)
        if self.type == MessageType.HIGHLIGHT:
            return HighlightPayload(self.order_id.replace("{n}", str(number)), user, user, text, HIGHLIGHT_CENTS)
        try:
            return json.loads(text)
        except ValueError:
            return text


class PostReport(NamedTuple):
    """Result of one post as a line of text; ``is_good``: it was shown, merged, counted or published."""

    is_good: bool
    text: str


_REASONS = {
    ErrorCode.DUPLICATE_TEXT: "you posted the same text a moment ago",
    ErrorCode.NOT_ALLOWED: "your role may not post this",
    ErrorCode.MUTED: "a moderator or the platform has muted you",
    ErrorCode.ALL_MUTED: "the room is for its staff alone now",
    ErrorCode.VIP_ONLY: "the room is for VIPs alone now",
    ErrorCode.FOLLOWERS_ONLY: "the room is for those who have followed its host for a while",
    ErrorCode.EMOTE_ONLY: "the room takes no texts now",
    ErrorCode.LINKS_OFF: "the room takes no links",
    ErrorCode.NOT_UNIQUE: "the same text was posted here within ten minutes",
    ErrorCode.SLOW_MODE: "the room is in slow mode: wait a little",
    ErrorCode.UNKNOWN_TYPE: "this broker does not know the type",
    ErrorCode.ROOM_PAUSED: "the room is paused",
    ErrorCode.ROOM_ENDED: "the room has ended",
    ErrorCode.NOT_JOINED: "this client is no longer in the room",
    ErrorCode.PAYLOAD_TOO_LARGE: "it is too large",
    ErrorCode.OVERLOADED: "the broker is overloaded",
}


def report_of(result: PostResult, type: int) -> PostReport:
    """Describe the result of a post of ``type``."""
    match result.outcome:
        case Outcome.ACCEPTED:
            if type == MessageType.LIKE:
                return PostReport(True, f"counted: {result.counted} like{'s' if result.counted != 1 else ''}")
            if result.offset:
                return PostReport(True, f"published as event {result.offset} of the room")
            return PostReport(True, "shown")
        case Outcome.MASKED:
            return PostReport(True, "shown, with another text: words in it are replaced")
        case Outcome.MERGED:
            return PostReport(True, "merged: counted into an equal one that is shown")
        case Outcome.SAMPLED_OUT:
            return PostReport(False, "sampled out: more messages than a viewer can read; others were shown")
        case Outcome.LIMITED:
            return PostReport(False, f"limited: too fast, try again in {result.retry_after_ms / 1000:.1f} s")
        case Outcome.UNAVAILABLE:
            wait = f"{result.retry_after_ms / 1000:.1f} s"
            why = "the broker's disk does not take it now (/healthz says why)"
            if type == MessageType.DANMAKU:  # is never on the disk
                why = "the platform, which checks it, does not answer now"
            return PostReport(False, f"not kept: {why}; again in {wait}")
        case Outcome.HELD:
            return PostReport(False, "held: it waits for a moderator")
        case Outcome.EXPIRED:
            return PostReport(False, "expired: the broker was too busy to show it in time")
        case Outcome.REJECTED:
            reason = next((text for code, text in _REASONS.items() if code == result.error_code), "")
            reason = reason or " ".join(filter(None, (result.field, result.message)))
            wait = f"; again in {result.retry_after_ms / 1000:,.0f} s" if result.retry_after_ms else ""
            return PostReport(False, f"rejected: {reason or 'for good'} ({result.error}){wait}")
        case None:
            if not result.sent:
                return PostReport(False, "not sent: the link was lost")
            return PostReport(False, "unknown: the link was lost before the answer; it may have arrived")


@click.command("say")
@click.argument("room")
@click.argument("text", default="")
@client_options
@click.option("--as", "user", metavar="USER[:ROLE]", help="Identity in development mode; the login name if not given.")
@click.option(
    "--type", "kind", type=message_type, default="danmaku", metavar="TYPE",
    help="danmaku (default), emote, like, announcement, gift, highlight, or a number, also of a custom type.",
)  # fmt: skip
@click.option(
    "--order-id", metavar="ID",
    help="Idempotency key of a gift or highlight, random if not given: the same id again publishes nothing new.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="How many messages.")
@click.option(
    "--rate", type=click.FloatRange(0.01, 10_000), default=1.0, show_default=True, help="Messages a second."
)  # fmt: skip
def say(
    room: str,
    text: str,
    url: str,
    token: str | None,
    ca: str | None,
    user: str | None,
    kind: int,
    order_id: str | None,
    count: int,
    rate: float,
) -> None:
    """Post TEXT to ROOM and print the result; exit status 1 if it is not shown.

    TEXT is the danmaku, the announcement, the id of the emote or gift, the number of likes, or the JSON of a
    custom type. {n} in it becomes the number of the message.
    """
    if not text and kind != MessageType.LIKE:
        raise click.UsageError("TEXT is missing")
    if kind == MessageType.LIKE and text and not text.replace("{n}", "1").isdecimal():
        raise click.UsageError("TEXT of a like is the number of likes")
    if order_id is not None and kind not in ORDER_TYPES:
        raise click.UsageError("--order-id is for --type gift and --type highlight")
    if order_id is not None and count > 1 and "{n}" not in order_id:
        raise click.UsageError("with --count, --order-id contains {n}: each is an order of its own")
    if token is not None and user is not None:
        raise click.UsageError("--as is for development; a token contains the identity")
    if token is None:
        token = development_token(user, _ROLES.get(MessageType(kind), "viewer") if kind in _TYPES.values() else "app")
    template = PostTemplate(kind, text, order_id or f"{secrets.token_hex(6)}-{{n}}")
    reports = run_command(partial(_say, room, template, url, token, ca, count, rate))
    if not all(report.is_good for report in reports):
        raise SystemExit(1)


async def _say(
    room_name: str, template: PostTemplate, url: str, token: str, ca: str | None, count: int, rate: float
) -> list[PostReport]:
    reports: list[PostReport] = []
    async with connected_client(url, token, ca) as (client, events):
        events.stop()  # direct messages are left to `roomcast tail`
        user = client.user.user_id if client.user is not None else ""
        room = await join_room(client, room_name)
        slots = trio.CapacityLimiter(MAX_IN_FLIGHT)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in itertools.count(1):
                payload = template.payload(number, user)
                await slots.acquire_on_behalf_of(number)
                nursery.start_soon(_post, room, template.type, payload, number, count, reports, slots)
                if number == count:
                    break
                await trio.sleep_until(begun + number / rate)
        # Closing the client leaves the room; every post has its result by now.
    if count > 1:
        good = sum(report.is_good for report in reports)
        click.echo(f"{good} of {count} shown, merged or counted")
    return reports


async def _post(
    room: JoinedRoom,
    type: int,
    payload: Any,
    number: int,
    count: int,
    reports: list[PostReport],
    slots: trio.CapacityLimiter,
) -> None:
    # Any: the payload is what `PostTemplate.payload` made.
    try:
        report = report_of(await room.post(type, payload), type)
    except LocalProtocolError as error:
        report = PostReport(False, f"not sent: {str(error).rpartition('payload.')[2]}")
    except ClientClosed as closed:
        report = PostReport(False, f"not sent: {closed.reason}")
    finally:
        slots.release_on_behalf_of(number)
    reports.append(report)
    click.echo(f"{number}: {report.text}" if count > 1 else report.text)
