"""AUTH of a connection: by its token, or by the platform's answer to the question who it is.

While the platform is asked, the connection is not read further and nothing that it has sent is handled, so that
requests which it has sent with its AUTH find it logged in. The deadline of the handshake goes on.
"""

from __future__ import annotations

import math

import structlog

from broker.auth.grants import AuthError, Grant, KeysPending, TokenRevoked
from broker.core.webhooks.questions import Answer, Start
from broker.sessions.link import SessionLink
from broker.sessions.renewal import KEYS_RETRY_MS, change_token
from broker.webhooks.questions import Asker, Questions
from protocol.activities.moderation import SanctionKind
from protocol.codes import CloseCode, Feature
from protocol.connection import Frame
from protocol.messages import Auth, Authenticated

__all__ = ["on_auth"]

log = structlog.get_logger("roomcast.session")

ASK_RETRY_MS = 1000
"""When to come back where the platform could not be asked."""
STALE_RETRY_MS = 2000
"""When to come back to a node that has not read the broker's log for long; another one may admit at once."""
QUOTA_RETRY_MS = 5000
"""When to come back where the tenant has as many connections as it may."""
_TICKET = int(Feature.TICKET)


def on_auth(link: SessionLink, frame: Frame) -> None:
    """Log a connection in, refuse it, or ask the platform who it is; one that is logged in gets its new rights."""
    message = frame.message
    assert isinstance(message, Auth)
    if link.grant is not None:
        change_token(link, message.token, frame.sequence)
        return
    context = link.context
    if context.nodes is not None and context.nodes.is_stale:
        why = "this node cannot read who is banned and which tokens are revoked: the engine does not answer"
        link.close(CloseCode.OVERLOADED, why, STALE_RETRY_MS)
        return
    address, now, limits = link.transport.address, context.poller.now, context.connection_limits
    wait_s = limits.login_wait_s(address, now)
    if wait_s and not context.auth.knows(message.token):
        link.close(CloseCode.TOO_MANY_FROM_ADDRESS, "too many failed log-ins", math.ceil(wait_s * 1000))
        return
    try:
        grant = context.auth.verify(message.token)
    except KeysPending:
        link.close(CloseCode.OVERLOADED, "the keys of the platform are being fetched", KEYS_RETRY_MS)
        return
    except TokenRevoked as error:
        _refuse_login(link, error, CloseCode.TOKEN_REVOKED)
        return
    except AuthError as error:
        questions = context.questions
        if questions is None or questions.connect is None or context.auth.is_ticket(message.token):
            _refuse_login(link, error)
        else:
            _ask(link, questions, questions.connect, message.token, error)
        return
    _admit(link, grant)


def _refuse_login(link: SessionLink, error: AuthError, code: CloseCode = CloseCode.AUTH_FAILED) -> None:
    address = link.transport.address
    link.context.connection_limits.login_failed(address, link.context.poller.now)
    log.info("auth refused", address=address, why=error.detail)
    link.close(code, str(error) if code is CloseCode.AUTH_FAILED else error.detail)


def _admit(link: SessionLink, grant: Grant) -> None:
    """Make a connection that of the user to whom ``grant`` belongs, unless it has too many."""
    context = link.context
    address, now, limits = link.transport.address, context.poller.now, context.connection_limits
    grant = context.with_screened_name(grant)
    is_app = grant.is_app
    hub = context.hub
    if hub.sanctions.has_bans:
        now_ms = hub.trusted.continued_ms()
        ban = hub.sanctions.find(SanctionKind.BAN, "", grant.user_id, grant.role, now_ms)
        if ban is not None:
            link.close(CloseCode.BANNED, ban.reason or "banned", ban.left_ms(now_ms))
            return
    while not context.users.add(grant.user_id, link, is_app=is_app):
        silent = context.users.longest_silent(grant.user_id)
        if is_app and now - silent.heard_at <= context.config.heartbeat_late_s:
            link.close(CloseCode.TOO_MANY_FOR_USER, f"at most {context.users.most(is_app=is_app)} links a user")
            return
        silent.replace()
    if grant.tenant and not _connect(link, grant):
        return
    if is_app:
        link.own_parts().is_app = True
    link.grant = grant
    link.transport.authenticated = True
    limits.authenticated(address)
    # When the time to log in is over, the wheel asks for the next deadline; a token or the heartbeat may end
    # before.
    config = context.config
    if min(context.auth.seconds_left(grant), config.heartbeat_late_s) < config.handshake_timeout_s:
        link.on_deadline(now)
    ticket, ticket_ms = context.auth.ticket(grant) if link.features & _TICKET else ("", 0)
    link.send(Authenticated(grant.plain_id, grant.name, int(grant.expires_at * 1000), ticket, ticket_ms))
    if context.nodes is not None:
        context.nodes.user_links.added(grant.user_id, link, is_app=is_app)
    if context.inboxes is not None:
        context.inboxes.arrive(grant.user_id, link)


def _connect(link: SessionLink, grant: Grant) -> bool:
    """Count a connection that logs in for its tenant; above the quota it is ended."""
    context = link.context
    use = context.hub.tenants.find(grant.tenant)
    if use is not None and use.try_connect():
        return True
    context.users.remove(grant.user_id, link)
    if use is None:
        _refuse_login(link, AuthError("claim tenant: there is no such tenant"))
    else:
        why = f"quota of the tenant: at most {use.quotas.connections} connections"
        link.close(CloseCode.TOO_MANY_CONNECTIONS, why, QUOTA_RETRY_MS)
    return False


def _ask(link: SessionLink, questions: Questions, asker: Asker, token: str | None, error: AuthError) -> None:
    """Ask the platform who a connection is whose token the broker refuses with ``error``."""

    def on_answer(answer: Answer | None) -> None:
        if link.is_open:
            link.context.poller.refresh_clock()
            with link.replying():
                _use_answer(link, asker, answer, error)
            link.go_on()

    start = questions.ask_connect(token, link.transport.address, on_answer)
    if start is Start.ASK:
        link.hold(link.context.poller.now + asker.deadline_ms / 1000 + 1.0)
    elif start is Start.BUSY:
        why = "too many log-ins of this address wait for the platform"
        link.close(CloseCode.TOO_MANY_FROM_ADDRESS, why, ASK_RETRY_MS)
    else:
        _use_answer(link, asker, None, error)


def _use_answer(link: SessionLink, asker: Asker, answer: Answer | None, error: AuthError) -> None:
    """Log a connection in as the platform says; None: it does not answer."""
    auth = link.context.auth
    if answer is None and not asker.allows_on_failure:
        link.close(CloseCode.OVERLOADED, "the platform does not answer now", ASK_RETRY_MS)
    elif answer is not None and not answer.is_allowed:
        _refuse_login(link, AuthError(f"{error.detail}; the platform: {answer.reason or 'no'}"))
    else:
        try:
            grant = auth.verify(None) if answer is None else auth.grant_of(answer.claims)
        except AuthError as wrong:
            _refuse_login(link, wrong)
        else:
            _admit(link, grant)
