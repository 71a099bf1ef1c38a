"""Questions to the platform: asked over HTTP by tasks of their own, answered by a callback or to a caller that waits.

``ask.connect``: who is this; ``ask.join``: may this user enter; ``ask.message``: what becomes of this message;
``ask.app``: a viewer's call to the application. Rooms and sessions are synchronous: they start a question and go on.
How many are in flight, and what an answer says, `broker.core.webhooks.questions` decides. Each kind has its own
connections, so that a slow answer to one delays no other. A reload may change everything about a kind, and whether it
is asked about at all: questions under way end as they began.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Hashable, Mapping
from random import Random
from typing import Any, NamedTuple, TypeVar

import structlog
import trio

from broker.config.webhooks import (
    AppCallConfig,
    ConnectQuestionConfig,
    JoinQuestionConfig,
    MessageQuestionConfig,
    QuestionsConfig,
    WebhookConfig,
    read_webhook_keys,
)
from broker.core.structures.recent_keys import RecentKeys
from broker.core.webhooks.questions import (
    Answer,
    AnswerError,
    MessageAnswer,
    QuestionPool,
    QuestionRules,
    Start,
    app_answer,
    connect_answer,
    join_answer,
    message_answer,
)
from broker.webhooks.sender import WebhookSender, client_context
from protocol.codes import MessageType, Role

__all__ = ["Asker", "Case", "QuestionFiles", "Questions"]

log = structlog.get_logger("roomcast.questions")

A = TypeVar("A")
Settings = ConnectQuestionConfig | JoinQuestionConfig | MessageQuestionConfig | AppCallConfig

MAX_REMEMBERED = 200_000
"""Users in rooms that were allowed and may come back without a question, about 150 bytes each."""


class Case(NamedTuple):
    """What is asked about. ``who``: user or address, for its share; ``room``: "" = none; ``data``: JSON values."""

    who: Hashable
    tenant: str
    room: str
    data: Mapping[str, Any]
    role: Role | None = None


class QuestionFiles(NamedTuple):
    """A configuration of questions, and the sender of each kind that is asked about, with the secrets of its files."""

    config: QuestionsConfig
    senders: dict[str, WebhookSender]


class Asker:
    """Questions of one kind. It asks nothing before `use`."""

    def __init__(self, kind: str, settings: Settings, *, unix_ms: Callable[[], int], rng: Random) -> None:
        self.kind = kind
        self.is_active = False
        """Whether it has an endpoint now."""
        self.pool = QuestionPool(_rules_of(settings), rng)
        self._settings = settings
        self._sender: WebhookSender | None = None
        """The latest one, closed if it is not active."""
        self._unix_ms = unix_ms
        self._nursery: trio.Nursery | None = None
        self._is_paused = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be ready to ask until cancelled; then close the connections."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                if self._sender is not None:
                    await self._sender.aclose()

    def use(self, settings: Settings, sender: WebhookSender | None) -> None:
        """Ask by other settings from now on, None = not at all; questions under way end with the sender before."""
        before = self._sender
        self.is_active = sender is not None
        self._settings = settings
        self.pool.use_rules(_rules_of(settings))
        if sender is not None:
            self._sender = sender
        if self._nursery is not None and before is not None:
            self._nursery.start_soon(before.aclose)

    @property
    def deadline_ms(self) -> int:
        """Time for an answer."""
        return self._settings.deadline_ms

    @property
    def allows_on_failure(self) -> bool:
        """Whether a case is allowed that has no answer."""
        return not isinstance(self._settings, AppCallConfig) and self._settings.on_failure == "allow"

    def start(self, case: Case) -> Start:
        """Return whether `answer` is to be called for a case, or what becomes of it at once."""
        return self.pool.start(case.who, case.role, self._unix_ms())

    def ask(
        self,
        case: Case,
        read: Callable[[int, bytes], A],
        on_answer: Callable[[A | None], None],
    ) -> Start:
        """Decide about a case; where it is asked about, ``on_answer`` is called later: None = there was no answer.

        :param read: makes the answer of the status and body, or raises AnswerError.
        :param on_answer: is synchronous; its failure is logged and ends nothing.
        """
        if self._nursery is None:
            self.pool.results[Start.PAUSED.value] += 1
            return Start.PAUSED
        start = self.start(case)
        if start is Start.ASK:
            self._nursery.start_soon(self._deliver, case, read, on_answer)
        return start

    async def _deliver(
        self, case: Case, read: Callable[[int, bytes], A], on_answer: Callable[[A | None], None]
    ) -> None:
        answer = await self.answer(case, read)
        try:
            on_answer(answer)
        except Exception:
            log.exception("question failed", kind=self.kind)

    async def answer(self, case: Case, read: Callable[[int, bytes], A]) -> A | None:
        """Ask about a case that `start` has decided to ask about; return the answer, None where there is none."""
        is_ended = False
        assert self._sender is not None
        try:
            question_id = f"ask_{secrets.token_hex(12)}"
            reply = await self._sender.post(question_id, self._body(question_id, case), self.deadline_ms / 1000)
            answer: A | None = None
            failure = reply.detail
            if reply.failure is not None:
                result = reply.failure.value
            else:
                try:
                    answer = read(reply.status, reply.body)
                    result = _result_of(answer)
                except AnswerError as error:
                    result, failure = "invalid", str(error)
            is_ended = True
            self.pool.end(case.who, result, self._unix_ms(), is_failure=answer is None)
            self._report(failure)
            return answer
        finally:
            if not is_ended:
                self.pool.cancel(case.who)

    def _report(self, failure: str) -> None:
        """Log the change between an endpoint that answers and one that is left alone."""
        is_paused = self.pool.is_paused
        if is_paused and not self._is_paused:
            log.warning("questions paused: the endpoint fails", kind=self.kind, why=failure)
        elif self._is_paused and not is_paused:
            log.info("questions resumed", kind=self.kind)
        self._is_paused = is_paused

    def _body(self, question_id: str, case: Case) -> bytes:
        question = {
            "id": question_id,
            "type": f"ask.{self.kind}",
            "created_at_ms": self._unix_ms(),
            "tenant": case.tenant,
            **({"room": case.room} if case.room else {}),
            "data": {"deadline_ms": self.deadline_ms, **case.data},
        }
        return json.dumps(question, ensure_ascii=False, separators=(",", ":")).encode()


def _result_of(answer: object) -> str:
    if isinstance(answer, MessageAnswer):
        return answer.action.value
    if isinstance(answer, Answer):
        return "allow" if answer.is_allowed else "deny"
    return "answer"


class Questions:
    """All kinds of questions of one broker; a kind that is not configured is None."""

    def __init__(self, config: WebhookConfig, *, unix_ms: Callable[[], int], rng: Random) -> None:
        """FileError, ValueError or OSError where files that the configuration names cannot be used."""
        self._unix_ms = unix_ms
        self._askers = {
            kind: Asker(kind, settings, unix_ms=unix_ms, rng=rng) for kind, settings in _kinds_of(config.questions)
        }
        self._remember_s = 0.0
        self._allowed: RecentKeys[tuple[str, str, str]] | None = None
        """Tenant, room and user of JOINs that were allowed lately; None: none is remembered."""
        self.use(self.read(config))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be ready to ask until cancelled."""
        async with trio.open_nursery() as nursery:
            for asker in self._askers.values():
                await nursery.start(asker.run)
            task_status.started()

    def read(self, config: WebhookConfig) -> QuestionFiles:
        """Return a configuration with what its files hold, for `use`; raises as the constructor."""
        asked = {kind: settings for kind, settings in _kinds_of(config.questions) if settings.endpoint is not None}
        context = client_context(config.ca_file) if asked else None
        senders = {}
        for kind, settings in asked.items():
            assert context is not None
            assert settings.endpoint is not None
            endpoint = config.endpoint(settings.endpoint)
            keys = read_webhook_keys(endpoint.secret_file)
            senders[kind] = WebhookSender(endpoint, config, keys, context, self._unix_ms, settings.max_in_flight)
        return QuestionFiles(config.questions, senders)

    def use(self, files: QuestionFiles) -> None:
        """Ask as another configuration says from now on, with the secrets of now."""
        for kind, settings in _kinds_of(files.config):
            self._askers[kind].use(settings, files.senders.get(kind))
        remember_s = files.config.join.remember_s
        if remember_s != self._remember_s:
            self._remember_s = remember_s
            self._allowed = RecentKeys(remember_s, MAX_REMEMBERED) if remember_s else None

    @property
    def connect(self) -> Asker | None:
        """Who is this; None: it is not asked now."""
        return self._active("connect")

    @property
    def join(self) -> Asker | None:
        """May this user enter this room; None: it is not asked now."""
        return self._active("join")

    @property
    def message(self) -> Asker | None:
        """What becomes of this message; None: it is not asked now."""
        return self._active("message")

    @property
    def app(self) -> Asker | None:
        """Calls of viewers; None: there are none now."""
        return self._active("app")

    def _active(self, kind: str) -> Asker | None:
        asker = self._askers[kind]
        return asker if asker.is_active else None

    @property
    def results(self) -> dict[str, int]:
        """Cases by kind and what became of them, as ``message.block``; counts only grow."""
        return {
            f"{each.kind}.{name}": count for each in self._askers.values() for name, count in each.pool.results.items()
        }

    @property
    def in_flight(self) -> int:
        """Questions without an answer yet."""
        return sum(each.pool.in_flight for each in self._askers.values())

    def ask_connect(self, token: str | None, address: str, on_answer: Callable[[Answer | None], None]) -> Start:
        """Ask who a connection is that presents ``token``."""
        assert self.connect is not None, "the caller has seen that it is configured"
        case = Case(address, "", "", {"token": token, "address": address})
        return self.connect.ask(case, connect_answer, on_answer)

    def ask_join(
        self, tenant: str, room: str, user: str, name: str, role: Role, on_answer: Callable[[Answer | None], None]
    ) -> Start:
        """Ask whether a user may enter a room; EXEMPT where that is not asked now. Names are plain."""
        join = self.join
        if join is None:
            return Start.EXEMPT
        allowed, key = self._allowed, (tenant, room, user)
        if allowed is not None and allowed.is_recent(key, self._unix_ms() / 1000):
            return Start.EXEMPT

        def on_join(answer: Answer | None) -> None:
            if allowed is not None and answer is not None and answer.is_allowed:
                allowed.mark(key, self._unix_ms() / 1000)
            on_answer(answer)

        data = {"user": user, "name": name, "role": role.name.lower()}
        return join.ask(Case((tenant, user), tenant, room, data, role), join_answer, on_join)

    def ask_message(
        self,
        tenant: str,
        room: str,
        user: str,
        name: str,
        role: Role,
        kind: int,
        payload: Any,
        on_answer: Callable[[MessageAnswer | None], None],
    ) -> Start:
        """Ask what becomes of a message; EXEMPT where that is not asked now. Names are plain. Any: a payload that is
        valid on the wire."""
        message = self.message
        if message is None:
            return Start.EXEMPT
        data = {"user": user, "name": name, "role": role.name.lower(), "message_type": kind, "payload": payload}
        if kind == MessageType.DANMAKU:
            data["text"] = payload[0]
        case = Case((tenant, user), tenant, room, data, role)
        return message.ask(case, lambda status, body: message_answer(status, body, kind, payload), on_answer)

    async def call_app(self, case: Case) -> Any:
        """Return what the application answers to a case that ``app.start`` has decided to ask about; in a tuple, None
        where it does not answer."""
        assert self.app is not None, "the caller has seen that it is configured"
        return await self.app.answer(case, lambda status, body: (app_answer(status, body),))


def _kinds_of(config: QuestionsConfig) -> list[tuple[str, Settings]]:
    return [(kind, getattr(config, kind)) for kind in config.__struct_fields__]


def _rules_of(settings: Settings) -> QuestionRules:
    exempt, sample = frozenset[Role](), 1.0
    if isinstance(settings, JoinQuestionConfig | MessageQuestionConfig):
        exempt = frozenset({Role.APP, *(Role[name.upper()] for name in settings.exempt_roles)})
    if isinstance(settings, MessageQuestionConfig):
        sample = settings.sample
    return QuestionRules(settings.max_in_flight, exempt, sample)
