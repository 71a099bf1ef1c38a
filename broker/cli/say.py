"""``roomcast say``: post to a room and say what became of it, in words.

In development nobody has to bring anything: the identity is made of the login name, with the role that the type of
message demands. With a token it is the token's.

Exit code 0 only if everything was shown (or merged, summed, published): a script can rely on it.
"""

from __future__ import annotations

import itertools
import json
import secrets
from functools import partial
from typing import Any, NamedTuple

import click
import trio

from broker.cli.client import enter, run_visit, visit, visit_options, who_am_i
from protocol.clients.events import ClientClosed, PostResult
from protocol.clients.room import JoinedRoom
from protocol.codes import CUSTOM_TYPE_MAX, CUSTOM_TYPE_MIN, MESSAGE_TYPES, ErrorCode, MessageType, Outcome
from protocol.errors import LocalProtocolError
from protocol.payloads import AnnouncementPayload, DanmakuPayload, EmotePayload, GiftPayload, LikePayload

__all__ = ["Fate", "Saying", "fate_of", "message_type", "say"]

MAX_IN_FLIGHT = 256
"""Posts that wait for their fate at a time; a faster rate waits for the oldest."""
GIFT_CENTS = 100
"""Price of one gift that is said by hand."""

_TYPES = {
    kind.name.lower(): kind
    for kind in MessageType
    if MESSAGE_TYPES[kind].post_roles and kind is not MessageType.ROOM_PHASE
}
"""What one says; to pause or end a room is not among it."""
_ROLES = {MessageType.ANNOUNCEMENT: "host", MessageType.GIFT: "app"}


def message_type(text: str) -> int:
    """The number of a message type by its name or number; click's usage error for anything else."""
    if text in _TYPES:
        return int(_TYPES[text])
    if text.isdecimal() and CUSTOM_TYPE_MIN <= int(text) <= CUSTOM_TYPE_MAX:
        return int(text)
    raise click.BadParameter(
        f"{text!r} is neither one of {', '.join(_TYPES)} nor {CUSTOM_TYPE_MIN} to {CUSTOM_TYPE_MAX}"
    )


class Saying(NamedTuple):
    """What to post: ``text`` may hold ``{n}``, the number of the message, from 1 on."""

    type: int
    text: str

    def payload(self, number: int, user: str, order: str) -> Any:
        """The payload of message ``number``; ``order``: what makes a gift's order id unique.

        Any: payloads of custom types are JSON if they look like it, else text.
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
            return GiftPayload(f"{order}-{number}", user, user, text, 1, GIFT_CENTS)
        try:
            return json.loads(text)
        except ValueError:
            return text


class Fate(NamedTuple):
    """One line of what became of a post; ``is_good``: others see it, or it counts."""

    is_good: bool
    words: str


_REASONS = {
    ErrorCode.DUPLICATE_TEXT: "you have said the same a moment ago",
    ErrorCode.NOT_ALLOWED: "your role may not post this",
    ErrorCode.UNKNOWN_TYPE: "this broker knows no such type",
    ErrorCode.ROOM_PAUSED: "the room is paused",
    ErrorCode.ROOM_ENDED: "the room has ended",
    ErrorCode.NOT_JOINED: "we are not in the room any more",
    ErrorCode.PAYLOAD_TOO_LARGE: "it is too large",
    ErrorCode.OVERLOADED: "the broker has too much to do now",
}


def fate_of(result: PostResult, type: int) -> Fate:
    """Say in words what became of a post of ``type``."""
    match result.outcome:
        case Outcome.ACCEPTED:
            if type == MessageType.LIKE:
                return Fate(True, f"counted: {result.counted} like{'s' if result.counted != 1 else ''}")
            if result.offset:
                return Fate(True, f"published as event {result.offset} of the room")
            return Fate(True, "shown")
        case Outcome.MERGED:
            return Fate(True, "merged: counted into an equal one that is shown")
        case Outcome.SAMPLED_OUT:
            return Fate(False, "sampled out: the room says more than anybody can read; others were shown")
        case Outcome.LIMITED:
            return Fate(False, f"limited: too fast, try again in {result.retry_after_ms / 1000:.1f} s")
        case Outcome.HELD:
            return Fate(False, "held: it waits for a moderator")
        case Outcome.EXPIRED:
            return Fate(False, "expired: the broker was too busy to show it in time")
        case Outcome.REJECTED:
            reason = next((text for code, text in _REASONS.items() if code == result.error_code), "")
            reason = reason or " ".join(filter(None, (result.field, result.message)))
            return Fate(False, f"rejected: {reason or 'for good'} ({result.error})")
        case None:
            if not result.sent:
                return Fate(False, "not sent: the link was lost")
            return Fate(False, "unknown: the link was lost before the answer; it may have arrived")


@click.command("say")
@click.argument("room")
@click.argument("text", default="")
@visit_options
@click.option("--as", "user", metavar="USER[:ROLE]", help="Who we are, in development; the login name if not given.")
@click.option(
    "--type", "kind", type=message_type, default="danmaku", metavar="TYPE",
    help="danmaku (default), emote, like, announcement, gift, or the number of a custom type.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="How many messages.")
@click.option(
    "--rate", type=click.FloatRange(0.01, 10_000), default=1.0, show_default=True, help="Messages a second."
)  # fmt: skip
def say(
    room: str, text: str, url: str, token: str | None, user: str | None, kind: int, count: int, rate: float
) -> None:
    """Post TEXT to ROOM and print what became of it; exit code 1 if it is not shown.

    TEXT is the danmaku, the announcement, the id of the emote or gift, the number of likes, or the JSON of a
    custom type. {n} in it becomes the number of the message.
    """
    if not text and kind != MessageType.LIKE:
        raise click.UsageError("there is nothing to say: TEXT is missing")
    if kind == MessageType.LIKE and text and not text.replace("{n}", "1").isdecimal():
        raise click.UsageError("TEXT of a like is their number")
    if token is not None and user is not None:
        raise click.UsageError("--as is for development; a token says who we are")
    if token is None:
        token = who_am_i(user, _ROLES.get(MessageType(kind), "viewer") if kind in _TYPES.values() else "app")
    fates = run_visit(partial(_say, room, Saying(kind, text), url, token, count, rate))
    if not all(fate.is_good for fate in fates):
        raise SystemExit(1)


async def _say(room_name: str, saying: Saying, url: str, token: str, count: int, rate: float) -> list[Fate]:
    fates: list[Fate] = []
    order = secrets.token_hex(6)
    async with visit(url, token) as (client, events):
        events.stop()  # messages to us alone are for `tail` to show
        user = client.user.user_id if client.user is not None else ""
        room = await enter(client, room_name)
        slots = trio.CapacityLimiter(MAX_IN_FLIGHT)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in itertools.count(1):
                payload = saying.payload(number, user, order)
                await slots.acquire_on_behalf_of(number)
                nursery.start_soon(_post, room, saying.type, payload, number, count, fates, slots)
                if number == count:
                    break
                await trio.sleep_until(begun + number / rate)
        # The room is left with the client; likes and posts have their fates.
    if count > 1:
        good = sum(fate.is_good for fate in fates)
        click.echo(f"{good} of {count} shown, merged or counted")
    return fates


async def _post(
    room: JoinedRoom, type: int, payload: Any, number: int, count: int, fates: list[Fate], slots: trio.CapacityLimiter
) -> None:
    # Any: the payload is what `Saying.payload` made.
    try:
        fate = fate_of(await room.post(type, payload), type)
    except LocalProtocolError as error:
        fate = Fate(False, f"not sent: {str(error).rpartition('payload.')[2]}")
    except ClientClosed as closed:
        fate = Fate(False, f"not sent: {closed.reason}")
    finally:
        slots.release_on_behalf_of(number)
    fates.append(fate)
    click.echo(f"{number}: {fate.words}" if count > 1 else fate.words)
