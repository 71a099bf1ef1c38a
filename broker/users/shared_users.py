"""Users with a link at any node, as the node that decides about conversations sees them.

The other nodes report which users have links there. What is shown to a user goes to its links here, and to each node
that has reported it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.users.registry import UserRegistry, UserSession
from protocol.codes import Lane
from protocol.messages import Message

__all__ = ["SharedUsers"]

Show = Callable[[str, str, Message, Lane, bytes | None], None]
"""Shows a message to a user at another node: node, user (qualified id), message, lane, its body where it is packed."""


class SharedUsers:
    """Users of all nodes; a `LinkedUsers`. Sessions of viewers of other nodes in rooms here do not count as links."""

    def __init__(self, users: UserRegistry) -> None:
        self.on_change: Callable[[str, bool], None] = lambda user, is_online: None
        self.on_local: Callable[[], None] = lambda: None
        """Called when a user has its first link at this node, or the last one has ended."""
        self.show: Show = lambda node, user, message, lane, packed: None
        self.changed: set[str] = set()
        """Users whose links here have begun or ended since they were reported."""
        self.watches: dict[str, tuple[str, ...]] = {}
        """By user with a link here: whose presence it watches. The next node that decides gets them."""
        self.here: set[str] = set()
        """Users with a link at this node."""
        self._users = users
        self._elsewhere: dict[str, set[str]] = {}
        """Users by the node that has reported them."""
        users.on_change = lambda user, is_online: self.look(user)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self.here or any(user_id in users for users in self._elsewhere.values())

    def send(
        self, user_id: str, message: Message, lane: Lane, packed: bytes | None = None, *, by: UserSession | None = None
    ) -> None:
        """See `LinkedUsers.send`."""
        self.send_here(user_id, message, lane, packed, by=by)
        for node, users in self._elsewhere.items():
            if user_id in users:
                self.show(node, user_id, message, lane, packed)

    def send_here(
        self, user_id: str, message: Message, lane: Lane, packed: bytes | None = None, *, by: UserSession | None = None
    ) -> None:
        """Send a message on each link that a user has at this node, but ``by``."""
        for session in self._users.sessions(user_id):
            if session is not by and not session.is_remote:
                session.send(message, lane=lane, packed=packed)

    # ---- links here

    def look(self, user: str) -> None:
        """Take over whether a user has a link here now."""
        is_here = any(not session.is_remote for session in self._users.sessions(user))
        if is_here is (user in self.here):
            return
        (self.here.add if is_here else self.here.discard)(user)
        if not is_here:
            self.watches.pop(user, None)
        self.changed.add(user)
        if not self._is_elsewhere(user):
            self.on_change(user, is_here)
        self.on_local()

    def watched(self, watcher: str, users: Sequence[str]) -> None:
        """Remember whom a user watches, where it has a link here."""
        if watcher in self.here:
            self.watches[watcher] = tuple(users)

    # ---- links at other nodes

    def report(self, node: str, online: Sequence[str], offline: Sequence[str]) -> None:
        """Take over which users have their first link at a node, and which have none there any more."""
        users = self._elsewhere.setdefault(node, set())
        for user in online:
            is_new = user not in self
            users.add(user)
            if is_new:
                self.on_change(user, True)
        for user in offline:
            if user in users:
                users.discard(user)
                if user not in self:
                    self.on_change(user, False)

    def drop(self, node: str) -> None:
        """Take that no user has a link at a node any more."""
        for user in self._elsewhere.pop(node, ()):
            if user not in self:
                self.on_change(user, False)

    def drop_all(self) -> None:
        """Forget what other nodes have reported: this node does not decide any more, or only from now on."""
        for node in list(self._elsewhere):
            self.drop(node)

    def _is_elsewhere(self, user: str) -> bool:
        return any(user in users for users in self._elsewhere.values())
