"""Handlers of the operations on the service desk."""

from __future__ import annotations

import hashlib
from typing import Any

from broker.core.tenants.names import plain_name, qualify
from broker.core.users.conversations import DESK_PREFIX, Conversation
from broker.core.users.desk_hours import OfficeHours
from broker.core.users.desk_records import DeskContext, DeskConversation, DeskState
from broker.core.users.desk_statistics import TopicFigures, topic_figures
from broker.core.users.service_desk import Stale
from broker.ledger import Key, make_key
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import (
    actor,
    check_content,
    check_mute,
    find_conversation,
    fitting,
    screened,
)
from broker.operations.desk_rights import find_desk, find_row, holder_row, repeated, sent, stale, written
from broker.operations.desk_streams import interrupt
from broker.operations.kept import read, required
from broker.operations.parts import Handler, Parts
from broker.users.desk_rows import StoredAgent, desk_view
from broker.users.tenant_desk import Desk
from protocol.activities.conversations import ConversationMessage
from protocol.activities.desk import AgentState, DeskView
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.operations.conversations import SentMessage
from protocol.operations.desk import (
    MAX_DESK_HINTS,
    AgentView,
    AgentViews,
    AnswerDesk,
    AskDesk,
    ConfigureDesk,
    DeskDetails,
    DeskHint,
    DeskSettings,
    DeskStatistics,
    DeskTopic,
    DeskViews,
    GetDesk,
    GetDeskSettings,
    GetDeskStatistics,
    ListAgents,
    ListDesk,
    ListedDesk,
    OpenDesk,
    OpenedDesk,
    RateDesk,
    ResolveDesk,
    SetAgent,
    SetAgentState,
    TagDesk,
    TakeOverDesk,
    TopicStatistics,
    TransferDesk,
)
from protocol.operations.desk_questions import AskedQuestion, AskedQuestions, ListQuestions

__all__ = ["HANDLERS"]


def _check_agent(desk: Desk, caller: Caller) -> None:
    if not caller.is_backend and caller.id not in desk.agents:
        raise OperationError(ErrorCode.NOT_ALLOWED, "is for agents of the desk", "operation")


def _topic(desk: Desk, name: str) -> DeskTopic:
    found = desk.topics.get(name)
    if found is None:
        raise OperationError(ErrorCode.BAD_FIELD, "must be a topic of the desk", "topic")
    return found


def _seen(desk: Desk, row: DeskConversation, caller: Caller) -> DeskView:
    return desk_view(desk.core, row, for_customer=not caller.is_backend and caller.id == row.customer)


# ---- settings, agents


async def _configure(parts: Parts, caller: Caller, request: ConfigureDesk) -> DeskSettings:
    desks, names = required(parts.desks), [topic.name for topic in request.topics]
    if not names or len(set(names)) != len(names):
        raise OperationError(ErrorCode.BAD_FIELD, "must be at least one, each with a name of its own", "topics")
    hours = OfficeHours(tuple((window.begin, window.end) for window in request.hours), request.utc_offset_minutes)
    try:
        hours.check()
    except ValueError as error:
        raise OperationError(ErrorCode.BAD_FIELD, str(error), "hours") from None
    settings = DeskSettings(*request)
    await written(desks.configure(caller.tenant, settings))
    return settings


def _settings(parts: Parts, caller: Caller, request: GetDeskSettings) -> DeskSettings:
    desk = find_desk(parts, caller)
    _check_agent(desk, caller)
    return desk.settings


async def _set_agent(parts: Parts, caller: Caller, request: SetAgent) -> AgentView:
    desks, desk = required(parts.desks), find_desk(parts, caller)
    user = plain_name(request.user)
    before = desk.agents.get(user)
    if request.removed:
        await written(desks.remove_agent(desk, user))
        return AgentView(user, request.name, AgentState.OFFLINE, False, 0, 0, (), False)
    agent = StoredAgent(
        qualify(caller.tenant, user), request.name, request.skills, request.capacity, request.supervisor,
        AgentState.OFFLINE if before is None else before.state,
    )  # fmt: skip
    await written(desks.set_agent(desk, agent))
    return desk.agent_view(user)


def _agents(parts: Parts, caller: Caller, request: ListAgents) -> AgentViews:
    desk = find_desk(parts, caller)
    _check_agent(desk, caller)
    names = sorted(name for name in desk.agents if name > (request.cursor or ""))
    page = names[: request.limit]
    return AgentViews(tuple(map(desk.agent_view, page)), page[-1] if len(names) > len(page) else None)


async def _set_state(parts: Parts, caller: Caller, request: SetAgentState) -> AgentView:
    desk = find_desk(parts, caller)
    _check_agent(desk, caller)
    await written(required(parts.desks).set_agent(desk, desk.agents[caller.id]._replace(state=request.state)))
    return desk.agent_view(caller.id)


# ---- customers


def _content(parts: Parts, caller: Caller, request: Any) -> Any:
    """Return the request (Any: of each operation that sends a message) with what is to be masked masked.

    OperationError MUTED, BLOCKED, RATE_LIMITED. What others would not be shown reaches the desk: its agents judge.
    """
    if not caller.is_backend:
        check_mute(parts, caller)
        request, _ = screened(parts, caller, request)
    parts.charge_messages(caller, 1)
    return request


def _message(user: str, name: str, request: Any) -> ConversationMessage:
    reply_to = getattr(request, "reply_to", 0)
    return ConversationMessage(0, user, name, 0, request.text or "", request.media, reply_to)


def _key(operation: str, caller: Caller, request: Any) -> Key:
    return make_key(operation, caller.account, caller.key, content=pack_body(tuple(request)))


def _too_long(error: ValueError) -> OperationError:
    return OperationError(ErrorCode.PAYLOAD_TOO_LARGE, f"{error}", "text")


async def _open(parts: Parts, caller: Caller, request: OpenDesk) -> OpenedDesk:
    desks, desk = required(parts.desks), find_desk(parts, caller)
    user, topic = actor(caller, request.as_user), _topic(desk, request.topic)
    key = _key("desk.open", caller, request)
    call = f"{len(caller.account)} {caller.account}{caller.key}"
    id = f"{DESK_PREFIX}{hashlib.sha256(call.encode()).hexdigest()[:32]}"
    if desk.core.find(id) is not None:
        return await _opened_before(parts, caller, desk, id, key)
    talk = required(parts.conversations)
    wait_s = 0.0 if caller.is_backend else talk.desk_opening_wait_s(caller.tenant, caller.address, parts.clock())
    if wait_s:
        rule = "too many new conversations from your address"
        raise OperationError(ErrorCode.RATE_LIMITED, rule, "", max(1, round(wait_s * 1000)))
    request = _content(parts, caller, request)
    name = "" if caller.is_backend else caller.name
    context = DeskContext(request.order, request.product, request.live_room, caller.is_backend)

    def decide(now_ms: int) -> DeskConversation:
        if desk.core.find(id) is not None:
            raise Stale
        return desk.core.start(
            id, user, now_ms, skills=topic.skills, priority=topic.priority, bot=topic.bot, topic=topic.name, name=name,
            context=context,
        )  # fmt: skip

    try:
        result = await written(desks.open(desk, id, _message(user, name, request), key, decide))
    except Stale:
        return await _opened_before(parts, caller, desk, id, key)
    except ValueError as error:
        raise _too_long(error) from None
    is_repeated = sent(1, result).repeated
    if not is_repeated:
        desk.questions.add(topic.name, user, request.text)
    return OpenedDesk(_seen(desk, _opened(desk, id), caller), 1, is_repeated)


def _opened(desk: Desk, id: str) -> DeskConversation:
    row = desk.core.find(id)
    if row is None:
        raise OperationError(ErrorCode.UNKNOWN_CONVERSATION, "was opened with this key, and is closed", "key")
    return row


async def _opened_before(parts: Parts, caller: Caller, desk: Desk, id: str, key: Key) -> OpenedDesk:
    first = await read(required(parts.desks).first_result(key))
    if first is not None and first.fingerprint != key.fingerprint:
        raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    return OpenedDesk(_seen(desk, _opened(desk, id), caller), 1, True)


async def _say(
    parts: Parts,
    caller: Caller,
    desk: Desk,
    user: str,
    request: Any,
    key: Key,
    decide: Any,
    *,
    is_of_queue: bool = False,
) -> SentMessage:
    """Send a message of a customer, a bot or an agent. Stale: it was not sent, now or before."""
    desks = required(parts.desks)
    conversation = find_conversation(parts, caller, request.conversation)
    check_content(conversation, request)
    agent = desk.agents.get(user)
    name = (agent.name if agent is not None else "") or ("" if caller.is_backend else caller.name)
    message = _message(user, name, _content(parts, caller, request))
    try:
        offset, result = await written(
            desks.say(desk, request.conversation, message, key, decide, is_of_queue=is_of_queue)
        )
    except Stale:
        # A repetition of what was sent while the caller held it has the first answer.
        first = await read(desks.first_result(key))
        if first is None:
            raise
        result, offset = repeated(key, first), 0
    except ValueError as error:
        raise _too_long(error) from None
    return sent(offset, result)


async def _ask(parts: Parts, caller: Caller, request: AskDesk) -> SentMessage:
    desk, user = find_desk(parts, caller), actor(caller, request.as_user)
    row = find_row(parts, caller, desk, request.conversation, user)
    if row.customer != user:
        raise OperationError(ErrorCode.NOT_ALLOWED, "must be a conversation of your own", "conversation")
    key = _key("desk.ask", caller, request)
    await interrupt(parts, desk, row.id)
    while True:
        reopens = row.state is DeskState.RESOLVED

        def decide(now_ms: int, reopens: bool = reopens, topic: str = row.topic) -> DeskConversation:
            now = desk.core.find(request.conversation)
            if now is not None and (now.state is DeskState.RESOLVED) is not reopens:
                raise _Changed
            return desk.core.ask(request.conversation, now_ms, desk.bot_of(topic))

        try:
            answer = await _say(parts, caller, desk, user, request, key, decide, is_of_queue=reopens)
        except _Changed:
            row = find_row(parts, caller, desk, request.conversation, user)
        except Stale:
            raise stale("conversation", "is resolved for too long: open a new one") from None
        else:
            if request.text is not None and not answer.repeated:
                desk.questions.add(row.topic, user, request.text)
            return answer


class _Changed(Exception):
    """A conversation was resolved, or opened again, while its turn was waited for."""


async def _rate(parts: Parts, caller: Caller, request: RateDesk) -> DeskView:
    desk = find_desk(parts, caller)
    find_row(parts, caller, desk, request.conversation, caller.id)
    try:
        row = await written(
            required(parts.desks).change(
                desk,
                request.conversation,
                lambda now_ms: desk.core.rate(request.conversation, caller.id, request.rating),
            )
        )
    except Stale:
        raise stale("conversation", "is not resolved, or not of yours") from None
    return _seen(desk, row, caller)


# ---- bots and agents


async def _answer(parts: Parts, caller: Caller, request: AnswerDesk) -> SentMessage:
    desk, user = find_desk(parts, caller), actor(caller, request.as_user)
    id = request.conversation
    key = _key("desk.answer", caller, request)
    holder_row(parts, caller, desk, id, user)
    try:
        return await _say(
            parts, caller, desk, user, request, key,
            lambda now_ms: desk.core.answer(id, user, request.epoch, now_ms),
        )  # fmt: skip
    except Stale:
        raise stale() from None


async def _transfer(parts: Parts, caller: Caller, request: TransferDesk) -> DeskView:
    desk, user = find_desk(parts, caller), actor(caller, request.as_user)
    id, epoch = request.conversation, request.epoch
    to = None if request.user is None else plain_name(request.user)
    holder_row(parts, caller, desk, id, user)
    topic = None if request.topic is None else _topic(desk, request.topic)

    def decide(now_ms: int) -> DeskConversation:
        if to is None:
            skills, name = (None, None) if topic is None else (topic.skills, topic.name)
            return desk.core.hand_over(id, user, epoch, now_ms, skills, name)
        row = desk.core.find(id)
        try:
            after = desk.core.transfer(id, user, epoch, to, now_ms)
        except Stale:
            if row is None or (row.agent, row.epoch) != (user, epoch):
                raise
            raise stale("user", "is no other agent who is online with room") from None
        return after if topic is None else after._replace(topic=topic.name, skills=tuple(sorted(topic.skills)))

    try:
        row = await written(required(parts.desks).change(desk, id, decide, is_of_queue=True))
    except Stale:
        raise stale() from None
    return _seen(desk, row, caller)


async def _take_over(parts: Parts, caller: Caller, request: TakeOverDesk) -> DeskView:
    desk, id = find_desk(parts, caller), request.conversation
    if not desk.is_supervisor(caller.id):
        raise OperationError(ErrorCode.NOT_ALLOWED, "is for supervisors of the desk", "operation")
    find_row(parts, caller, desk, id, caller.id)
    try:
        row = await written(
            required(parts.desks).change(
                desk, id, lambda now_ms: desk.core.take_over(id, caller.id, now_ms), is_of_queue=True
            )
        )
    except Stale:
        raise stale("conversation", "is yours, or resolved; or you are not online") from None
    return _seen(desk, row, caller)


async def _resolve(parts: Parts, caller: Caller, request: ResolveDesk) -> DeskView:
    desk, user = find_desk(parts, caller), actor(caller, request.as_user)
    id = request.conversation
    holder_row(parts, caller, desk, id, user)
    conversation = find_conversation(parts, caller, id)

    def decide(now_ms: int) -> DeskConversation:
        after = desk.core.resolve(id, user, request.epoch, now_ms)
        if conversation.next > request.read + 1:
            raise stale("read", "is before the last message")
        return after

    try:
        row = await written(required(parts.desks).change(desk, id, decide))
    except Stale:
        raise stale() from None
    return _seen(desk, row, caller)


async def _tag(parts: Parts, caller: Caller, request: TagDesk) -> DeskView:
    desk, id = find_desk(parts, caller), request.conversation
    _check_agent(desk, caller)
    find_row(parts, caller, desk, id, None)
    try:
        row = await written(required(parts.desks).change(desk, id, lambda now_ms: desk.core.tag(id, request.tags)))
    except Stale:
        raise stale("conversation", "is closed") from None
    return _seen(desk, row, caller)


# ---- reads


def _list(parts: Parts, caller: Caller, request: ListDesk) -> DeskViews:
    desk = find_desk(parts, caller)
    if request.which is ListedDesk.MINE:
        if caller.is_backend:
            raise OperationError(ErrorCode.BAD_FIELD, "must be queued or all, of a backend", "which")
        rows = {row.id: row for row in (*desk.core.of_customer(caller.id), *desk.held_by(caller.id))}.values()
        found = list(rows)
    else:
        _check_agent(desk, caller)
        is_all = request.which is ListedDesk.ALL
        if is_all and not caller.is_backend and not desk.is_supervisor(caller.id):
            raise OperationError(ErrorCode.NOT_ALLOWED, "is for supervisors of the desk", "which")
        found = list(desk.core) if is_all else desk.core.queued()
    found.sort(key=_place)
    if request.cursor is not None:
        at_ms, _, id = request.cursor.partition(" ")
        if not at_ms.isdecimal() or len(at_ms) > 16:
            raise OperationError(ErrorCode.BAD_FIELD, "must be the next of an answer", "cursor")
        found = [row for row in found if _place(row) > (int(at_ms), id)]
    page = found[: request.limit]
    following = f"{page[-1].started_at_ms} {page[-1].id}" if len(found) > len(page) else None
    return DeskViews(tuple(_seen(desk, row, caller) for row in page), following)


def _place(row: DeskConversation) -> tuple[int, str]:
    return row.started_at_ms, row.id


async def _get(parts: Parts, caller: Caller, request: GetDesk) -> DeskDetails:
    desk = find_desk(parts, caller)
    row = find_row(parts, caller, desk, request.conversation, None if caller.is_backend else caller.id)
    messages: list[ConversationMessage] = []
    if request.messages:
        conversation: Conversation = find_conversation(parts, caller, row.id)
        history = required(parts.conversations).history(conversation, None, 0, conversation.next, request.messages)
        messages = fitting((await read(history))[0][::-1])[::-1]
    hints = []
    if caller.is_backend or caller.id in desk.agents:
        found = parts.hub.hints.for_agents
        for each in messages:
            if each.user == row.customer and each.text:
                hints += [DeskHint(each.offset, *hint) for hint in found(desk.tenant, row.topic, each.name, each.text)]
    return DeskDetails(_seen(desk, row, caller), tuple(messages), tuple(hints[-MAX_DESK_HINTS:]))


def _statistics(parts: Parts, caller: Caller, request: GetDeskStatistics) -> DeskStatistics:
    desk = find_desk(parts, caller)
    _check_agent(desk, caller)
    core = desk.core
    return DeskStatistics(
        core.count(DeskState.QUEUED), core.count(DeskState.ASSIGNED), core.count(DeskState.BOT),
        core.count(DeskState.RESOLVED), sum(agent.is_available for agent in core.agents.values()),
        tuple(map(_of_topic, topic_figures(core, desk.topics))),
    )  # fmt: skip


def _of_topic(figures: TopicFigures) -> TopicStatistics:
    return TopicStatistics(
        *figures[:6], len(figures.ratings), figures.rating_hundredths, figures.first_response_ms(50),
        figures.first_response_ms(95),
    )  # fmt: skip


def _questions(parts: Parts, caller: Caller, request: ListQuestions) -> AskedQuestions:
    desk = find_desk(parts, caller)
    _check_agent(desk, caller)
    found = desk.questions.most_asked(request.topic, request.limit)
    return AskedQuestions(
        tuple(AskedQuestion(each.topic, each.text, each.times, len(each.customers)) for each in found)
    )


HANDLERS: dict[str, Handler] = {
    "desk.configure": _configure,
    "desk.settings": _settings,
    "desk.set_agent": _set_agent,
    "desk.agents": _agents,
    "desk.set_state": _set_state,
    "desk.open": _open,
    "desk.ask": _ask,
    "desk.answer": _answer,
    "desk.list": _list,
    "desk.get": _get,
    "desk.transfer": _transfer,
    "desk.take_over": _take_over,
    "desk.resolve": _resolve,
    "desk.rate": _rate,
    "desk.tag": _tag,
    "desk.statistics": _statistics,
    "desk.questions": _questions,
}
