"""Tags of a room and of its users: which part of the room a user is in.

Tags are numbered in the order in which they were defined, for as long as the stream goes on, so that a user's are the
bits of one integer. A user has the tags of its token that the room knows; where the platform has set its tags, those
instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityReport,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    UserLeft,
    move_to_pseudonym,
    refused,
)
from broker.core.commerce.room_rankings import INVITES, SHARES
from broker.core.users.preferences import NOT_RECOMMENDED, OPTED_OUT
from protocol.activities.audiences import (
    MAX_TAGS,
    Audience,
    AudienceGrown,
    FollowedData,
    InviteCountedData,
    OwnReach,
    RoomTags,
    SharedData,
    TagRule,
)
from protocol.codes import ErrorCode
from protocol.operations.audiences import ReachKind, TaggedUsers

__all__ = ["MAX_TAGGED", "Audiences", "DefineTags", "Follow", "Invited", "Share", "TagUsers", "ranked_by"]

T = TypeVar("T")

MAX_TAGGED = 100_000
"""Users of one room whose tags the platform has set; so many followers, sharers and invited users too."""
COUNTED_AFTER_MS = 30_000
"""How long an invited user watches until the invite counts."""
WATCHED_BEFORE_S = 30
"""Who has watched for longer was not brought by an invite."""
INVITES_A_MINUTE = 20
"""Accepted invites of one inviter."""
MAX_SHARE_KEYS = 4
"""Keys of shares that are known of one user: each is repeated within seconds, and a user shares once a second."""
FORGOTTEN_AT_ONCE = 2
"""Inviters without an invite in the last minute whose times go with the next invite."""
_UNKNOWN = 1 << MAX_TAGS
"""Bit of a tag that the room does not have; no user has it."""
OPTED_OUT_BIT = 1 << (MAX_TAGS + 1)
"""Bit of the users who want no marketing."""
STAFF_BIT = 1 << (MAX_TAGS + 2)
"""Bit of the staff of a room, which sees delayed messages before the others."""
NOT_RECOMMENDED_BIT = 1 << (MAX_TAGS + 3)
"""Bit of the users who want no marketing that is chosen by their tags."""
_OF_PREFERENCES = {OPTED_OUT: OPTED_OUT_BIT, NOT_RECOMMENDED: NOT_RECOMMENDED_BIT}


class DefineTags(NamedTuple):
    """Add tags to the room, or change the rules of those that it has."""

    tags: tuple[TagRule, ...]


class TagUsers(NamedTuple):
    """Set the tags of users; None = those of their tokens count again."""

    users: tuple[str, ...]
    tags: tuple[str, ...] | None


class Follow(NamedTuple):
    """Let a user follow the host, or stop; None = the requester."""

    follows: bool
    user: str | None = None


class Share(NamedTuple):
    """Count a share of a user; None = the requester. ``request``: the caller's idempotency key, empty = none."""

    channel: str
    user: str | None = None
    request: str = ""


class Invited(NamedTuple):
    """The requester was brought by another user."""

    inviter: str


_KeyedShare = tuple[str, str, tuple[bool, int, int]]
"""Key, channel, and the answer that it had: `OwnReach`."""


class Audiences(Activity[T]):
    """The tags of one room."""

    kind = "audiences"

    def __init__(self, id: str = "") -> None:
        super().__init__(id)
        self._tags: dict[str, TagRule] = {}
        self._numbers: dict[str, int] = {}
        self._set: dict[str, int] = {}
        """Bits of the users whose tags the platform has set."""
        self._facts = 0
        self._ruled: tuple[tuple[int, TagRule], ...] = ()
        """Tags that a rule gives, with their bits."""
        self._follows: dict[str, int] = {}
        """Since when, Unix milliseconds."""
        self._shares: dict[str, int] = {}
        self._share_keys: dict[str, tuple[_KeyedShare, ...]] = {}
        """The newest shares of a user that had a key, in order."""
        self._inviters: dict[str, str] = {}
        """By invitee, counted or not."""
        self._pending: OrderedDict[str, int] = OrderedDict()
        """Invitees that have not watched long enough, and when they will have: in order of time."""
        self._invites: dict[str, int] = {}
        """Counted invites by inviter."""
        self._share_total = 0
        self._invite_total = 0
        self._asked: dict[str, tuple[int, ...]] = {}
        """When invites of an inviter were accepted, within the minute before the newest of them; in order of those."""

    @property
    def exists(self) -> bool:
        return self._facts > 0

    # ---- who has which

    def bits_of(self, tags: Iterable[str]) -> int:
        """Return the bits of tags by name; one that the room does not have is a bit that no user has."""
        bits = 0
        for tag in tags:
            bits |= _OF_PREFERENCES.get(tag) or 1 << self._numbers.get(tag, MAX_TAGS)
        return bits

    def tags_of(self, user: str, own: Sequence[str]) -> int:
        """Return the bits of a user. ``own``: the tags of its token."""
        bits = self._set.get(user)
        if bits is None:
            bits = self.bits_of(own) & ~_UNKNOWN if own else 0
        for bit, rule in self._ruled:
            if (
                (rule.follow and user in self._follows)
                or (rule.shares and self._shares.get(user, 0) >= rule.shares)
                or (rule.invites and self._invites.get(user, 0) >= rule.invites)
            ):
                bits |= bit
        return bits

    def follows_since(self, user: str) -> int | None:
        """Return since when a user follows the host, Unix milliseconds; None: it does not."""
        return self._follows.get(user)

    def does_follow(self, user: str) -> bool:
        """Return whether a user follows the host."""
        return user in self._follows

    def reach_of(self, user: str) -> OwnReach:
        """Return what a user has done for the room."""
        return OwnReach(user in self._follows, self._shares.get(user, 0), self._invites.get(user, 0))

    def totals(self) -> AudienceGrown:
        """Return followers, shares and counted invites of the room."""
        return AudienceGrown(len(self._follows), self._share_total, self._invite_total)

    def top(self, kind: ReachKind, limit: int) -> list[tuple[str, int]]:
        """Return the first users by shares or invites; of equal ones the one whose id is smaller."""
        scores = self._shares if kind is ReachKind.SHARES else self._invites
        return nsmallest(limit, scores.items(), key=lambda item: (-item[1], item[0]))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the shares and the counted invites of all users, by kind of ranking."""
        return {SHARES: self._shares, INVITES: self._invites}

    def names_of(self, bits: int) -> frozenset[str]:
        """Return the names of tags by their bits."""
        return frozenset(name for number, name in enumerate(self._tags) if bits >> number & 1)

    def unknown(self, audience: Audience) -> str | None:
        """Return the place of the first tag of an audience that the room does not have; None: it has all."""
        for field, tags in audience._asdict().items():
            for place, tag in enumerate(tags):
                if tag not in self._tags:
                    return f"{field}[{place}]"
        return None

    @property
    def tagged(self) -> int:
        """Users whose tags the platform has set."""
        return len(self._set)

    def room_tags(self) -> RoomTags:
        """Return the tags of the room."""
        return RoomTags(tuple(self._tags.values()))

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        match command:
            case DefineTags(tags):
                return self._define(tags)
            case TagUsers(users, tags):
                return self._set_tags(users, tags)
            case Follow(follows, user):
                return self._follow(user or requester.user, follows, now_ms)
            case Share(channel, user, request):
                return self._share(user or requester.user, channel, request)
            case Invited(inviter):
                return self._invited(requester, inviter, now_ms)
            case UserLeft():
                return self._left(requester.user)
        raise TypeError(command)

    def _define(self, tags: tuple[TagRule, ...]) -> ActivityStep[T]:
        wanted = {tag.name: tag for tag in tags}
        if len(wanted) < len(tags):
            return refused(ErrorCode.BAD_FIELD, "must not name a tag twice", "tags")
        after = self._tags | wanted
        if len(after) > MAX_TAGS:
            return refused(
                ErrorCode.BAD_FIELD, f"makes {len(after)} tags of this room; at most {MAX_TAGS} are allowed", "tags"
            )
        answer = RoomTags(tuple(after.values()))
        if after == self._tags:
            return ActivityStep(answer=answer)
        before = tuple(map(tuple, self._tags.values()))
        return ActivityStep((Fact("defined", (tuple(map(tuple, after.values())), before)),), answer)

    def _set_tags(self, users: tuple[str, ...], tags: tuple[str, ...] | None) -> ActivityStep[T]:
        for place, tag in enumerate(tags or ()):
            if tag not in self._tags:
                return refused(ErrorCode.BAD_FIELD, "names no tag of this room", f"tags[{place}]")
        bits = None if tags is None else self.bits_of(tags)
        changes = tuple(
            (user, self._set.get(user), bits) for user in dict.fromkeys(users) if self._set.get(user) != bits
        )
        added = sum(before is None for _, before, _ in changes)
        if bits is not None and len(self._set) + added > MAX_TAGGED:
            return refused(ErrorCode.OUT_OF_STATE, f"has {MAX_TAGGED} users with tags at most", "room")
        answer = TaggedUsers(len(changes), len(self._set) + (added if bits is not None else -len(changes)))
        facts = (Fact("tagged", changes),) if changes else ()
        return ActivityStep(facts, answer, weight=len(changes))

    def _follow(self, user: str, follows: bool, now_ms: int) -> ActivityStep[T]:
        answer = self.reach_of(user)
        if answer.follows == follows:
            return ActivityStep(answer=answer)
        if follows and len(self._follows) >= MAX_TAGGED:
            return _full("followers")
        report = ActivityReport("audience.followed", FollowedData(user, follows))
        fact = Fact("followed", (user, now_ms if follows else None, self._follows.get(user)))
        return ActivityStep((fact,), answer._replace(follows=follows), reports=(report,))

    def _share(self, user: str, channel: str, request: str) -> ActivityStep[T]:
        keyed = self._share_keys.get(user, ())
        for known, its_channel, reach in keyed if request else ():
            if known == request:
                if its_channel == channel:
                    return ActivityStep(answer=OwnReach(*reach))
                return refused(ErrorCode.KEY_REUSED, "was used before with other content", "key")
        if user not in self._shares and len(self._shares) >= MAX_TAGGED:
            return _full("users who share")
        answer = self.reach_of(user)
        answer = answer._replace(shares=answer.shares + 1)
        oldest = keyed[0] if request and len(keyed) >= MAX_SHARE_KEYS else None
        fact = Fact("shared", (user, request, channel, tuple(answer), oldest))
        report = ActivityReport("audience.shared", SharedData(user, channel, answer.shares))
        return ActivityStep((fact,), answer, reports=(report,))

    def _invited(self, requester: Requester, inviter: str, now_ms: int) -> ActivityStep[T]:
        user = requester.user
        answer = self.reach_of(user)
        known = self._inviters.get(user)
        if known == inviter:
            return ActivityStep(answer=answer)
        if known is not None:
            return refused(ErrorCode.ALREADY_HAVE, "was named before", "inviter")
        if inviter == user or self._inviters.get(inviter) == user:
            rule = "must not be the caller, or brought by the caller"
            return refused(ErrorCode.NOT_ELIGIBLE, rule, "inviter")
        if requester.attributes.watch_s > WATCHED_BEFORE_S:
            rule = f"is for users who have watched for {WATCHED_BEFORE_S} s at most"
            return refused(ErrorCode.NOT_ELIGIBLE, rule, "watch_s")
        if len(self._inviters) >= MAX_TAGGED:
            return _full("invites")
        asked = self._asked.get(inviter, ())
        recent = _within_a_minute(asked, now_ms)
        if len(recent) >= INVITES_A_MINUTE:
            wait_ms = recent[0] + 60_000 - now_ms
            rule = f"has brought {INVITES_A_MINUTE} users in a minute"
            return refused(ErrorCode.RATE_LIMITED, rule, "inviter", wait_ms)
        # Each invite removes two old ones, so that those of the last minute are left.
        old = tuple(
            (each, times)
            for each, times in islice(self._asked.items(), FORGOTTEN_AT_ONCE)
            if each != inviter and not _within_a_minute(times, now_ms)
        )
        return ActivityStep((Fact("invited", (user, inviter, now_ms, asked, old)),), answer)

    def _left(self, user: str) -> ActivityStep[T]:
        due_ms = self._pending.get(user)
        facts = () if due_ms is None else (Fact("withdrawn", (user, self._inviters[user], due_ms)),)
        return ActivityStep(facts, self.reach_of(user))

    def follows(self, user: str) -> bool:
        return user in self._pending

    # ---- time

    def next_due(self) -> int | None:
        return next(iter(self._pending.values()), None)

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        user, due_ms = next(iter(self._pending.items()), ("", now_ms + 1))
        if now_ms < due_ms:
            return None
        inviter = self._inviters[user]
        data = InviteCountedData(inviter, user, self._invites.get(inviter, 0) + 1)
        fact = Fact("counted", (user, inviter, due_ms))
        return ActivityStep((fact,), reports=(ActivityReport("audience.invite_counted", data),))

    # ---- facts

    def apply(self, fact: Fact) -> None:
        self._facts += 1
        data = fact.data
        match fact.name:
            case "defined":
                self._use(data[0])
            case "tagged":
                for user, _, after in data:
                    self._put(user, after)
            case "followed":
                self._set_follows(data[0], data[1])
            case "shared":
                user, request, channel, reach, oldest = data
                _add(self._shares, user, 1)
                self._share_total += 1
                if request:
                    keyed = self._share_keys.get(user, ())[oldest is not None :]
                    self._share_keys[user] = (*keyed, (request, channel, reach))
            case "invited":
                user, inviter, at_ms, asked, old = data
                self._inviters[user] = inviter
                self._pending[user] = at_ms + COUNTED_AFTER_MS
                self._asked.pop(inviter, None)
                self._asked[inviter] = (*_within_a_minute(asked, at_ms), at_ms)
                for each, _ in old:
                    del self._asked[each]
            case "withdrawn":
                del self._pending[data[0]], self._inviters[data[0]]
            case _:
                del self._pending[data[0]]
                _add(self._invites, data[1], 1)
                self._invite_total += 1

    def undo(self, fact: Fact) -> None:
        self._facts -= 1
        data = fact.data
        match fact.name:
            case "defined":
                self._use(data[1])
            case "tagged":
                for user, before, _ in reversed(data):
                    self._put(user, before)
            case "followed":
                self._set_follows(data[0], data[2])
            case "shared":
                user, request, _, _, oldest = data
                _add(self._shares, user, -1)
                self._share_total -= 1
                if request:
                    left = (*(() if oldest is None else (oldest,)), *self._share_keys.pop(user)[:-1])
                    self._share_keys |= {user: left} if left else {}
            case "invited":
                user, inviter, _, asked, old = data
                del self._inviters[user], self._pending[user]
                del self._asked[inviter]
                self._asked |= {each: tuple(times) for each, times in ((inviter, asked), *old) if times}
            case "withdrawn":
                self._inviters[data[0]] = data[1]
                self._wait_again(data[0], data[2])
            case _:
                self._wait_again(data[0], data[2])
                _add(self._invites, data[1], -1)
                self._invite_total -= 1

    def _wait_again(self, user: str, due_ms: int) -> None:
        first_due_ms = self.next_due()
        self._pending[user] = due_ms
        if first_due_ms is not None and due_ms <= first_due_ms:
            self._pending.move_to_end(user, last=False)
        else:
            self._pending = OrderedDict(sorted(self._pending.items(), key=itemgetter(1)))

    def _set_follows(self, user: str, since_ms: int | None) -> None:
        if since_ms is not None:
            self._follows[user] = since_ms
        else:
            del self._follows[user]

    def _use(self, tags: Iterable[tuple[Any, ...]]) -> None:
        self._tags = {tag[0]: TagRule(*tag) for tag in tags}
        self._numbers = {name: number for number, name in enumerate(self._tags)}
        self._ruled = tuple(
            (1 << self._numbers[rule.name], rule)
            for rule in self._tags.values()
            if rule.follow or rule.shares or rule.invites
        )

    def _put(self, user: str, bits: int | None) -> None:
        if bits is None:
            self._set.pop(user, None)
        else:
            self._set[user] = bits

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        data = fact.data
        match fact.name:
            case "defined":
                return fact
            case "tagged":
                return Fact(fact.name, tuple((erased.renamed(user), *bits) for user, *bits in data))
            case "followed":
                return Fact(fact.name, (erased.renamed(data[0]), *data[1:]))
            case "shared":
                return Fact(fact.name, (erased.pseudonym, "", "", data[3], None)) if data[0] == erased.user else fact
            case "invited":
                user, inviter, at_ms, asked, old = data
                renamed = tuple((erased.renamed(each), times) for each, times in old)
                return Fact(fact.name, (erased.renamed(user), erased.renamed(inviter), at_ms, asked, renamed))
            case _:
                return Fact(fact.name, (erased.renamed(data[0]), erased.renamed(data[1]), *data[2:]))

    def erase(self, erased: ErasedUser) -> None:
        """Give what a user has done for the room to its pseudonym; the keys of its shares go."""
        self._share_keys.pop(erased.user, None)
        tables: tuple[dict[str, Any], ...] = (
            self._set, self._follows, self._shares, self._inviters, self._invites
        )  # fmt: skip
        for table in tables:
            move_to_pseudonym(table, erased)
        for user, inviter in self._inviters.items():
            if inviter == erased.user:
                self._inviters[user] = erased.pseudonym
        if erased.user in self._asked:
            self._asked = {erased.renamed(user): times for user, times in self._asked.items()}
        if erased.user in self._pending:
            self._pending = OrderedDict((erased.renamed(user), due_ms) for user, due_ms in self._pending.items())

    # ---- what is seen of it

    def dump(self) -> tuple[Any, ...]:
        tables = self._set, self._shares, self._share_keys, self._inviters, self._invites, self._asked, self._pending
        scores = (sorted(each.items()) for each in tables)
        return (
            self._facts, tuple(self._tags.items()), tuple(sorted(self._follows.items())), tuple(map(tuple, scores)),
            self._share_total, self._invite_total,
        )  # fmt: skip

    def counter(self) -> RoomEvent | None:
        totals = self.totals()
        return RoomEvent("audiences.counted", totals) if any(totals) else None

    def own_view(self, user: str) -> OwnReach | None:
        reach = self.reach_of(user)
        return reach if any(reach) else None

    def view(self, is_staff: bool) -> RoomTags | None:
        return self.room_tags() if is_staff else None


def ranked_by(fact: Fact) -> tuple[str, str] | None:
    """Return the kind of ranking in which a fact gives a user one more, and the user; None: it gives nobody any."""
    if fact.name == "shared":
        return SHARES, fact.data[0]
    return (INVITES, fact.data[1]) if fact.name == "counted" else None


def _add(scores: dict[str, int], user: str, change: int) -> None:
    score = scores.get(user, 0) + change
    if score:
        scores[user] = score
    else:
        del scores[user]


def _within_a_minute(times: Iterable[int], now_ms: int) -> tuple[int, ...]:
    return tuple(at_ms for at_ms in times if at_ms > now_ms - 60_000)


def _full(what: str) -> ActivityStep[Any]:
    return refused(ErrorCode.OUT_OF_STATE, f"has {MAX_TAGGED} {what}", "room")
