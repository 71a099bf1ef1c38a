"""Whether a user may take part in an activity, at the moment of its command: the room goes on and it meets the
conditions."""

from __future__ import annotations

from typing import Any

from protocol.activities.eligibility import Eligibility
from protocol.codes import ErrorCode, Role

from .activity import ActivityRefusal, Requester

__all__ = ["ROOM_PAUSED", "eligibility_of_fact", "ineligible"]

ROOM_PAUSED = ActivityRefusal(ErrorCode.ROOM_PAUSED, "is paused", "room")


def ineligible(conditions: Eligibility, requester: Requester, said: str = "") -> ActivityRefusal | None:
    """Return the refusal ROOM_PAUSED, or NOT_ELIGIBLE with the first field that is not met; None: all are.

    To be asked only of what is new: who has taken part already gets its first answer again. ``said``: the text of the
    request, which must be the keyword; case and white space at the ends do not count. An account whose age the token
    does not say meets no condition on it.
    """
    if requester.is_paused:
        return ROOM_PAUSED
    attributes = requester.attributes
    if requester.role < conditions.min_role:
        return _refusal("min_role", f"must have the role {Role(conditions.min_role).name.lower()} or a higher one")
    if conditions.tags_any and attributes.tags.isdisjoint(conditions.tags_any):
        return _refusal("tags_any", f"must have one of the tags {', '.join(conditions.tags_any)}")
    if conditions.follow and not attributes.follows:
        return _refusal("follow", "must follow the host")
    if attributes.watch_s < conditions.watch_s:
        return _refusal("watch_s", f"must have watched for {conditions.watch_s} s")
    if conditions.keyword and said.strip().casefold() != conditions.keyword.strip().casefold():
        return _refusal("keyword", "must carry the keyword")
    if attributes.gift_cents < conditions.gift_cents:
        return _refusal("gift_cents", f"must have given gifts of {conditions.gift_cents} cents")
    if conditions.account_age_s and (attributes.account_age_s or 0) < conditions.account_age_s:
        return _refusal("account_age_s", f"must have an account for {conditions.account_age_s} s")
    return None


def eligibility_of_fact(data: tuple[Any, ...]) -> Eligibility:
    """Return conditions that a fact holds as a tuple (Any: as the ledger has unpacked it)."""
    conditions = Eligibility(*data)
    return conditions._replace(min_role=Role(conditions.min_role))


def _refusal(field: str, rule: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.NOT_ELIGIBLE, rule, field)
