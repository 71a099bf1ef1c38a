"""What a configuration says of rooms, message types and tenants, in the words of the pure code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from broker.config.schema import Config, TenantConfig, TypeConfig
from broker.core.commerce.highlights import HighlightTier
from broker.core.commerce.kinds import activity_kinds
from broker.core.commerce.room_activities import ActivityKind
from broker.core.limits.rate_limit import Rate
from broker.core.moderation.review_commands import ReviewLimits
from broker.core.moderation.review_space import ReviewSpace
from broker.core.rooms.policies import Policy, policy_from
from broker.core.rooms.types import CustomRule
from broker.core.tenants.quotas import Quotas
from protocol.codes import Lane, Role

__all__ = ["custom_rules", "kinds_of", "names_and_lanes", "policy_of", "quotas_of"]


def policy_of(config: Config) -> Policy:
    """Return the policy in force. Unless its burst of joins is set, a user may fill two links with rooms at once."""
    tiers = tuple(HighlightTier(*tier) for tier in config.room.highlight_tiers)
    moderation = config.moderation
    raids = {name: getattr(moderation, name) for name in ("raid_joins", "raid_repeats", "raid_slow_s", "raid_s")}
    policy = policy_from(config.room.policy, config.room.policy_overrides() | {"highlight_tiers": tiers} | raids)
    joins, two_links = policy.user_joins, 2 * config.link.rooms_per_connection
    if joins.unlimited or config.room.user_joins_burst is not None or joins.burst >= two_links:
        return policy
    return replace(policy, user_joins=Rate(joins.per_s, two_links))


def kinds_of(config: Config, random_bytes: Callable[[], bytes]) -> dict[str, ActivityKind]:
    """Return the kinds of activities; ``random_bytes``: as in `activity_kinds`."""
    moderation = config.moderation
    held = ReviewLimits(
        moderation.held_per_room, moderation.held_per_user, moderation.held_bytes_per_room, moderation.reported_per_room
    )
    return activity_kinds(random_bytes, held)


def review_space(config: Config) -> ReviewSpace:
    """Return the space of the review queues of all rooms."""
    return ReviewSpace(config.moderation.held_per_tenant, config.moderation.held_bytes_per_tenant)


def quotas_of(tenants: Iterable[TenantConfig]) -> dict[str, Quotas]:
    """Return the quotas of each tenant by name."""
    return {
        each.name: Quotas(
            each.max_connections, each.max_rooms, each.messages_per_s, each.calls_per_s, each.mask_names_for_guests
        )
        for each in tenants
    }


def custom_rules(config: Config) -> dict[int, CustomRule]:
    """Return the rules of the message types of the deployment's own, by number."""
    return {entry.id: _custom_rule(entry) for entry in config.types}


def names_and_lanes(custom: Mapping[int, CustomRule]) -> dict[int, tuple[str, Lane]]:
    """Return name and lane of each of the deployment's own types."""
    return {number: (rule.name, rule.lane) for number, rule in custom.items()}


def _custom_rule(entry: TypeConfig) -> CustomRule:
    return CustomRule(
        type=entry.id,
        name=entry.name,
        lane=Lane[entry.lane.upper()],
        max_bytes=entry.max_bytes,
        rate=Rate(entry.rate_per_s, entry.burst),
        roles=frozenset(Role[role.upper()] for role in entry.roles),
        marketing=entry.marketing,
        opaque=entry.opaque,
    )
