"""What can be configured: one frozen struct per part, each field with its unit, range, default and reason.

Settings come from a TOML file, then ``ROOMCAST_`` environment variables (``ROOMCAST_LISTEN__PORT``), then flags;
later ones win. Unknown keys and variables are errors. `load` reports everything that is wrong at once.

Without any configuration the broker is in *development mode*: no secret is set, every user may take any name, and
therefore it listens on the loopback interface only. Every other address demands a secret.

The docstrings below are the documentation: ``roomcast print-config`` prints them as comments. Only this module
reads files, and nothing below the composition root reads the environment.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from broker.config.loader import Layers, Problem, nested, write_toml
from protocol.codes import MESSAGE_TYPES, Lane, MessageType, Role, TypeRule
from protocol.text import is_room_pattern

__all__ = [
    "ENV_IGNORED",
    "ENV_PREFIX",
    "MIN_SECRET_BYTES",
    "AdmissionConfig",
    "AuthConfig",
    "Config",
    "ConfigError",
    "LedgerConfig",
    "LinkConfig",
    "ListenConfig",
    "LogConfig",
    "QueueConfig",
    "RoomConfig",
    "TypeConfig",
    "is_loopback",
    "load",
    "problems_of",
    "to_toml",
    "without_limit",
]

ENV_PREFIX = "ROOMCAST_"
ENV_IGNORED = frozenset({"ROOMCAST_CONFIG", "ROOMCAST_REQUIRE", "ROOMCAST_TOKEN"})
"""Variables with the prefix that are not settings: the file to read, what tests demand, a client's token."""

MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash."""

KIB = 1024
MIB = 1024 * KIB

PolicyName = Literal["roomcast", "tencent", "rongcloud", "nim", "goim", "off"]
RoleName = Literal["guest", "viewer", "vip", "moderator", "assistant", "host", "app"]
LaneName = Literal["control", "commerce", "paid", "chat"]
"""Lanes of custom types. Lane 4 is the counters' alone: of two messages of any kind none is the other's newer total."""


# No path, user, wildcard or capital letter: a browser never sends those, so such an entry could never match.
WebOrigin = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*://[^/\s@*A-Z]+\Z", examples=["https://live.example.com"])]


S = TypeVar("S", bound=msgspec.Struct)

RELOADABLE = frozenset(
    {
        "log.level", "auth.secret", "auth.secret_file", "auth.issuer", "auth.leeway_s", "auth.guest_access",
        "auth.cache_tokens", "listen.tls_cert", "listen.tls_key", "link.frames_per_s", "link.errors_per_minute",
        "link.connections_per_user", "link.allowed_origins", "link.app_frames_per_s", "link.app_connections_per_user",
    }
)  # fmt: skip
"""Settings that take effect on SIGHUP; the others need a restart."""


class ConfigError(Exception):
    """The settings are wrong; ``problems`` says all of it, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ListenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where viewers connect; one port speaks the native protocol and WebSocket."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    """Address to bind; anything but loopback demands a secret in [auth]."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 7400
    """TCP port; 0 takes a free one and logs it."""
    tls_cert: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file with the certificate chain; normally the proxy in front ends TLS, it costs 0.9 ms a connect here."""
    tls_key: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file with the private key of tls_cert."""
    proxy_protocol: bool = False
    """Expect a PROXY v2 header from the addresses in trusted_proxies, so that limits see the real client."""
    trusted_proxies: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Networks (CIDR) whose word about a client's address is believed, and no other."""


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The life of one connection."""

    handshake_timeout_s: Annotated[float, Meta(ge=0.05, le=60)] = 5.0
    """One deadline from accept to AUTH, not restarted by bytes: a slow loris lives no longer (goim: 5)."""
    heartbeat_s: Annotated[float, Meta(ge=0.05, le=3600)] = 30.0
    """How often a client pings; below the idle timeout of mobile carriers' NAT (Bilibili: 30)."""
    heartbeat_cut_s: Annotated[float, Meta(ge=0.1, le=7200)] = 75.0
    """Silence that cuts a link; more than two heartbeats, so that one lost ping cuts no link."""
    rooms_per_connection: Annotated[int, Meta(ge=1, le=256)] = 16
    """Rooms one connection may be in at a time."""
    connections_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """Connections one user id may hold: phone, tablet, a few tabs."""
    allowed_origins: Annotated[tuple[WebOrigin, ...], Meta(max_length=256)] = ()
    """Web origins that may open a WebSocket, compared exactly (https://live.example.com); others are refused."""
    errors_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 60
    """Failed requests in a minute after which the link is closed: a broken client must not fill the logs."""
    frames_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 200
    """Frames a link may send in the long run, 0 = no limit; above it the link is read more slowly, never refused."""
    app_frames_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 5000
    """The same for a link of the platform's backend (role app), 0 = no limit."""
    app_connections_per_user: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """Connections one user id of the role app may hold: every process of a backend has some."""
    write_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    """A viewer that is behind and takes no byte for so long is cut with a resumable code (NATS: 10)."""
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """On shutdown, clients get return times spread over so many seconds."""
    drain_limit_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    """A shutdown takes no longer: a third each for the ledger's queue, the viewers' last bytes, and closing the ledger;
    keep it below the time after which your supervisor kills (Kubernetes: 30, systemd: 90)."""
    send_buffer_bytes: Annotated[int, Meta(ge=4 * KIB, le=4 * MIB)] = 64 * KIB
    """SO_SNDBUF; left alone, Linux grows it to 4 MiB a socket and hides a slow viewer for minutes."""
    notsent_lowat_bytes: Annotated[int, Meta(ge=KIB, le=4 * MIB)] = 16 * KIB
    """TCP_NOTSENT_LOWAT; more than this unsent in the kernel means the viewer is behind."""


class AdmissionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who gets a connection at all."""

    max_connections: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Connections held at a time; 0 = as many as the descriptors allow, less the reserve."""
    per_address: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000
    """Connections from one address, 0 = no limit; high, because a carrier's NAT or an office is one address."""
    accept_per_s: Annotated[int, Meta(ge=1, le=1_000_000)] = 2000
    """New connections a second, the rest waits in the backlog: handshakes cost more than anything else viewers do."""
    unauthenticated_share: Annotated[float, Meta(ge=0.001, le=1)] = 0.10
    """Part of max_connections that may be unauthenticated at a time, so that they never use up all connections."""
    address_share: Annotated[float, Meta(ge=0.001, le=1)] = 0.25
    """Part of the unauthenticated connections, of accept_per_s and of refusals under way that one address (IPv6: one
    /64) may use, so that none uses up what is there for all; 1 where a proxy hides the viewers' addresses."""
    failed_logins_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 120
    """Refused tokens of one address in a minute; beyond, its log-ins with tokens not seen before have to wait."""
    descriptor_reserve: Annotated[int, Meta(ge=16, le=100_000)] = 256
    """Descriptors kept for logs, HTTP and the ledger when viewers take the rest."""


class RoomConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rooms and what is shown in them. A number that is not set is the policy's own."""

    max_rooms: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Rooms open at a time; one more is refused."""
    create_on_join: bool = True
    """The first viewer opens the room; false = only the platform does."""
    open_roles: Annotated[tuple[RoleName, ...], Meta(max_length=7)] = (
        "viewer", "vip", "moderator", "assistant", "host", "app",
    )  # fmt: skip
    """Roles whose JOIN may open a room that is new; in development mode guests count as viewers here."""
    new_rooms_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 30
    """New rooms that viewers of one address (IPv6: one /64) may open, so that none fills max_rooms; staff open any."""
    unused_close_s: Annotated[float, Meta(ge=0.1, le=60)] = 30.0
    """A room that a viewer opened, and in which nothing was posted, closes after so long without viewers, and is
    forgotten."""
    reopen_ended_s: Annotated[float, Meta(ge=0, le=31_536_000)] = 86_400.0
    """How long an ended room stays ended for viewers; staff and the platform open it at any time. 0 = no time."""
    idle_close_s: Annotated[float, Meta(ge=0.1, le=604_800)] = 900.0
    """A room without viewers and events closes after this long (goim: 15 min)."""
    max_viewers: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Viewers in one room, 0 = no limit; one more is refused with ROOM_FULL."""
    policy: PolicyName = "roomcast"
    """What is admitted and shown: roomcast's own rule, one of four services' published rules, or no limits (off)."""
    admit_per_window: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Messages a room admits in one window."""
    window_ms: Annotated[int, Meta(ge=10, le=60_000)] | None = None
    """Length of the admission window."""
    reserved: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """Part of admit_per_window kept for lanes 0 to 2."""
    merge: bool | None = None
    """Merge equal danmaku of one tick into one entry with a count."""
    chat_budget_per_s: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    """Danmaku a viewer of the full tier is shown a second, 0 = all; a person reads no more than about 20."""
    paid_budget_per_s: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    """Paid entries a viewer is shown a second, 0 = all at once."""
    tick_ms: Annotated[int, Meta(ge=10, le=10_000)] | None = None
    """Shortest interval between two ticks of a room."""
    tick_max_ms: Annotated[int, Meta(ge=10, le=60_000)] | None = None
    """Longest interval the controller may stretch the tick to."""
    duplicate_window_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    """The same text of the same user is refused for this long; 0 = never."""
    compress: bool | None = None
    """Compress a tick once per room when it wins."""
    user_chat_per_s: Annotated[float, Meta(ge=0.001, le=10_000)] | None = None
    """Danmaku one user may send a second, in the long run."""
    user_chat_burst: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """Danmaku one user may send at once."""
    user_joins_per_s: Annotated[float, Meta(ge=0.001, le=10_000)] | None = None
    """Rooms one user may newly enter a second, in the long run: each costs a snapshot, and a line in the room. Coming
    back to a room, staff and the app cost nothing of it."""
    user_joins_burst: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """Rooms one user may newly enter at once; not set = at least twice link.rooms_per_connection."""
    staff_posts_per_s: Annotated[float, Meta(ge=0.001, le=100_000)] | None = None
    """Danmaku, announcements and phases that one moderator, assistant or host may post in a room a second."""
    staff_posts_burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """The same at once."""
    app_posts_per_s: Annotated[float, Meta(ge=0.001, le=100_000)] | None = None
    """The same of the platform's backend (role app) a second; gifts do not count."""
    app_posts_burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """The same at once."""
    likes_per_s: Annotated[float, Meta(ge=0.001, le=100_000)] | None = None
    """Likes of one user that count a second."""
    snapshot_danmaku: Annotated[int, Meta(ge=0, le=64)] = 20
    """Latest danmaku in the answer to JOIN, so that a room is never empty at first sight."""
    history_entries: Annotated[int, Meta(ge=0, le=65_536)] = 512
    """Events of lanes 0 to 2 kept for viewers who resume, if they are not older than history_s."""
    history_s: Annotated[float, Meta(ge=0, le=86_400)] = 120.0
    """How long those events are kept: longer than a ride in a lift or through a tunnel."""

    def policy_overrides(self) -> dict[str, Any]:
        """The policy's numbers that are set here, by field name."""
        # Any: the values are int, float or bool as the fields above say.
        values = ((name, getattr(self, name)) for name in POLICY_FIELDS)
        return {name: value for name, value in values if value is not None}


POLICY_FIELDS = (
    "admit_per_window", "window_ms", "reserved", "merge", "chat_budget_per_s", "paid_budget_per_s", "tick_ms",
    "tick_max_ms", "duplicate_window_s", "compress", "user_chat_per_s", "user_chat_burst", "user_joins_per_s",
    "user_joins_burst", "staff_posts_per_s", "staff_posts_burst", "app_posts_per_s", "app_posts_burst", "likes_per_s",
)  # fmt: skip


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What waits for viewers that are behind."""

    frames: Annotated[int, Meta(ge=1, le=65_536)] = 32
    """Frames one slow viewer's queue holds before its chat is dropped."""
    queue_bytes: Annotated[int, Meta(ge=64 * KIB, le=1024 * MIB)] = 256 * KIB
    """Bytes one slow viewer's queue holds before its chat is dropped; at least one frame (64 KiB)."""
    critical_bytes: Annotated[int, Meta(ge=64 * KIB, le=1024 * MIB)] = MIB
    """Bytes of lanes 0 to 2 after which a slow viewer is closed to come back and resume (Centrifugo: 1 MiB)."""
    total_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 512 * MIB
    """Bytes of all queues together; near it the broker sheds load in stages, and at 95 % the viewers that are furthest
    behind are closed to come back and resume, most bytes first."""


class AuthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who viewers are: tokens (JWT, HS256) that the platform signs with a shared secret."""

    secret: Annotated[str, Meta(max_length=4096, extra={"secret": True})] | None = None
    """Signing secret, 32 bytes or more; better in secret_file or in ROOMCAST_AUTH__SECRET."""
    secret_file: Annotated[str, Meta(min_length=1)] | None = None
    """File that holds the secret, as in `openssl rand -hex 32 > secret`; a trailing newline is not part of it."""
    audience: Annotated[str, Meta(min_length=1, max_length=255)] = "roomcast"
    """The aud that a token must name: tokens for other services are worth nothing here."""
    issuer: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """The iss that a token must name; not set = any."""
    leeway_s: Annotated[float, Meta(ge=0, le=30)] = 30.0
    """Tolerated difference between the platform's clock and the broker's."""
    guest_access: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    """Rooms that viewers without a token may watch and like in, as guests: names, or beginnings with a * at the end.
    (In development mode: every room.)"""
    cache_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000
    """Verified tokens remembered until they expire, so that a reconnect storm costs no signature checks."""
    ticket_s: Annotated[float, Meta(ge=0, le=86_400)] = 600.0
    """How long a client may come back with the broker's ticket in place of a new token of the platform's, 0 = never."""

    def __repr__(self) -> str:
        """As the default, but for the secret: this ends in logs and tracebacks."""
        shown = ("***" if f == "secret" and self.secret else repr(getattr(self, f)) for f in self.__struct_fields__)
        return "AuthConfig(" + ", ".join(map("=".join, zip(self.__struct_fields__, shown, strict=True))) + ")"


class TypeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message type of the deployment's own."""

    id: Annotated[int, Meta(ge=128, le=255)]
    """Number on the wire; never give it another meaning later."""
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z", examples=["flash_sale"])]
    """Name in tokens, logs and JSON: small letters, digits and _."""
    lane: LaneName
    """Delivery class; what may be lost follows from it."""
    max_bytes: Annotated[int, Meta(ge=1, le=4 * KIB)] = 4 * KIB
    """Cap of the packed payload; a client's frame holds no more than 4 KiB."""
    rate_per_s: Annotated[float, Meta(ge=0.001, le=100_000)] = 1.0
    """Messages one user may send a second, in the long run; the role app has `room.app_posts_per_s` on lanes 0 to 2."""
    burst: Annotated[int, Meta(ge=1, le=10_000)] = 3
    """Messages one user may send at once."""
    roles: Annotated[tuple[RoleName, ...], Meta(max_length=7)] = ("app",)
    """Roles that may send it; none = only the broker itself."""

    def rule(self) -> TypeRule:
        """The row this type adds to the table of `protocol.codes.MESSAGE_TYPES`."""
        return TypeRule(Lane[self.lane.upper()], self.max_bytes, frozenset(Role[r.upper()] for r in self.roles))


class LedgerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What survives a crash: gifts, announcements, must-deliver messages, and where every room stands."""

    data_dir: Annotated[str, Meta(min_length=1)] | None = None
    """Directory of the ledger; not set = roomcast-data beside the configuration file, without one here."""
    ephemeral: bool = False
    """Keep nothing: quick to try, but what was acknowledged is gone after a crash or restart, and rooms begin anew."""
    retention_days: Annotated[float, Meta(ge=0.01, le=36_500)] = 30.0
    """How long entries and idempotency keys are kept; the oldest go first, what remains can still be verified."""
    max_bytes: Annotated[int, Meta(ge=0, le=1024**5)] = 0
    """Above this size the oldest entries and acknowledged messages go before their time, 0 = no bound but the disk."""
    outbox_days: Annotated[float, Meta(ge=0.01, le=36_500)] = 7.0
    """How long a report that the platform has not taken is kept."""
    direct_expiry_h: Annotated[float, Meta(ge=0.001, le=8760)] = 72.0
    """How long a must-deliver message waits for its user if its sender does not say."""
    queue_items: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    """Requests that may wait for the disk; one more is LIMITED with a time to retry."""
    queue_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 64 * MIB
    """The same in bytes."""
    resume_events: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000
    """Most events that one RESUME brings back from the disk; a client that missed more gets the gap."""
    room_idle_days: Annotated[float, Meta(ge=0.001, le=36_500)] = 7.0
    """A room without events for so long is ended; it begins a new epoch when it is opened again."""

    @property
    def is_kept(self) -> bool:
        """Whether a broker with exactly these settings keeps a ledger; `Config.placed` supplies the default place."""
        return self.data_dir is not None and not self.ephemeral

    def directory(self, config_path: Path | None) -> Path | None:
        """Where the ledger is; None where nothing is kept. ``config_path``: the file these settings came from."""
        if self.ephemeral:
            return None
        if self.data_dir is not None:
            return Path(self.data_dir)
        return (Path() if config_path is None else config_path.parent) / "roomcast-data"


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the broker says about itself, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is written; nothing is logged per message at any level."""
    format: Literal["json", "text"] = "json"
    """json for machines, text for people."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything. Only `load` checks values and how they fit together; building it directly checks nothing."""

    listen: ListenConfig = msgspec.field(default_factory=ListenConfig)
    link: LinkConfig = msgspec.field(default_factory=LinkConfig)
    admission: AdmissionConfig = msgspec.field(default_factory=AdmissionConfig)
    room: RoomConfig = msgspec.field(default_factory=RoomConfig)
    queue: QueueConfig = msgspec.field(default_factory=QueueConfig)
    auth: AuthConfig = msgspec.field(default_factory=AuthConfig)
    ledger: LedgerConfig = msgspec.field(default_factory=LedgerConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    types: tuple[TypeConfig, ...] = ()
    """Message types of the deployment's own, any number of these tables."""

    @property
    def development(self) -> bool:
        """Whether there is no secret: any client may take any name, on the loopback interface only."""
        return self.auth.secret is None and self.auth.secret_file is None

    @property
    def open_roles(self) -> frozenset[Role]:
        """Roles whose JOIN may open a new room."""
        if not self.room.create_on_join:
            return frozenset()
        roles = frozenset(Role[name.upper()] for name in self.room.open_roles)
        return roles | {Role.GUEST} if self.development and Role.VIEWER in roles else roles

    def placed(self, config_path: Path | None) -> Config:
        """The same with the default places of files filled in, which depend on where the settings came from."""
        directory = self.ledger.directory(config_path)
        ledger = msgspec.structs.replace(self.ledger, data_dir=None if directory is None else str(directory))
        return msgspec.structs.replace(self, ledger=ledger)

    def message_types(self) -> dict[int, TypeRule]:
        """The rules of all message types, built-in and the deployment's own."""
        return MESSAGE_TYPES | {custom.id: custom.rule() for custom in self.types}

    def type_names(self) -> dict[int, str]:
        """Names of all message types as tokens and logs write them: ``danmaku``, ``like``, and the deployment's own."""
        return {int(t): t.name.lower() for t in MessageType} | {custom.id: custom.name for custom in self.types}


def load(
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the settings: file, then environment, then ``overrides`` (flags), later ones winning key by key.

    ``overrides`` has dotted or nested keys; a None value means "flag not given"; strings are read as in the
    environment. ``auth.secret_file`` is read: the result has its content in ``auth.secret``. ConfigError with
    every problem that could be found, and nothing is half done. Reads up to four files.
    """
    layers = Layers(Config)
    if path is not None:
        layers.add(_read_toml(path))
    layers.add_environment(env or {}, ENV_PREFIX, ENV_IGNORED)
    for key, value in (overrides or {}).items():
        if value is not None:
            layers.add(nested(key, value), "a flag", text_values=True)
    config = layers.build()
    wrong = list(layers.problems)
    config, more = _with_secret(config)
    wrong += more
    wrong += _unreadable(config)
    bad = {problem.path for problem in wrong}
    # A check between fields says nothing of use while one of its fields stands at a default for want of a good value.
    wrong += [Problem(paths[0], rule) for paths, rule in _conflicts(config) if not any(_touches(p, bad) for p in paths)]
    if wrong:
        raise ConfigError([str(problem) for problem in wrong])
    return config


def problems_of(config: Config) -> list[str]:
    """What is wrong between the fields of a ``config`` that was built in code; no file is read."""
    return [str(Problem(paths[0], rule)) for paths, rule in _conflicts(config)]


def to_toml(config: Config, comments: bool = True) -> str:
    """``config`` as TOML that `load` reads back; with ``comments``, every field's meaning, range and default.

    The secret itself is never written, so a config whose secret is not in a file does not come back whole.
    """
    return write_toml(config, comments=comments)


def without_limit(config: Config) -> list[str]:
    """Return the names of settings whose 0 switches a limit off that there is by default."""
    return [
        f"{section}.{name}"
        for section, names in _ZERO_IS_NO_LIMIT.items()
        for name in names
        if getattr(getattr(config, section), name) == 0
    ]


_ZERO_IS_NO_LIMIT = {
    "link": ("frames_per_s", "app_frames_per_s"),
    "admission": ("per_address",),
    "room": ("chat_budget_per_s", "paid_budget_per_s"),
}


def is_loopback(host: str) -> bool:
    """Return whether binding ``host`` keeps other machines out; a name other than localhost counts as not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _touches(path: str, bad: set[str]) -> bool:
    return any(b == path or b.startswith((f"{path}.", f"{path}[")) or path.startswith(f"{b}.") for b in bad)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {error.start})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error


def _with_secret(config: Config) -> tuple[Config, list[Problem]]:
    """``config`` with the content of its secret file as its secret."""
    name = config.auth.secret_file
    if name is None:
        return config, []
    if config.auth.secret is not None:
        return config, [Problem("auth.secret", "set either this or auth.secret_file, not both")]
    try:
        secret = Path(name).read_text(encoding="utf-8-sig").rstrip()
    except OSError as error:
        return config, [Problem("auth.secret_file", f"cannot read {name}: {error.strerror}")]
    except UnicodeDecodeError:
        return config, [Problem("auth.secret_file", f"{name} is not text; make one with `openssl rand -hex 32`")]
    auth = msgspec.structs.replace(config.auth, secret=secret)
    return msgspec.structs.replace(config, auth=auth), []


def _unreadable(config: Config) -> Iterator[Problem]:
    for key in ("tls_cert", "tls_key"):
        name = getattr(config.listen, key)
        try:
            if name is not None:
                Path(name).open("rb").close()
        except OSError as error:
            yield Problem(f"listen.{key}", f"cannot read {name}: {error.strerror}")


def _conflicts(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong between fields: (the paths it is about, the first one to blame; the rule)."""
    listen, link, auth = config.listen, config.link, config.auth

    if (listen.tls_cert is None) != (listen.tls_key is None):
        missing, given = ("tls_key", "tls_cert") if listen.tls_key is None else ("tls_cert", "tls_key")
        yield (f"listen.{missing}", f"listen.{given}"), f"is required with listen.{given}"
    for index, network in enumerate(listen.trusted_proxies):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield (f"listen.trusted_proxies[{index}]",), f"expected a network such as 10.0.0.0/8, got {network!r}"
    if listen.proxy_protocol and not listen.trusted_proxies:
        paths = ("listen.trusted_proxies", "listen.proxy_protocol")
        yield paths, "is required with listen.proxy_protocol: else any client could claim any address"
    if config.development:
        secrets = ("auth.secret", "auth.secret_file")
        if not is_loopback(listen.host):
            rule = f"{listen.host} is not loopback: set auth.secret_file, without a secret any client may take any name"
            yield ("listen.host", *secrets), rule
        if listen.proxy_protocol:
            rule = "set auth.secret_file first: viewers behind a proxy come from other machines"
            yield ("listen.proxy_protocol", *secrets), rule
    if auth.secret is not None:
        where = "auth.secret" if auth.secret_file is None else "auth.secret_file"
        size = len(auth.secret.encode())
        if size < MIN_SECRET_BYTES:
            yield (where,), f"{size} bytes are too few, HS256 needs {MIN_SECRET_BYTES} or more: `openssl rand -hex 32`"
        if auth.secret.lstrip().startswith(("-----BEGIN", "ssh-")):
            yield (where,), "this is a key pair's file, not a shared secret: `openssl rand -hex 32`"

    for index, pattern in enumerate(auth.guest_access):
        if not is_room_pattern(pattern):
            rule = f"expected a room's name, or the beginning of one and *, got {pattern!r}"
            yield (f"auth.guest_access[{index}]",), rule

    if link.heartbeat_cut_s <= 2 * link.heartbeat_s:
        rule = f"expected more than 2 x link.heartbeat_s ({2 * link.heartbeat_s:g}), got {link.heartbeat_cut_s:g}"
        yield ("link.heartbeat_cut_s", "link.heartbeat_s"), rule
    for low, high in (
        ("link.notsent_lowat_bytes", "link.send_buffer_bytes"),
        ("queue.queue_bytes", "queue.critical_bytes"),
        ("queue.critical_bytes", "queue.total_bytes"),
        ("room.reserved", "room.admit_per_window"),
        ("room.tick_ms", "room.tick_max_ms"),
    ):
        (part, low_name), (_, high_name) = low.split("."), high.split(".")
        small, large = getattr(getattr(config, part), low_name), getattr(getattr(config, part), high_name)
        if small is not None and large is not None and small > large:
            yield (low, high), f"expected at most {high} ({large}), got {small}"

    builtin = {t.name.lower() for t in MessageType}
    ids, names = Counter(t.id for t in config.types), Counter(t.name for t in config.types)
    for index, custom in enumerate(config.types):
        if ids[custom.id] > 1:
            yield (f"types[{index}].id",), f"{custom.id} is given to {ids[custom.id]} types"
        if custom.name in builtin:
            yield (f"types[{index}].name",), f"{custom.name} is a built-in type"
        elif names[custom.name] > 1:
            yield (f"types[{index}].name",), f"{custom.name} is given to {names[custom.name]} types"


def changed_settings(before: Config, after: Config) -> list[str]:
    """Return the dotted names of the settings that differ, in the order of the schema."""
    found = []
    for section in before.__struct_fields__:
        old, new = getattr(before, section), getattr(after, section)
        if old == new:
            continue
        if isinstance(old, msgspec.Struct):
            found += [f"{section}.{name}" for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
        else:
            found.append(section)
    return found


def reloaded(before: S, after: S, section: str) -> S:
    """Return a section of the configuration with the `RELOADABLE` settings of ``after`` and all others as before."""
    names = [name for name in before.__struct_fields__ if f"{section}.{name}" in RELOADABLE]
    return msgspec.structs.replace(before, **{name: getattr(after, name) for name in names})
