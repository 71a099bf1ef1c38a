"""Section [webhooks]: endpoints of the platform, the events that each receives, and the questions it answers.

A secret file has one secret a line, at most two: ``whsec_`` and the base64 of 24 to 64 bytes, as the Standard Webhooks
specification writes it. With two, every request has both signatures, so that a receiver can change from one to the
other without refusing any.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from broker.config.files import FileError, read_bytes_of, read_secret_text
from protocol.text import is_room_pattern
from protocol.webhook_events import topics_of

__all__ = [
    "AppCallConfig",
    "ConnectQuestionConfig",
    "EndpointConfig",
    "JoinQuestionConfig",
    "MessageQuestionConfig",
    "QuestionsConfig",
    "WebhookConfig",
    "is_loopback",
    "read_webhook_keys",
    "webhook_conflicts",
    "webhook_file_problems",
    "webhook_key",
]

SECRET_PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
"""Sizes of a key that the specification asks for."""
MAX_KEYS = 2
MAX_ENDPOINTS = 16
"""One fact is at most as many rows of the outbox."""
_is_event_pattern = re.compile(r"\*|[a-z][a-z_]{0,31}\.(\*|[a-z][a-z0-9_]{0,31})").fullmatch

EndpointName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z", examples=["shop"])]
QuestionRole = Literal["guest", "viewer", "vip", "moderator", "assistant", "host"]


class EndpointConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One receiver of the platform."""

    name: EndpointName
    """Name in logs, metrics and questions; a new name is a new receiver."""
    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    """Where requests are posted: an https URL. Redirects are not followed."""
    secret_file: Annotated[str, Meta(min_length=1)]
    """File of its secret, or of two during a rotation, one a line: `echo whsec_$(openssl rand -base64 32)`."""
    plain_http: bool = False
    """Permit an http URL of another machine; only inside a network that you trust. Loopback needs no permission."""
    events: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Events that it receives: names such as room.opened, room.* or *. None = it only answers questions."""
    rooms: Annotated[tuple[str, ...], Meta(max_length=64)] = ("*",)
    """Rooms whose events it receives: names, or beginnings with a * at the end."""
    tenant: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """Tenant whose events it receives; not set = the default tenant."""


class MessageQuestionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What becomes of this message: asked about each danmaku and each message of an own type."""

    endpoint: EndpointName | None = None
    """Name of the endpoint that answers; not set = it is not asked."""
    deadline_ms: Annotated[int, Meta(ge=10, le=10_000)] = 300
    """Time for an answer, from the question's start."""
    on_failure: Literal["allow", "deny"] = "deny"
    """The answer where the endpoint gives none: in time, or at all."""
    max_in_flight: Annotated[int, Meta(ge=1, le=1024)] = 32
    """Questions that wait for an answer at a time; one more has the on_failure answer at once."""
    exempt_roles: Annotated[tuple[QuestionRole, ...], Meta(max_length=6)] = ("moderator", "assistant", "host")
    """Roles that are not asked about; the platform itself (app) never is."""
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Part of the messages that are asked about, 1 = all, 0 = none; the others are allowed. Chosen by chance."""


class JoinQuestionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """May this user enter this room: asked about each JOIN and RESUME."""

    endpoint: EndpointName | None = None
    """Name of the endpoint that answers; not set = it is not asked."""
    deadline_ms: Annotated[int, Meta(ge=10, le=10_000)] = 300
    """Time for an answer, from the question's start."""
    on_failure: Literal["allow", "deny"] = "deny"
    """The answer where the endpoint gives none: in time, or at all."""
    max_in_flight: Annotated[int, Meta(ge=1, le=1024)] = 32
    """Questions that wait for an answer at a time; one more has the on_failure answer at once."""
    exempt_roles: Annotated[tuple[QuestionRole, ...], Meta(max_length=6)] = ("moderator", "assistant", "host")
    """Roles that are not asked about; the platform itself (app) never is."""
    remember_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """How long a user who was allowed may come back to the room without a question, 0 = no time: each is asked about.
    It saves the endpoint from the wave of questions when all viewers reconnect."""


class ConnectQuestionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is this: asked about a connection whose token the broker itself refuses, or that has none."""

    endpoint: EndpointName | None = None
    """Name of the endpoint that answers; not set = it is not asked."""
    deadline_ms: Annotated[int, Meta(ge=10, le=10_000)] = 300
    """Time for an answer, from the question's start; below link.handshake_timeout_s."""
    on_failure: Literal["allow", "deny"] = "deny"
    """What happens where the endpoint gives no answer: allow = a guest in the rooms of auth.guest_access."""
    max_in_flight: Annotated[int, Meta(ge=1, le=1024)] = 32
    """Questions that wait for an answer at a time; one more has the on_failure answer at once."""


class AppCallConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls of viewers to the platform (app.call)."""

    endpoint: EndpointName | None = None
    """Name of the endpoint that answers; not set = there is no such operation."""
    deadline_ms: Annotated[int, Meta(ge=10, le=30_000)] = 3000
    """Time for an answer; a call without one is refused as OVERLOADED."""
    max_in_flight: Annotated[int, Meta(ge=1, le=1024)] = 64
    """Calls that wait for an answer at a time; one more is refused at once."""


class QuestionsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Questions to the platform, which wait for an answer."""

    connect: ConnectQuestionConfig = msgspec.field(default_factory=ConnectQuestionConfig)
    """Who is this: asked about a connection whose token the broker itself refuses, or that has none."""
    join: JoinQuestionConfig = msgspec.field(default_factory=JoinQuestionConfig)
    """May this user enter this room."""
    message: MessageQuestionConfig = msgspec.field(default_factory=MessageQuestionConfig)
    """What becomes of this message: allow, mask, block or hold."""
    app: AppCallConfig = msgspec.field(default_factory=AppCallConfig)
    """Calls of viewers to the platform."""


class WebhookConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Webhooks: signed requests to the platform, of events and of questions."""

    ca_file: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file of the authorities that sign the endpoints' certificates; not set = those of the system."""
    connect_timeout_s: Annotated[float, Meta(ge=0.05, le=60)] = 3.0
    """Time for connecting to an endpoint, TLS included."""
    timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 10.0
    """Time for one request with an event, from connecting to the end of the answer."""
    max_connections: Annotated[int, Meta(ge=1, le=256)] = 8
    """Connections to one endpoint for events; questions have their own, max_in_flight of each kind."""
    retry_for_h: Annotated[float, Meta(ge=0.001, le=720)] = 24.0
    """How long an event is tried again; then it is a dead letter, which `roomcast webhooks retry` sends once more."""
    max_waiting: Annotated[int, Meta(ge=1, le=100_000_000)] = 2_000_000
    """Events that may wait for one endpoint; beyond, new ones are dropped and counted."""
    dead_letter_bytes: Annotated[int, Meta(ge=0, le=1024**4)] = 64 * 1024 * 1024
    """Size of the dead letters of one endpoint; beyond, the oldest go, 0 = soon all do. See ledger.outbox_days, too."""
    audit_anchor_s: Annotated[float, Meta(ge=0, le=86_400)] = 3600.0
    """How often the event audit.anchored says where the hash chain of the ledger ends, if that has changed; 0 = never.
    """
    questions: QuestionsConfig = msgspec.field(default_factory=QuestionsConfig)
    """Questions to the platform."""
    endpoints: tuple[EndpointConfig, ...] = ()
    """Receivers of the platform, any number of these tables."""

    def endpoint(self, name: str) -> EndpointConfig:
        """Return the endpoint of that name. KeyError."""
        for endpoint in self.endpoints:
            if endpoint.name == name:
                return endpoint
        raise KeyError(name)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine alone; a name other than localhost counts as not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def webhook_key(secret: str) -> bytes:
    """Return the key of a ``whsec_`` secret. ValueError says what is wrong, without the secret."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"expected a secret that begins with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"expected base64 after {SECRET_PREFIX}") from None
    if len(key) not in KEY_BYTES:
        raise ValueError(f"expected a key of {KEY_BYTES[0]} to {KEY_BYTES[-1]} bytes, got {len(key)}")
    return key


def read_webhook_keys(name: str) -> tuple[bytes, ...]:
    """Return the keys of a secret file, in its order. FileError, or ValueError that names file and line."""
    lines = read_secret_text(name).split()
    if not 1 <= len(lines) <= MAX_KEYS:
        raise ValueError(f"{name} has {len(lines)} secrets, expected one, or two during a rotation")
    keys = []
    for number, line in enumerate(lines, 1):
        try:
            keys.append(webhook_key(line))
        except ValueError as error:
            raise ValueError(f"{name}, secret {number}: {error}") from None
    return tuple(keys)


def webhook_file_problems(config: WebhookConfig) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the files that the section names: (path of the setting, rule)."""
    if config.ca_file is not None:
        try:
            read_bytes_of(config.ca_file)
        except FileError as error:
            yield "webhooks.ca_file", str(error)
    for index, endpoint in enumerate(config.endpoints):
        try:
            read_webhook_keys(endpoint.secret_file)
        except (FileError, ValueError) as error:
            yield f"webhooks.endpoints[{index}].secret_file", str(error)


def webhook_conflicts(config: WebhookConfig, message_types: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the conflicts inside the section: (the paths concerned, the one to report first; the rule).

    :param message_types: names of all types of messages, the deployment's own too.
    """
    if len(config.endpoints) > MAX_ENDPOINTS:
        rule = f"expected at most {MAX_ENDPOINTS} endpoints, got {len(config.endpoints)}"
        yield ("webhooks.endpoints",), rule
    times = Counter(endpoint.name for endpoint in config.endpoints)
    for index, endpoint in enumerate(config.endpoints):
        path = f"webhooks.endpoints[{index}]"
        if times[endpoint.name] > 1:
            yield (f"{path}.name",), f"{endpoint.name} is given to {times[endpoint.name]} endpoints"
        if problem := _url_problem(endpoint):
            yield (f"{path}.url",), problem
        for number, pattern in enumerate(endpoint.events):
            if not _is_event_pattern(pattern):
                yield (
                    (f"{path}.events[{number}]",),
                    f"expected a name such as room.opened, room.* or *, got {pattern!r}",
                )
            elif not topics_of((pattern,), message_types, message_types):
                yield (f"{path}.events[{number}]",), f"there is no event {pattern!r}; the guide webhooks.md lists them"
        for number, pattern in enumerate(endpoint.rooms):
            if not is_room_pattern(pattern):
                rule = f"expected a room's name, or the beginning of one and *, got {pattern!r}"
                yield (f"{path}.rooms[{number}]",), rule
    questions = config.questions
    for kind in questions.__struct_fields__:
        name = getattr(questions, kind).endpoint
        if name is None:
            continue
        paths = (f"webhooks.questions.{kind}.endpoint", "webhooks.endpoints")
        if name not in times:
            yield paths, f"{name} is no endpoint; known: {', '.join(times) or 'there are none'}"
        elif config.endpoint(name).tenant is not None:
            yield paths, f"{name} belongs to a tenant: questions are about all of them"


def _url_problem(endpoint: EndpointConfig) -> str:
    """Return what is wrong with the URL, "" = nothing. The URL is not repeated: its path may be a secret."""
    try:
        parts = urlsplit(endpoint.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not endpoint.url.isascii() or any(c <= " " or c == "\x7f" for c in endpoint.url):
        return "expected printable ASCII without spaces"
    if parts.scheme not in ("http", "https") or not host:
        return "expected https://HOST/PATH"
    if port == 0:
        return "expected a port from 1 to 65535"
    if parts.username is not None or parts.password is not None:
        return "has a user or password: requests are signed, the receiver needs no other proof"
    if parts.fragment:
        return "has a fragment, which is never sent"
    if parts.scheme == "http" and not is_loopback(host) and not endpoint.plain_http:
        return "is http to another machine: use https, or permit it with plain_http = true"
    return ""
