"""Handlers of the operations on conversations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from broker.core.moderation.words import WordAction, masked
from broker.core.tenants.names import plain_name, qualify
from broker.core.users.conversations import DESK_PREFIX, PAIR_MARK, Conversation, TooMany
from broker.ledger import Committed, LedgerResult, Repeated, SubmitResult, make_key
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.deferred import Deferred
from broker.operations.kept import later, read, required
from broker.operations.parts import Handler, Parts
from broker.operations.rights import muted
from broker.users.conversations import RECALL_MS, Conversations, first_offset
from protocol.activities.conversations import ConversationMessage
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.operations.conversations import (
    BlockedUser,
    BlockedUsers,
    BlockUser,
    ChangedMembers,
    ChangeMembers,
    ConversationHistory,
    ConversationView,
    ConversationViews,
    CreateConversation,
    CreatedConversation,
    GetConversation,
    ListBlocked,
    ListConversationMembers,
    ListConversations,
    MemberPosition,
    MemberPositions,
    OpenConversation,
    OwnPosition,
    ReadHistory,
    RecalledMessage,
    RecallMessage,
    ReportPosition,
    SendMessage,
    SentMessage,
    ShowTyping,
    TypingShown,
)

__all__ = [
    "HANDLERS", "actor", "check_content", "check_mute", "find_conversation", "find_own", "fitting", "screened",
    "sent_answer", "too_many",
]  # fmt: skip

Message = TypeVar("Message", bound=Any)
"""Request of an operation that sends a message, with its text (Any: each has its record)."""

MAX_PAGE_BYTES = 40 * 1024
"""Messages of one page: an answer to a CALL has at most 64 KiB."""


def _service(parts: Parts) -> Conversations:
    return required(parts.conversations)


def find_conversation(parts: Parts, caller: Caller, id: str) -> Conversation:
    """Return a conversation by the id that the caller's tenant knows; OperationError UNKNOWN_CONVERSATION."""
    found = _service(parts).table.find(qualify(caller.tenant, id))
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_CONVERSATION, "is not known", "conversation")
    return found


def actor(caller: Caller, as_user: str | None) -> str:
    """Return the user (plain id) for whom a call is: the caller, or, of a backend, ``as_user``. OperationError."""
    if caller.is_backend != (as_user is not None):
        rule = "is required of a backend" if caller.is_backend else "is for backends"
        raise OperationError(ErrorCode.BAD_FIELD, rule, "as_user")
    return caller.id if as_user is None else plain_name(as_user)


def find_own(parts: Parts, caller: Caller, id: str, user: str | None = None) -> tuple[Conversation, str]:
    """Return a conversation, by the id that its tenant knows, and the member (plain id) for whom a call is.

    That is the caller, or, of a backend, ``user``. OperationError UNKNOWN_CONVERSATION also where it is no member: a
    user does not learn of the conversations of others.
    """
    name = actor(caller, user)
    found = find_conversation(parts, caller, id)
    if name not in found.members:
        raise OperationError(ErrorCode.UNKNOWN_CONVERSATION, "is not known", "conversation")
    return found, name


def too_many(error: TooMany) -> OperationError:
    """Return the refusal of what exceeds a bound."""
    return OperationError(ErrorCode.TOO_MANY_MEMBERS, f"too many {error}")


async def _written(start: Callable[[Callable[[LedgerResult], None]], SubmitResult | None]) -> None:
    """Wait until what ``start`` submits is durable; it returns None where there is nothing to write. OperationError."""
    pending = PendingResult[LedgerResult]()
    try:
        submitted = start(pending.set)
    except TooMany as error:
        raise too_many(error) from None
    if submitted is None:
        return
    if submitted is not SubmitResult.QUEUED or not isinstance(await pending.wait(), Committed):
        raise later()


def _view(conversation: Conversation, user: str) -> ConversationView:
    member = conversation.members[user]
    return ConversationView(
        plain_name(conversation.id), conversation.title, conversation.other(user), len(conversation.members),
        conversation.last, member.joined, member.position.delivered, member.position.read, member.unread,
        conversation.last_at_ms, *(conversation.preview if conversation.last > member.joined else ("", "")),
    )  # fmt: skip


async def _open(parts: Parts, caller: Caller, request: OpenConversation) -> ConversationView:
    service, user = _service(parts), caller.user
    if request.user == user:
        raise OperationError(ErrorCode.BAD_FIELD, "must be another user", "user")
    wait_s = service.opening_wait_s(user, request.user, caller.address, parts.clock())
    if wait_s:
        rule = "has had too many new conversations from your address"
        raise OperationError(ErrorCode.RATE_LIMITED, rule, "user", max(1, round(wait_s * 1000)))
    pending = PendingResult[Conversation | None]()
    try:
        submitted = service.open_pair(user, request.user, pending.set)
    except TooMany as error:
        raise too_many(error) from None
    if submitted not in (None, SubmitResult.QUEUED):
        raise later()
    found = await pending.wait()
    if found is None:
        raise later()
    return _view(found, caller.id)


def _send(parts: Parts, caller: Caller, request: SendMessage) -> SentMessage | Deferred:
    conversation, user = find_own(parts, caller, request.conversation, request.as_user)
    service = _service(parts)
    if plain_name(conversation.id).startswith(DESK_PREFIX):
        rule = "is of the service desk: its customer writes by desk.ask, who holds it by desk.answer"
        raise OperationError(ErrorCode.OUT_OF_STATE, rule, "conversation")
    check_content(conversation, request)
    if not conversation.members.keys() >= set(request.mentions):
        raise OperationError(ErrorCode.BAD_FIELD, "must be members", "mentions")
    other = conversation.other(user)
    if other and service.table.blocks(qualify(caller.tenant, other), user):
        raise OperationError(ErrorCode.NOT_ALLOWED, "is not possible", "conversation")
    is_shadowed = False
    content = pack_body(tuple(request))  # before words are masked: the lists may have changed when it is sent again
    if not caller.is_backend:
        is_shadowed = check_mute(parts, caller)
        request, is_hidden = screened(parts, caller, request)
        is_shadowed |= is_hidden
        wait_s = service.group_wait_s(conversation, parts.clock())
        if wait_s:
            rule = "of the group: too many messages"
            raise OperationError(ErrorCode.RATE_LIMITED, rule, "conversation", max(1, round(wait_s * 1000)))
    parts.charge_messages(caller, 1)
    key = make_key("conversations.send", caller.account, caller.key, content=content)
    message = ConversationMessage(
        0, user, "" if caller.is_backend else caller.name, 0, request.text or "", request.media, request.reply_to,
        request.mentions,
    )  # fmt: skip
    deferred = Deferred()

    def on_done(result: LedgerResult) -> None:
        deferred.set(sent_answer(offset, result))

    offset = conversation.next
    try:
        submitted = service.send(conversation, message, on_done, key, is_shadowed=is_shadowed)
    except ValueError:
        raise OperationError(ErrorCode.PAYLOAD_TOO_LARGE, "is above 4 KiB with its media", "text") from None
    if submitted is not SubmitResult.QUEUED:
        raise later()
    if isinstance(deferred.answer, OperationError):
        raise deferred.answer
    return deferred.answer or deferred


def check_content(conversation: Conversation, request: Message) -> None:
    """Raise OperationError BAD_FIELD where a message has no content, or answers none of its conversation."""
    if request.text is None and request.media is None:
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or media", "text")
    if request.reply_to >= conversation.next:
        raise OperationError(ErrorCode.BAD_FIELD, "must be the offset of a message", "reply_to")


def sent_answer(offset: int, result: LedgerResult) -> SentMessage | OperationError:
    """Return the answer to a call that has sent a message at an offset, or its refusal."""
    if isinstance(result, Committed):
        return SentMessage(offset)
    if not isinstance(result, Repeated):
        return later()
    if result.reused:
        return OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    return SentMessage(first_offset(result), True)


def check_mute(parts: Parts, caller: Caller) -> bool:
    """Return whether the caller is shadow-muted everywhere; OperationError MUTED where it is muted everywhere."""
    sanctions = parts.hub.sanctions
    if not sanctions.mutes:
        return False
    now_ms = parts.hub.trusted.continued_ms()
    role = max(caller.roles, default=Role.VIEWER)
    mute = sanctions.find(SanctionKind.MUTE, "", caller.user, role, now_ms)
    if mute is None or mute.is_shadow:
        return mute is not None
    raise muted(mute, now_ms)


def screened(parts: Parts, caller: Caller, request: Message) -> tuple[Message, bool]:
    """Return a message with what is to be masked masked, and whether its sender alone sees it. OperationError BLOCKED
    where it is refused.

    The lists that hold in every room of the tenant hold here. There is no queue of review for what is private: a
    message that would be held is refused.
    """
    screens = parts.hub.screens
    if request.text is None or caller.roles & screens.exempt:
        return request, False
    screen = screens.of_names(caller.tenant)
    verdict = None if screen is None else screen.judge(request.text)
    if verdict is None:
        return request, False
    screens.count(verdict)
    if verdict.action > WordAction.SHADOW:
        raise OperationError(ErrorCode.BLOCKED, "is refused by the rules of the platform", "text")
    text = masked(request.text, verdict.findings)
    return request._replace(text=text), verdict.action is WordAction.SHADOW


async def _report_position(parts: Parts, caller: Caller, request: ReportPosition) -> OwnPosition:
    conversation, user = find_own(parts, caller, request.conversation)
    await _written(
        lambda on_done: _service(parts).report_position(conversation, user, request.delivered, request.read, on_done)
    )
    member = conversation.members.get(user)
    if member is None:
        raise OperationError(ErrorCode.UNKNOWN_CONVERSATION, "is not known", "conversation")
    return OwnPosition(*member.position, member.unread)


async def _recall(parts: Parts, caller: Caller, request: RecallMessage) -> RecalledMessage:
    if caller.is_backend:
        conversation, user = find_conversation(parts, caller, request.conversation), ""
    else:
        conversation, user = find_own(parts, caller, request.conversation)
    offset, service = request.offset, _service(parts)
    messages, _ = await read(service.history(conversation, user or None, offset - 1, offset + 1, 1))
    if not messages:
        raise OperationError(ErrorCode.BAD_FIELD, "must be the offset of a message that is kept", "offset")
    (message,) = messages
    if user and message.user != user:
        raise OperationError(ErrorCode.NOT_ALLOWED, "must be a message of your own", "offset")
    if message.recalled:
        return RecalledMessage(offset)
    if user and not 0 <= parts.unix_ms() - message.at_ms <= RECALL_MS:
        raise OperationError(ErrorCode.EXPIRED, f"must be at most {RECALL_MS // 1000} s old", "offset")
    copies = await read(service.copies(conversation, message))
    await _written(lambda on_done: service.recall(conversation, message, user, copies, on_done))
    return RecalledMessage(offset)


def _show_typing(parts: Parts, caller: Caller, request: ShowTyping) -> TypingShown:
    conversation, user = find_own(parts, caller, request.conversation)
    service = _service(parts)
    if not _is_muted(parts, caller):
        service.show_typing(conversation, user)
    return TypingShown(service.typing_members(conversation))


def _is_muted(parts: Parts, caller: Caller) -> bool:
    try:
        return check_mute(parts, caller)
    except OperationError:
        return True


async def _history(parts: Parts, caller: Caller, request: ReadHistory) -> ConversationHistory:
    user: str | None = None
    joined = 0
    if caller.is_backend:
        conversation = find_conversation(parts, caller, request.conversation)
    else:
        conversation, user = find_own(parts, caller, request.conversation)
        joined = conversation.members[user].joined
    after = max(request.after, joined)
    items, more = await read(_service(parts).history(conversation, user, after, request.before, request.limit))
    page = fitting(items[::-1])[::-1] if request.before else fitting(items)
    return ConversationHistory(tuple(page), more or len(page) < len(items))


def fitting(messages: list[ConversationMessage]) -> list[ConversationMessage]:
    """Return the first messages that fit one answer, at least one."""
    nbytes = 0
    for number, message in enumerate(messages):
        nbytes += len(pack_body(tuple(message)))
        if nbytes > MAX_PAGE_BYTES and number:
            return messages[:number]
    return messages


def _list(parts: Parts, caller: Caller, request: ListConversations) -> ConversationViews:
    found = _service(parts).table.of_user(caller.user)
    start = 0
    if request.cursor is not None:
        at_ms, _, id = request.cursor.partition(" ")
        if not at_ms.isdecimal() or len(at_ms) > 16:
            raise OperationError(ErrorCode.BAD_FIELD, "must be the next of an answer", "cursor")
        last = -int(at_ms), qualify(caller.tenant, id)
        start = sum((-each.last_at_ms, each.id) <= last for each in found)
    page = found[start : start + request.limit]
    more = len(found) > start + len(page)
    following = f"{page[-1].last_at_ms} {plain_name(page[-1].id)}" if more and page else None
    return ConversationViews(tuple(_view(each, caller.id) for each in page), following)


def _get(parts: Parts, caller: Caller, request: GetConversation) -> ConversationView:
    return _view(*find_own(parts, caller, request.conversation))


async def _block(parts: Parts, caller: Caller, request: BlockUser) -> BlockedUser:
    service, user = _service(parts), caller.user
    if request.user == user:
        raise OperationError(ErrorCode.BAD_FIELD, "must be another user", "user")
    other = plain_name(request.user)
    await _written(lambda on_done: service.block(user, other, on_done, is_blocked=request.blocked))
    if parts.presences is not None:
        parts.presences.note(user)
    if parts.rtc is not None and request.blocked:
        parts.rtc.end_between(user, qualify(caller.tenant, other))
    return BlockedUser(request.user, request.blocked)


def _blocked(parts: Parts, caller: Caller, request: ListBlocked) -> BlockedUsers:
    return BlockedUsers(tuple(_service(parts).table.blocked_by(caller.user)))


async def _create(parts: Parts, caller: Caller, request: CreateConversation) -> CreatedConversation:
    service, id = _service(parts), qualify(caller.tenant, request.id)
    if request.id.startswith(PAIR_MARK):
        raise OperationError(ErrorCode.BAD_FIELD, f"must not begin with {PAIR_MARK}", "id")
    found = service.table.find(id)
    if found is None:
        users = tuple(dict.fromkeys(map(plain_name, request.users)))
        await _written(lambda on_done: service.create(id, request.title, users, on_done))
    count = len(find_conversation(parts, caller, request.id).members)
    return CreatedConversation(request.id, found is None, count)


async def _set_members(parts: Parts, caller: Caller, request: ChangeMembers) -> ChangedMembers:
    service, conversation = _service(parts), find_conversation(parts, caller, request.id)
    if request.id.startswith(PAIR_MARK):
        raise OperationError(ErrorCode.BAD_FIELD, "must be a group", "id")
    add, remove = tuple(map(plain_name, request.add)), tuple(map(plain_name, request.remove))
    if set(add) & set(remove):
        raise OperationError(ErrorCode.BAD_FIELD, "must not name whom add names", "remove")
    await _written(lambda on_done: service.set_members(conversation, add, remove, on_done))
    return ChangedMembers(request.id, len(conversation.members))


def _members(parts: Parts, caller: Caller, request: ListConversationMembers) -> MemberPositions:
    if caller.is_backend:
        conversation, viewer = find_conversation(parts, caller, request.conversation), ""
    else:
        conversation, viewer = find_own(parts, caller, request.conversation)
    after, table = request.cursor or "", _service(parts).table
    names = sorted(name for name in conversation.members if name > after)
    page = list(islice(names, request.limit))
    items = tuple(
        MemberPosition(name)
        if viewer and table.blocks(qualify(caller.tenant, name), viewer)
        else MemberPosition(name, *conversation.members[name].position)
        for name in page
    )
    return MemberPositions(items, page[-1] if len(names) > len(page) else None)


HANDLERS: dict[str, Handler] = {
    "conversations.open": _open,
    "conversations.send": _send,
    "conversations.report_position": _report_position,
    "conversations.recall": _recall,
    "conversations.show_typing": _show_typing,
    "conversations.history": _history,
    "conversations.list": _list,
    "conversations.get": _get,
    "conversations.block": _block,
    "conversations.blocked": _blocked,
    "conversations.create": _create,
    "conversations.set_members": _set_members,
    "conversations.members": _members,
}
