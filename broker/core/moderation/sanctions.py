"""Sanctions of users: who may not post, or not enter, in a room or in all rooms of its tenant, and until when.

Each change is an action with its moderator and reason. It holds what was in force before it, so that it can be undone
for a while, unless the sanction has been changed again. A sanction binds users whose role is below that of its
moderator; a lower role neither replaces nor lifts it.

Names are qualified by their tenant. Times are trusted Unix milliseconds; those of the caller never go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from broker.core.tenants.names import qualify, tenant_of
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Role

__all__ = [
    "UNDO_MS",
    "RoomSanctions",
    "Sanction",
    "SanctionAction",
    "SanctionChange",
    "SanctionRefused",
    "SanctionTable",
]

UNDO_MS = 86_400_000
"""How long an action can be undone."""
MAX_SANCTIONS = 100_000
MAX_SANCTIONS_OF_ROOM = 10_000
"""Of one room, or of one tenant in all its rooms: no moderator takes the space of the others."""
MAX_ACTIONS = 20_000
"""Actions that can be undone, or are listed after their end; the oldest is forgotten before its time."""


class Sanction(NamedTuple):
    """A user may not post (MUTE) or not enter (BAN).

    ``room``: where, "" = in every room of the user's tenant; ``until_ms``: 0 = until it is lifted; ``by``: user or key;
    ``by_role``: it binds roles below this one; ``action``: which has set it; ``number``: of that action; ``is_shadow``:
    a mute that the user does not learn of.
    """

    kind: SanctionKind
    room: str
    user: str
    until_ms: int
    reason: str
    by: str
    by_role: Role
    at_ms: int
    action: str
    number: int
    is_shadow: bool = False

    def holds(self, now_ms: int) -> bool:
        """Return whether its time has not passed."""
        return not self.until_ms or self.until_ms > now_ms

    def left_ms(self, now_ms: int) -> int:
        """Return how long it will hold, 0 = until it is lifted."""
        return max(1, self.until_ms - now_ms) if self.until_ms else 0


class SanctionAction(NamedTuple):
    """One change of a sanction. ``number``: rising; ``before``, ``after``: what is in force, None = nothing;
    ``undone_by``: "" = it is not undone."""

    id: str
    number: int
    kind: SanctionKind
    room: str
    user: str
    at_ms: int
    by: str
    by_role: Role
    reason: str
    before: Sanction | None
    after: Sanction | None
    undone_by: str = ""
    undone_at_ms: int = 0

    @property
    def place(self) -> tuple[SanctionKind, str, str]:
        """Of which sanction it is: kind, room and user."""
        return self.kind, self.room, self.user


class SanctionChange(NamedTuple):
    """A wanted change. ``seconds``: how long it will hold, None = until it is lifted; 0 = lift it."""

    id: str
    kind: SanctionKind
    room: str
    user: str
    by: str
    by_role: Role
    seconds: int | None = None
    reason: str = ""
    is_shadow: bool = False


class SanctionRefused(Exception):
    """A change that is not made; nothing is changed. ``field``: of the request."""

    def __init__(self, code: ErrorCode, rule: str, field: str = "") -> None:
        super().__init__(f"{field} {rule}".strip())
        self.code = code
        self.rule = rule
        self.field = field


class SanctionTable:
    """Sanctions in force of all rooms of a broker, and their last actions, oldest first.

    `decide` and `decide_undo` change nothing: what they return is made durable, and then given to `apply`.
    """

    def __init__(
        self,
        max_sanctions: int = MAX_SANCTIONS,
        max_of_room: int = MAX_SANCTIONS_OF_ROOM,
        max_actions: int = MAX_ACTIONS,
        undo_ms: int = UNDO_MS,
    ) -> None:
        self._max_sanctions = max_sanctions
        self._max_of_room = max_of_room
        self._max_actions = max_actions
        self.undo_ms = undo_ms
        self._in_force: dict[tuple[SanctionKind, str, str], Sanction] = {}
        self.mutes: dict[str, dict[str, Sanction]] = {}
        """By user and room; a post looks only whether its user is in it."""
        self._bans: dict[str, dict[str, Sanction]] = {}
        self._of_rooms: dict[str, int] = {}
        """Sanctions of each room, and of each tenant in all its rooms (`_pool_of`)."""
        self._actions: dict[str, SanctionAction] = {}
        self._last_number = 0

    def __len__(self) -> int:
        """Return the sanctions that are kept, those that have ended lately included."""
        return len(self._in_force)

    @property
    def has_bans(self) -> bool:
        """Whether any user is banned from anything."""
        return bool(self._bans)

    # ---- who is sanctioned

    def find(self, kind: SanctionKind, room: str, user: str, role: Role, now_ms: int) -> Sanction | None:
        """Return the sanction that binds a user with a role in a room: of the room or of the whole tenant, the one that
        holds longer. O(1)."""
        by_room = (self.mutes if kind is SanctionKind.MUTE else self._bans).get(user)
        if by_room is None:
            return None
        found: Sanction | None = None
        for place in dict.fromkeys((room, "")):
            each = by_room.get(place)
            if (
                each is not None
                and role < each.by_role
                and each.holds(now_ms)
                # One that the user learns of counts before a shadow.
                and (found is None or (each.is_shadow, -_end(each)) < (found.is_shadow, -_end(found)))
            ):
                found = each
        return found

    def of_user(self, user: str, now_ms: int) -> list[Sanction]:
        """Return the sanctions of a user, by kind and room. O(those of the user)."""
        tables = (self.mutes, self._bans)
        found = [each for table in tables for each in table.get(user, {}).values() if each.holds(now_ms)]
        return sorted(found, key=lambda each: (each.kind, each.room))

    def is_in_force(self, each: Sanction | SanctionAction, now_ms: int) -> bool:
        """Return whether a sanction is in force, or that which an action has set. O(1)."""
        current = self._in_force.get((each.kind, each.room, each.user))
        return current is not None and current.number == each.number and current.holds(now_ms)

    def action(self, id: str) -> SanctionAction | None:
        """Return an action that can be undone, or could be lately."""
        return self._actions.get(id)

    def actions(self) -> Iterator[SanctionAction]:
        """Yield the last actions, oldest first."""
        yield from self._actions.values()

    def in_force(self) -> Iterator[Sanction]:
        """Yield the sanctions that are kept, those that have ended lately included, in the order of their setting."""
        yield from self._in_force.values()

    # ---- changes

    def decide(self, change: SanctionChange, now_ms: int) -> SanctionAction | None:
        """Return the action that makes a change; None: there is nothing to lift. SanctionRefused."""
        place = change.kind, change.room, change.user
        before = self._in_force.get(place)
        if before is not None and not before.holds(now_ms):
            before = None
        _check_role(before, change.by_role)
        number = self._last_number + 1
        after = None
        if change.seconds != 0:
            until_ms = 0 if change.seconds is None else now_ms + change.seconds * 1000
            after = Sanction(
                *place, until_ms, change.reason, change.by, change.by_role, now_ms, change.id, number, change.is_shadow
            )
            self._check_space(after, now_ms)
        elif before is None:
            return None
        return SanctionAction(
            change.id, number, *place, now_ms, change.by, change.by_role, change.reason, before, after
        )

    def decide_undo(self, id: str, by: str, by_role: Role, now_ms: int) -> SanctionAction:
        """Return an action as it is after it has been undone. SanctionRefused."""
        action = self._actions.get(id)
        if action is None or now_ms > action.at_ms + self.undo_ms:
            raise SanctionRefused(ErrorCode.UNKNOWN_ACTION, "names no action that can be undone", "action")
        if action.undone_by:
            raise SanctionRefused(ErrorCode.STALE, "has been undone", "action")
        if by_role < action.by_role:
            raise SanctionRefused(ErrorCode.NOT_ALLOWED, "was done by a role above yours", "action")
        if any(
            each.number > action.number and each.place == action.place and not each.undone_by
            for each in self._actions.values()
        ):
            raise SanctionRefused(ErrorCode.STALE, "is not the last of its sanction: undo that first", "action")
        if action.before is not None:
            self._check_space(action.before, now_ms)
        return action._replace(undone_by=by, undone_at_ms=now_ms)

    def apply(self, action: SanctionAction) -> tuple[SanctionAction, ...]:
        """Take over an action that is durable; return the older ones that are forgotten for it. One that was taken
        over already changes nothing."""
        if self._actions.get(action.id) == action:
            return ()
        self._set(action.place, action.before if action.undone_by else action.after)
        self._actions[action.id] = action
        self._last_number = max(self._last_number, action.number)
        forgotten = []
        while len(self._actions) > self._max_actions:
            forgotten.append(self._actions.pop(next(iter(self._actions))))
        return tuple(forgotten)

    def restore(self, sanctions: Iterable[Sanction], actions: Iterable[SanctionAction]) -> None:
        """Take over what the ledger has, in place of what holds."""
        for place in list(self._in_force):
            self._set(place, None)
        for sanction in sorted(sanctions, key=lambda each: each.number):
            self._set((sanction.kind, sanction.room, sanction.user), sanction)
            self._last_number = max(self._last_number, sanction.number)
        self._actions = {each.id: each for each in sorted(actions, key=lambda each: each.number)}
        self._last_number = max(self._last_number, *(each.number for each in self._actions.values()), 0)

    def sweep(self, now_ms: int) -> tuple[list[Sanction], list[SanctionAction]]:
        """Drop, and return, the sanctions that have ended and the actions that cannot be undone any more. O(all)."""
        ended = [each for each in self._in_force.values() if not each.holds(now_ms)]
        for sanction in ended:
            self._set((sanction.kind, sanction.room, sanction.user), None)
        old = [each for each in self._actions.values() if now_ms > each.at_ms + self.undo_ms]
        for action in old:
            del self._actions[action.id]
        return ended, old

    def forget(self, user: str) -> None:
        """Forget everything of a user whose data are erased. O(actions)."""
        for sanction in self.of_user(user, 0):
            self._set((sanction.kind, sanction.room, sanction.user), None)
        self._actions = {id: action for id, action in self._actions.items() if action.user != user}

    # ---- inside

    def _check_space(self, sanction: Sanction, now_ms: int) -> None:
        """Raise SanctionRefused where there is no space for one more; those that have ended make some."""
        if (sanction.kind, sanction.room, sanction.user) in self._in_force:
            return
        for _ in range(2):
            is_full = len(self._in_force) >= self._max_sanctions
            of_room = self._of_rooms.get(_pool_of(sanction.room, sanction.user), 0)
            if not is_full and of_room < self._max_of_room:
                return
            for each in [each for each in self._in_force.values() if not each.holds(now_ms)]:
                self._set((each.kind, each.room, each.user), None)
        if is_full:
            raise SanctionRefused(ErrorCode.OVERLOADED, "the broker has as many sanctions as it may")
        raise SanctionRefused(ErrorCode.OUT_OF_STATE, f"has {self._max_of_room} sanctions: lift some", "room")

    def _set(self, place: tuple[SanctionKind, str, str], sanction: Sanction | None) -> None:
        kind, room, user = place
        table = self.mutes if kind is SanctionKind.MUTE else self._bans
        if self._in_force.pop(place, None) is not None:
            del table[user][room]
            if not table[user]:
                del table[user]
            self._count(room, user, -1)
        if sanction is not None:
            self._in_force[place] = sanction
            table.setdefault(user, {})[room] = sanction
            self._count(room, user, 1)

    def _count(self, room: str, user: str, change: int) -> None:
        pool = _pool_of(room, user)
        count = self._of_rooms.get(pool, 0) + change
        if count:
            self._of_rooms[pool] = count
        else:
            del self._of_rooms[pool]


class RoomSanctions:
    """The sanctions of posts in one room. ``now_ms``: the trusted clock."""

    __slots__ = ("_room", "_table", "_tenant", "mutes", "now_ms")

    def __init__(self, table: SanctionTable, room: str, now_ms: Callable[[], int]) -> None:
        self._table = table
        self._room = room
        self._tenant = tenant_of(room)
        self.now_ms = now_ms
        self.mutes = table.mutes
        """Of all rooms: where it is empty, no user is muted."""

    def mute_of(self, user: str, role: Role) -> tuple[Sanction, int] | None:
        """Return the mute that binds a user (without its tenant) with a role, and how long it will hold (0 = until it
        is lifted)."""
        qualified = qualify(self._tenant, user)
        if qualified not in self.mutes:
            return None
        now_ms = self.now_ms()
        found = self._table.find(SanctionKind.MUTE, self._room, qualified, role, now_ms)
        return None if found is None else (found, found.left_ms(now_ms))


def _end(sanction: Sanction) -> float:
    return sanction.until_ms or float("inf")


def _pool_of(room: str, user: str) -> str:
    """Return what the bound of a sanction is of: its room, or every room of its tenant."""
    return room or qualify(tenant_of(user), "*")


def _check_role(before: Sanction | None, role: Role) -> None:
    if before is not None and role < before.by_role:
        raise SanctionRefused(ErrorCode.NOT_ALLOWED, "is sanctioned by a role above yours", "user")
