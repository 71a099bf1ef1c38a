"""Keyword hints of a broker: the rules of all tenants, and what is done where a message that is shown meets one.

Rules come from the configuration and from operations; those are records of the ledger. Messages are searched where a
tick shows them: a few dozen a second in a room, however many come in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog
import trio

from broker.config.moderation import ModerationConfig
from broker.core.commerce.activity import RoomEvent
from broker.core.moderation.hints import HintCooldowns, HintError, HintSet, filled
from broker.core.tenants.names import plain_name, split_name
from broker.ledger import Ledger, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.records import read_records
from broker.net.transport import Transport
from broker.rooms.members import Member, RoomRef
from broker.rooms.publishing import RoomPublisher
from protocol.activities.moderation import Hint
from protocol.codes import LeaveReason, MessageType, Role
from protocol.fields import FieldError
from protocol.frames import pack_body
from protocol.messages import AckResult, FirstResult, Post, Tick
from protocol.operations.hints import MAX_HINTS, HintRule, HintTarget
from protocol.payloads import MAX_DANMAKU_CHARS, check_payload

__all__ = ["KIND", "RoomHints", "hint_record", "hint_removal"]

log = structlog.get_logger("roomcast.hints")

KIND = "moderation.hint"
"""Kind of the records of rules, by tenant and id."""
_TEXTS = frozenset({MessageType.DANMAKU})


def hint_record(tenant: str, rule: HintRule, at_ms: int) -> RecordPut:
    """Return the record of a rule."""
    return RecordPut(KIND, tenant, rule.id, at_ms, pack_body(rule))


def hint_removal(tenant: str, id: str) -> RecordRemoved:
    """Return what removes the record of a rule."""
    return RecordRemoved(KIND, tenant, id)


def _read_rules(reader: Reader) -> list[tuple[str, HintRule]]:
    def rule_of(record: StoredRecord, body: Sequence[Any]) -> tuple[str, HintRule]:
        id, words, template, target, *more = body
        return record.subject, HintRule(id, words, template, HintTarget(target), *more)

    return list(read_records(reader, KIND, rule_of))


class _Bot:
    """The platform's bot: it posts and hears nothing."""

    transport: Transport
    """Never set: it is no member, so nothing is sent to it."""

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Ignore the results of its posts."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Ignore the result of a refused post."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        """Ignore the end of a room."""


class RoomHints:
    """Rules of all tenants. ``unix_ms``: trusted time. Counters ``hinted`` and ``replied`` only grow."""

    def __init__(self, clock: Callable[[], float], unix_ms: Callable[[], int]) -> None:
        self._clock = clock
        self._unix_ms = unix_ms
        self._configured: dict[str, dict[str, HintRule]] = {}
        self._put: dict[str, dict[str, HintRule]] = {}
        self._sets: dict[str, HintSet] = {}
        """Of the tenants that have rules."""
        self._cooldowns = HintCooldowns()
        self._bot = _Bot()
        self._bot_user = self._bot_name = ""
        self.changing = trio.Lock()
        """One rule is changed at a time."""
        self.hinted = 0
        """Hints to staff."""
        self.replied = 0
        """Replies of the bot."""

    def use(self, config: ModerationConfig) -> None:
        """Take the rules of the configuration in place of those before."""
        configured: dict[str, dict[str, HintRule]] = {}
        for each in config.hints:
            rule = HintRule(
                each.id, each.words, each.template, HintTarget[each.target.upper()], each.rooms, each.cooldown_s,
                each.hours, configured=True,
            )  # fmt: skip
            configured.setdefault(each.tenant or "", {})[each.id] = rule
        before, self._configured = self._configured, configured
        self._bot_user, self._bot_name = config.bot_user, config.bot_name
        for tenant in configured.keys() | before.keys():
            self._use_logged(tenant, self._put.get(tenant, {}))

    async def load(self, ledger: Ledger) -> None:
        """Read the rules that operations have put. At the start, and where another node has put some."""
        put: dict[str, dict[str, HintRule]] = {}
        for tenant, rule in await ledger.ask(_read_rules):
            put.setdefault(tenant, {})[rule.id] = rule
        for tenant in put.keys() | self._put.keys():
            self._use_logged(tenant, put.get(tenant, {}))

    def _use_logged(self, tenant: str, rules: dict[str, HintRule]) -> None:
        """Use rules that were checked before; of those that this version cannot use the log has why."""
        try:
            self._use(tenant, rules)
        except HintError as error:
            log.error("keyword hints cannot be used", tenant=tenant, why=str(error))

    @staticmethod
    def _build(configured: dict[str, HintRule], put: dict[str, HintRule]) -> HintSet:
        return HintSet([*(put | configured).values()])

    def _use(self, tenant: str, rules: dict[str, HintRule]) -> None:
        built = self._build(self._configured.get(tenant, {}), rules)
        self._put[tenant] = rules
        self._sets.pop(tenant, None)
        if built.rules:
            self._sets[tenant] = built

    def rules(self, tenant: str) -> list[HintRule]:
        """Return the rules of a tenant, by id."""
        found = self._put.get(tenant, {}) | self._configured.get(tenant, {})
        return [found[id] for id in sorted(found)]

    def check(self, tenant: str, rule: HintRule) -> None:
        """HintError where a rule cannot be put."""
        if rule.id in self._configured.get(tenant, {}):
            raise HintError("id", "is a rule of the configuration")
        rules = self._put.get(tenant, {}) | {rule.id: rule}
        if len(rules) > MAX_HINTS:
            raise HintError("id", f"is one of more than {MAX_HINTS} rules")
        self._build(self._configured.get(tenant, {}), rules)

    def put(self, tenant: str, rule: HintRule) -> None:
        """Add a rule that is durable, or replace one; `check` comes first."""
        self._use(tenant, self._put.get(tenant, {}) | {rule.id: rule})

    def has(self, tenant: str, id: str) -> bool:
        """Return whether operations have put a rule."""
        return id in self._put.get(tenant, {})

    def remove(self, tenant: str, id: str) -> None:
        """Remove a rule whose record is removed."""
        self._use(tenant, {each: rule for each, rule in self._put.get(tenant, {}).items() if each != id})

    # ---- messages

    def hear(
        self,
        room: str,
        publisher: RoomPublisher,
        post: Callable[[Member, int, Post, float], None],
        ticks: Sequence[Tick],
    ) -> None:
        """Search the danmaku that a tick shows in a room (qualified name). ``post``: that of the room."""  # fmt: skip
        tenant, name = split_name(room)
        rules = self._sets.get(tenant)
        if rules is None or not ticks:
            return
        now_ms, now = self._unix_ms(), self._clock()
        for entry in ticks[0].entries:
            if entry.type not in _TEXTS or plain_name(entry.user_id) == self._bot_user:
                continue
            for rule, word in rules.found(name, entry.payload[0], now_ms):
                if rule.target is HintTarget.AGENT or not self._cooldowns.try_begin(room, rule, now):
                    continue
                text = filled(rule.template, entry.name, word)
                if rule.target is HintTarget.STAFF:
                    self.hinted += 1
                    hint = Hint(rule.id, text, word, plain_name(entry.user_id), entry.name, entry.payload[0])
                    publisher.push_counter(("moderation", f"hint {rule.id}"), RoomEvent("moderation.hint", hint))
                else:
                    self._reply(post, text, now)

    def for_agents(self, tenant: str, topic: str, name: str, text: str) -> list[tuple[str, str, str]]:
        """Return the hints for agents of the service desk that a customer's message gives: rule, hint and word."""
        rules = self._sets.get(tenant)
        if rules is None:
            return []
        return [
            (rule.id, filled(rule.template, name, word), word)
            for rule, word in rules.found(topic, text, self._unix_ms())
            if rule.target is HintTarget.AGENT
        ]

    def _reply(self, post: Callable[[Member, int, Post, float], None], text: str, now: float) -> None:
        """Post a reply as the bot."""
        kind = MessageType.DANMAKU
        try:
            payload = check_payload(kind, (text[:MAX_DANMAKU_CHARS],))
        except FieldError:
            return
        self.replied += 1
        author = Member(self._bot, self._bot_user, self._bot_name, Role.APP, frozenset({kind}), 0)
        post(author, self.replied, Post(kind, "", payload), now)
