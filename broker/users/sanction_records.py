"""Sanctions in the ledger: a record for each in force, and one for each action that can be undone.

Their subject is the sanctioned user, so that its erasure removes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.core.moderation.sanctions import Sanction, SanctionAction
from broker.core.tenants.names import plain_name
from broker.ledger import Item, Reader, RecordPut, RecordRemoved
from broker.ledger.records import read_records
from protocol.activities.moderation import SanctionKind
from protocol.codes import Role
from protocol.frames import pack_body

__all__ = [
    "ACTION_KIND",
    "KIND",
    "action_items",
    "action_removal",
    "read_action",
    "read_sanction",
    "read_sanctions",
    "sanction_removal",
]

KIND = "user.sanction"
ACTION_KIND = "user.sanction_action"


def action_items(action: SanctionAction) -> list[Item]:
    """Return what makes an action durable: itself, and what is in force after it."""
    in_force = action.before if action.undone_by else action.after
    kind, room, user = action.place
    items: list[Item] = [RecordPut(ACTION_KIND, user, action.id, action.at_ms, pack_body(action))]
    if in_force is None:
        return [*items, RecordRemoved(KIND, user, _name(kind, room))]
    return [*items, RecordPut(KIND, user, _name(kind, room), in_force.at_ms, pack_body(in_force))]


def sanction_removal(sanction: Sanction) -> RecordRemoved:
    """Return what removes the record of a sanction."""
    return RecordRemoved(KIND, sanction.user, _name(sanction.kind, sanction.room))


def action_removal(action: SanctionAction) -> RecordRemoved:
    """Return what removes the record of an action."""
    return RecordRemoved(ACTION_KIND, action.user, action.id)


def read_sanctions(reader: Reader) -> tuple[list[Sanction], list[SanctionAction]]:
    """Return all recorded sanctions and actions. Runs in the ledger's reading thread."""
    sanctions = read_records(reader, KIND, lambda record, body: read_sanction(body))
    actions = read_records(reader, ACTION_KIND, lambda record, body: read_action(body))
    return list(sanctions), list(actions)


def _name(kind: SanctionKind, room: str) -> str:
    return f"{kind.name.lower()} {plain_name(room)}"


def read_sanction(body: Sequence[Any]) -> Sanction:
    """Return the sanction of the body of its record (Any: not checked). TypeError or ValueError."""
    found = Sanction(*body)
    return found._replace(kind=SanctionKind(found.kind), by_role=Role(found.by_role))


def read_action(body: Sequence[Any]) -> SanctionAction:
    """Return the action of the body of its record (Any: not checked). TypeError or ValueError."""
    found = SanctionAction(*body)
    return found._replace(
        kind=SanctionKind(found.kind),
        by_role=Role(found.by_role),
        before=None if found.before is None else read_sanction(found.before),
        after=None if found.after is None else read_sanction(found.after),
    )
