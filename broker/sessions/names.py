"""Names of users who are logged in, screened again whenever other words hold.

A name is masked when its user logs in. Where words come later, it is masked again from what is shown then, so a word
that is removed leaves the mask until the user's next token. Names in events that are over stay as they were.
"""

from __future__ import annotations

import structlog
import trio

from broker.sessions.context import SessionContext
from broker.sessions.link import SessionLink

__all__ = ["keep_names_screened", "screen_names"]

log = structlog.get_logger("roomcast.moderation")

EVERY_S = 1.0
"""How soon names are screened again after other words hold."""
SLICE = 100
"""Links between two checkpoints of the event loop: some 5 us a name that was not searched yet."""


async def keep_names_screened(context: SessionContext) -> None:
    """Screen all names again whenever other words hold, until cancelled."""
    screens = context.hub.screens
    known = screens.edition
    while True:
        await trio.sleep(EVERY_S)
        if screens.edition is not known:
            known = screens.edition
            changed = await screen_names(context)
            if changed:
                log.info("names masked by other words", names=changed)


async def screen_names(context: SessionContext) -> int:
    """Screen the names of all links as the words are now; return how many have changed."""
    changed = 0
    for count, session in enumerate(list(context.sessions), 1):
        if isinstance(session, SessionLink) and session.is_open:
            changed += _screen(session)
        if count % SLICE == 0:
            await trio.lowlevel.checkpoint()
    return changed


def _screen(link: SessionLink) -> bool:
    """Screen the name of a link, and as which it is known in each of its rooms; return whether one has changed."""
    context, grant = link.context, link.grant
    if grant is None:
        return False
    screened = context.with_screened_name(grant)
    link.grant = screened
    is_changed = screened is not grant
    for member in link.memberships:
        room = member.room
        name = context.name_in(room.name, screened.name if is_changed else member.name)
        if name != member.name:
            is_changed = True
            now = context.poller.now
            link.guard(room, room.change_rights, member, name, member.role, member.may_post, member.tags, now)
    return is_changed
