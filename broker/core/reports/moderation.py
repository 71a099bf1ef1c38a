"""Moderation of a show: what reviewers decided, whom staff sanctioned and why, and what staff and backends changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from broker.core.commerce.activity import Fact
from broker.core.moderation.review import REVIEWS_KEY
from protocol.activities.reviews import HeldBy

__all__ = ["MAX_ACTORS", "MAX_SANCTIONS", "ShowModeration"]

MAX_SANCTIONS = 300
"""Sanctions that a report lists, the first ones; the others are counted."""
MAX_ACTORS = 50
"""Staff and backends that a report lists: those with the most actions."""
_OK = "OK"
_SANCTIONS = frozenset(
    {"moderation.mute", "moderation.unmute", "moderation.ban", "moderation.unban", "moderation.undo", "users.kick"}
)
_KINDS = {int(kind): kind.name.lower() for kind in HeldBy}


class ShowModeration:
    """Fold of the facts of the review queue of a room, and of the entries of the audit that name it."""

    def __init__(self) -> None:
        self._reviews: Counter[str] = Counter()
        self._held_by: Counter[str] = Counter()
        self._since_ms: dict[int, int] = {}
        """When each message that is not decided was held."""
        self._decided_by: Counter[str] = Counter()
        self._waited_ms = self._longest_ms = 0
        self._actions: Counter[str] = Counter()
        self._actors: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._sanctions: list[dict[str, Any]] = []
        self._more = 0

    # Any: the data of a fact is what its name says.
    def facts(self, key: tuple[str, str], facts: Iterable[Fact]) -> None:
        """Fold facts of an activity. TypeError, ValueError, LookupError or AttributeError for what it does not know."""
        if key != REVIEWS_KEY:
            return
        for name, data in facts:
            self._reviews[name] += 1
            if name in ("held", "reported"):
                if name == "held":
                    self._held_by[_KINDS.get(data[1]["held_by"], "other")] += 1
                self._since_ms[data[0]] = data[1]["at_ms"]
            elif name in ("approved", "rejected"):
                id, by, _, at_ms = data
                waited_ms = max(0, at_ms - self._since_ms.pop(id, at_ms))
                self._waited_ms += waited_ms
                self._longest_ms = max(self._longest_ms, waited_ms)
                self._decided_by[by] += 1

    def action(
        self,
        at_ms: int,
        operation: str,
        actor_kind: str,
        actor: str,
        subject: str,
        reason: str,
        outcome: str,
        request: Any,
    ) -> None:
        """Take an entry of the audit. ``request``: a summary of its fields (Any: plain values)."""
        if outcome != _OK:
            self._refused += 1
            return
        self._actions[operation] += 1
        self._actors[actor_kind, actor] += 1
        if operation not in _SANCTIONS:
            return
        if len(self._sanctions) >= MAX_SANCTIONS:
            self._more += 1
            return
        line: dict[str, Any] = {"at_ms": at_ms, "what": operation, "user": subject, "by": actor, "reason": reason}
        if isinstance(request, Mapping):
            line |= {name: request[name] for name in ("seconds", "ban_s", "shadow", "clear") if name in request}
        self._sanctions.append(line)

    def as_json(self) -> dict[str, Any]:
        """Return the parts of a report."""
        decided = self._reviews["approved"] + self._reviews["rejected"]
        actors = sorted(self._actors.items(), key=lambda item: (-item[1], item[0]))
        return {
            "reviews": {
                "held": self._reviews["held"],
                "held_by": dict(sorted(self._held_by.items())),
                "reported": self._reviews["reported"],
                "reports": self._reviews["reported"] + self._reviews["seconded"],
                "approved": self._reviews["approved"],
                "rejected": self._reviews["rejected"],
                "released": self._reviews["released"],
                "undecided": len(self._since_ms),
                "without_reviewer": self._decided_by[""],
                "average_wait_ms": self._waited_ms // decided if decided else 0,
                "longest_wait_ms": self._longest_ms,
                "reviewers": {by: count for by, count in sorted(self._decided_by.items()) if by},
            },
            "sanctions": self._sanctions,
            "sanctions_left_out": self._more,
            "audit": {
                "actions": dict(sorted(self._actions.items())),
                "refused": self._refused,
                "actors": [
                    {"kind": kind, "actor": actor, "actions": count} for (kind, actor), count in actors[:MAX_ACTORS]
                ],
                "actors_left_out": max(0, len(actors) - MAX_ACTORS),
            },
        }
