"""Parts of a session that few links use: a link has its own from the first use on, before that all share `NO_PARTS`."""

from __future__ import annotations

from typing import Protocol

from broker.auth.grants import Grant
from broker.sessions.calls import LinkCalls
from broker.sessions.posting import RoomSenders
from broker.sessions.reviews import ReviewedPosts
from broker.sessions.waiting import WaitingPosts
from protocol.messages import FirstResult

__all__ = ["NO_PARTS", "LinkParts"]


class Relays(Protocol):
    """What a link needs of its relays."""

    def regrant(self, grant: Grant) -> None:
        """Tell the owners of rooms that the link has a newer token."""

    def close(self) -> None:
        """End all relays: the link has ended."""


class LinkParts:
    """What a link beyond a viewer that reads and writes danmaku keeps."""

    __slots__ = (
        "calls",
        "error_tat",
        "firsts",
        "is_app",
        "is_held",
        "missed_chat",
        "pending_joins",
        "relays",
        "reviews",
        "senders",
        "waiting_posts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls: LinkCalls | None = None
        """Calls of operations; None before the first."""
        self.error_tat = 0.0
        """Of the limit of ERROR replies."""
        self.firsts: dict[int, list[FirstResult]] | None = None
        """By room: first uses of keys, for the repetitions among the answers that wait; None: there are none."""
        self.is_app = False
        """Whether this is a link of the platform's backend, which has limits of its own."""
        self.is_held = False
        """Whether no byte is handled now: the platform is asked who this is, or a CALL waits for its turn."""
        self.missed_chat = 0
        """Danmaku that this viewer missed."""
        self.pending_joins: tuple[str, ...] = ()
        """Rooms whose JOIN or RESUME waits for the ledger or the platform."""
        self.reviews: ReviewedPosts | None = None
        """Posts that wait for the platform's answer; None before the first of them."""
        self.relays: Relays | None = None
        """Its way to the owners of rooms of other nodes; None before the first."""
        self.senders: RoomSenders | None = None
        """Rooms that this link of the app posts to without joining them."""
        self.waiting_posts: WaitingPosts | None = None
        """Posts that the ledger has not answered; None before the first of them."""

    @property
    def are_unused(self) -> bool:
        """Whether nothing here differs from what a new link has."""
        return all(getattr(self, name) == getattr(NO_PARTS, name) for name in self.__slots__)


NO_PARTS = LinkParts()
"""What a link has that has not used any of them; never written."""
