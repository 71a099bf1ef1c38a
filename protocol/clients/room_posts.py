"""Posts to one room, by type; a room that is joined and one that is not have the same calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..codes import MessageType, RoomPhase
from ..payloads import (
    AnnouncementPayload,
    DanmakuPayload,
    EmotePayload,
    GiftPayload,
    HighlightPayload,
    PhasePayload,
)
from .events import PostResult
from .posts import PostSender, UnjoinedTarget

__all__ = ["POST_TIMEOUT_S", "RoomPosts", "UnjoinedRoom"]

POST_TIMEOUT_S = 30.0
"""Default timeout of a post: far longer than a tick."""


class RoomPosts(ABC):
    """Calls that post to one room; `post` is the general one."""

    __slots__ = ()

    @abstractmethod
    async def post(
        self,
        type: int,
        payload: Any,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post one message and return its result.

        ``payload``: the record of `protocol.payloads` for ``type``, any msgpack value for types 128-255. Without
        ``retry`` the end of the link gives a result whose outcome is None; with it the same ``client_msg_id``
        (generated if not given) is posted again on the next link. A post with a key (a ``client_msg_id`` or an
        ``order_id``) that the broker answers with LIMITED is posted again after the wait that the broker named, at
        most `posts.LIMITED_RETRIES` times. There is a result within ``timeout_s``.

        Raises LocalProtocolError, with nothing sent, naming the field and the rule that the message breaks, and
        ClientClosed after the client's end. When cancelled, the message may or may not have been sent.
        """

    async def post_danmaku(
        self,
        text: str,
        style: tuple[int, int, int] | None = None,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post a danmaku of 1 to 100 characters; ``style``: (mode 0-2, color 0xRRGGBB, size 0-2). See `post`."""
        payload = DanmakuPayload(text, style)
        return await self.post(
            MessageType.DANMAKU, payload, client_msg_id=client_msg_id, retry=retry, timeout_s=timeout_s
        )

    async def post_emote(self, emote_id: str, *, timeout_s: float = POST_TIMEOUT_S) -> PostResult:
        """Post an emote by its id. See `post`."""
        return await self.post(MessageType.EMOTE, EmotePayload(emote_id), timeout_s=timeout_s)

    async def post_announcement(
        self,
        text: str,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post an announcement of 1 to 500 characters (staff only). See `post`."""
        payload = AnnouncementPayload(text)
        return await self.post(
            MessageType.ANNOUNCEMENT, payload, client_msg_id=client_msg_id, retry=retry, timeout_s=timeout_s
        )

    async def post_gift(
        self,
        order_id: str,
        user_id: str,
        gift_id: str,
        *,
        price_cents: int,
        count: int = 1,
        name: str = "",
        target: str = "",
        combo: bool = True,
        retry: bool = True,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post a gift that the platform has charged (role APP only). See `post`.

        ``order_id`` is the idempotency key: a repeated order is published once and gets the first result. So ``retry``
        is on. ``user_id``, ``name``: the giver. ``price_cents``: price of one gift, of which there are ``count``.
        ``target``: user id of the receiver, "" for the host. ``combo``: whether it may be shown as part of a combo.
        """
        payload = GiftPayload(order_id, user_id, name, gift_id, count, price_cents, target, combo)
        return await self.post(MessageType.GIFT, payload, retry=retry, timeout_s=timeout_s)

    async def post_highlight(
        self,
        order_id: str,
        user_id: str,
        text: str,
        *,
        cents: int,
        name: str = "",
        retry: bool = True,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post a message that the platform has charged (role APP only), of 1 to 200 characters. See `post`.

        ``order_id`` is the idempotency key, as in `post_gift`. ``user_id``, ``name``: who has paid. ``cents``: how
        much, which decides how long the message is shown; less than the first tier of the broker is REJECTED.
        """
        payload = HighlightPayload(order_id, user_id, name, text, cents)
        return await self.post(MessageType.HIGHLIGHT, payload, retry=retry, timeout_s=timeout_s)

    async def set_phase(
        self,
        phase: RoomPhase,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Pause, continue or end the room (roles ASSISTANT, HOST and APP). See `post`."""
        payload = PhasePayload(phase)
        return await self.post(
            MessageType.ROOM_PHASE, payload, client_msg_id=client_msg_id, retry=retry, timeout_s=timeout_s
        )


class UnjoinedRoom(RoomPosts):
    """A room to post to without joining it, returned by `Client.room`; the role in the room has to be APP.

    The link is not counted and not shown in the room, and gets the results of its posts and nothing else.
    """

    __slots__ = ("_sender", "_target")

    def __init__(self, sender: PostSender, target: UnjoinedTarget) -> None:
        self._sender = sender
        self._target = target

    @property
    def name(self) -> str:
        return self._target.room_name

    async def post(
        self,
        type: int,
        payload: Any,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post one message and return its result. See `RoomPosts.post`."""
        return await self._sender.post(self._target, type, payload, client_msg_id, retry, timeout_s)
