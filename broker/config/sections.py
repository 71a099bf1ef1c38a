"""Sections of the configuration: one frozen struct each, every field with its unit, range, default and reason.

The docstrings are the documentation: ``roomcast print-config`` prints them as comments. What holds between fields is
checked in `broker.config.schema`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.config.files import user_path
from protocol.codes import Lane, Role, TypeRule

__all__ = [
    "POLICY_FIELDS",
    "AdmissionConfig",
    "ApiConfig",
    "AuthConfig",
    "LedgerConfig",
    "LinkConfig",
    "ListenConfig",
    "LogConfig",
    "QueueConfig",
    "RoomConfig",
    "TypeConfig",
]

KIB = 1024
MIB = 1024 * KIB

HEARTBEAT_TOLERANCE = 1.25
"""Part of ``link.heartbeat_s`` after which a heartbeat is late; below 2, the least part after which a link is cut."""

PolicyName = Literal["roomcast", "tencent", "rongcloud", "nim", "goim", "off"]
RoleName = Literal["guest", "viewer", "vip", "moderator", "assistant", "host", "app"]
LaneName = Literal["control", "commerce", "paid", "chat"]
"""Lanes of custom types. Lane 4 is for counters only: there the newest total replaces older ones."""

HighlightTierPair = tuple[Annotated[int, Meta(ge=1, le=10**12)], Annotated[int, Meta(ge=1, le=86_400)]]
"""Least cents of a tier of paid messages, and the seconds that they are shown."""
HighlightTiers = Annotated[tuple[HighlightTierPair, ...], Meta(min_length=1, max_length=20)]

# No path, user, wildcard or capital letter: a browser never sends those, so such an entry could never match.
WebOrigin = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*://[^/\s@*A-Z]+\Z", examples=["https://live.example.com"])]


class ListenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Listening address; one port serves the native protocol and WebSocket."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    """Address to bind; anything but loopback demands a secret in [auth]."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 7400
    """TCP port; 0 takes a free one and logs it."""
    tls_cert: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file with the certificate chain; normally the proxy in front ends TLS, it costs 0.9 ms a connect here."""
    tls_key: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file with the private key of tls_cert."""
    proxy_protocol: bool = False
    """Expect a PROXY header (v1 or v2) from the addresses in trusted_proxies; only GET /healthz needs none."""
    trusted_proxies: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Networks (CIDR) of proxies that may name a client's address, so that limits see the real client: in a PROXY
    header with proxy_protocol, else in client_address_header. From any other peer both are ignored."""
    client_address_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """Header in which trusted_proxies name the client of a WebSocket; name the one that your proxy sets, for it passes
    on the other as a client sent it."""


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits and intervals of one connection."""

    handshake_timeout_s: Annotated[float, Meta(ge=0.05, le=60)] = 5.0
    """One deadline from accept to AUTH, which no byte extends: a client that sends slowly is closed too (goim: 5)."""
    heartbeat_s: Annotated[float, Meta(ge=0.05, le=3600)] = 30.0
    """How often a client pings; below the idle timeout of mobile carriers' NAT (Bilibili: 30)."""
    heartbeat_cut_s: Annotated[float, Meta(ge=0.1, le=7200)] = 75.0
    """Silence after which a link is closed; more than two heartbeats, so that one missing ping closes no link."""
    rooms_per_connection: Annotated[int, Meta(ge=1, le=256)] = 16
    """Rooms one connection may be in at a time."""
    connections_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """Connections one user id may hold (phone, tablet, a few tabs); one more replaces the one silent for longest."""
    allowed_origins: Annotated[tuple[WebOrigin, ...], Meta(max_length=256)] = ()
    """Web origins that may open a WebSocket, compared exactly (https://live.example.com); others are refused."""
    errors_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 60
    """Failed requests in a minute after which the link is closed: a broken client must not fill the logs."""
    frames_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 200
    """Frames a link may send in the long run, 0 = no limit; above it the link is read more slowly, never refused."""
    app_frames_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 5000
    """The same for a link of the platform's backend (role app), 0 = no limit."""
    app_connections_per_user: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """Connections one user id of the role app may hold: every process of a backend has some. One more replaces only
    one that has missed its heartbeat, else it is refused."""
    write_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    """A viewer that is behind and takes no byte for so long is closed with a resumable code (NATS: 10)."""
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """On shutdown, clients get return times spread over so many seconds."""
    drain_limit_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    """A shutdown takes no longer: a third each for the ledger's queue, the viewers' last bytes, and closing the ledger;
    keep it below the time after which your supervisor kills (Kubernetes: 30, systemd: 90)."""
    dictionary_file: Annotated[str, Meta(min_length=1)] | None = None
    """Dictionary that ticks are compressed with, from `roomcast train-dictionary`; not set = the built-in one."""
    send_buffer_bytes: Annotated[int, Meta(ge=4 * KIB, le=4 * MIB)] = 64 * KIB
    """SO_SNDBUF; left alone, Linux grows it to 4 MiB a socket and hides a slow viewer for minutes."""
    notsent_lowat_bytes: Annotated[int, Meta(ge=KIB, le=4 * MIB)] = 16 * KIB
    """TCP_NOTSENT_LOWAT; more than this unsent in the kernel means the viewer is behind."""

    @property
    def heartbeat_late_s(self) -> float:
        """Silence after which a client has missed its heartbeat: a WebSocket is probed, a link may be replaced."""
        return HEARTBEAT_TOLERANCE * self.heartbeat_s


class AdmissionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of all connections together, and of one address."""

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
    """Rules of what is admitted and shown: roomcast's own, the published ones of four services, or no limits (off)."""
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
    pre_review: bool | None = None
    """Hold every message of those who are not staff for a reviewer; likes and what is paid for are not held."""
    review_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    """How long a message that is held waits until it is decided without a reviewer; 0 = it waits on."""
    approve_unreviewed: bool | None = None
    """Show a message that no reviewer has decided in review_s; else it is rejected."""
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
    highlight_tiers: HighlightTiers = (
        (500, 60), (1_000, 120), (2_000, 300), (5_000, 600), (10_000, 1_800), (50_000, 3_600),
    )  # fmt: skip
    """Paid messages: [least cents, seconds that it is shown] of each tier, amounts rising."""
    snapshot_danmaku: Annotated[int, Meta(ge=0, le=64)] = 20
    """Latest danmaku in the answer to JOIN, so that a viewer does not see an empty room first."""
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
    "tick_max_ms", "duplicate_window_s", "pre_review", "review_s", "approve_unreviewed", "compress",
    "user_chat_per_s", "user_chat_burst", "user_joins_per_s", "user_joins_burst", "staff_posts_per_s",
    "staff_posts_burst", "app_posts_per_s", "app_posts_burst", "likes_per_s",
)  # fmt: skip


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the queues of viewers that are behind."""

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
    """Authentication: tokens (JWT) that the platform signs, with a shared secret (HS256) or with private keys (RS256,
    ES256, EdDSA)."""

    secret: Annotated[str, Meta(max_length=4096, extra={"secret": True})] | None = None
    """Signing secret, 32 bytes or more; better in secret_file or in ROOMCAST_AUTH__SECRET."""
    secret_file: Annotated[str, Meta(min_length=1)] | None = None
    """File that holds the secret, as in `openssl rand -hex 32 > secret`; white space around it is not part of it."""
    previous_secret: Annotated[str, Meta(max_length=4096, extra={"secret": True})] | None = None
    """The secret before the last change: its tokens are accepted too, until you take it away."""
    previous_secret_file: Annotated[str, Meta(min_length=1)] | None = None
    """File that holds the previous secret."""
    keys_file: Annotated[str, Meta(min_length=1)] | None = None
    """File of public keys that verify tokens: PEM (one or more blocks), or a JSON Web Key Set."""
    jwks_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    """URL of a JSON Web Key Set with more of them: https://, or http:// on loopback; fetched in the background."""
    jwks_ca_file: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file of the authorities that the URL's certificate is verified by; not set = those of the system."""
    jwks_refresh_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    """How often the URL is fetched; a key that is taken out of it is good for so long."""
    jwks_min_refresh_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    """A token that names an unknown key has the URL fetched, but not more often than this."""
    jwks_max_age_s: Annotated[float, Meta(ge=1, le=31_536_000)] = 86_400.0
    """While the URL fails, the last good keys are used; after so long the broker reports that it is not ready."""
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

    @property
    def development(self) -> bool:
        """Whether nothing is there to verify tokens with: any client may take any name, on loopback only."""
        secrets = (self.secret, self.secret_file, self.previous_secret, self.previous_secret_file)
        return all(source is None for source in (*secrets, self.keys_file, self.jwks_url))

    def __repr__(self) -> str:
        """As the default, but for the secrets: this ends in logs and tracebacks."""
        secrets = ("secret", "previous_secret")
        shown = ("***" if f in secrets and getattr(self, f) else repr(getattr(self, f)) for f in self.__struct_fields__)
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
    opaque: bool = False
    """Its payload is a text of base64 that the broker does not read: it is not moderated. Lanes 0 to 2 only."""
    marketing: bool = False
    """Every message of it is marketing: it reaches no user whose preference is against that. Lanes 0 to 2 only."""

    def rule(self) -> TypeRule:
        """The row this type adds to the table of `protocol.codes.MESSAGE_TYPES`."""
        return TypeRule(Lane[self.lane.upper()], self.max_bytes, frozenset(Role[r.upper()] for r in self.roles))


class LedgerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ledger, which survives a crash: gifts, announcements, must-deliver messages and the position of each room."""

    data_dir: Annotated[str, Meta(min_length=1)] | None = None
    """Directory of the ledger; not set = roomcast-data beside the configuration file, without one here."""
    ephemeral: bool = False
    """Keep nothing: quick to try, but a crash or restart forgets what was acknowledged, and rooms begin new epochs."""
    key_file: Annotated[str, Meta(min_length=1)] | None = None
    """File of keys that encrypt the bodies of all messages and facts at rest (roomcast ledger rotate-key makes one);
    not set = they are not encrypted. Without its keys a ledger cannot be read: keep a copy of the file elsewhere."""
    export_names: bool = False
    """Whether rooms.export has names of users. It always has their ids."""
    export_texts: bool = False
    """Whether rooms.export has texts: announcements, captions, titles, values of keys."""
    retention_days: Annotated[float, Meta(ge=0.01, le=36_500)] = 30.0
    """How long entries and idempotency keys are kept; the oldest go first, what remains can still be verified."""
    max_bytes: Annotated[int, Meta(ge=0, le=1024**5)] = 0
    """Above this size the oldest entries and acknowledged messages go before their time, 0 = no bound but the disk."""
    outbox_days: Annotated[float, Meta(ge=0.01, le=36_500)] = 7.0
    """How long a report that the platform has not taken is kept."""
    direct_expiry_h: Annotated[float, Meta(ge=0.001, le=8760)] = 72.0
    """How long a must-deliver message waits for its user if its sender does not say."""
    queue_items: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    """Requests that may wait for the disk; one more is UNAVAILABLE with a time to retry."""
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
        """Return the directory of the ledger; None where nothing is kept. ``config_path``: file of these settings."""
        if self.ephemeral:
            return None
        if self.data_dir is not None:
            return user_path(self.data_dir)
        return (Path() if config_path is None else config_path.parent) / "roomcast-data"


class ApiConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The control API: HTTP for the platform's backend, on a listener of its own."""

    listen: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """HOST:PORT or unix:PATH; not set = no control API. Anything but loopback or a socket file demands key_file."""
    key_file: Annotated[str, Meta(min_length=1)] | None = None
    """File of the backends' keys (roomcast key create); in development mode none is needed."""
    max_connections: Annotated[int, Meta(ge=2, le=10_000)] = 128
    """Connections of backends at a time, of which one address may use half; each needs a file descriptor. One more is
    answered by 503."""
    requests_per_s: Annotated[float, Meta(ge=1, le=100_000)] = 500.0
    """Requests of one key a second, twice as many at once. One costs about 0.4 ms of the core that viewers share."""


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Log lines of the broker, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is written; nothing is logged per message at any level."""
    format: Literal["json", "text"] = "json"
    """json for machines, text for people."""
    redact: bool = True
    """Leave out what people have written, names and tokens; ids of users are hashed, tracebacks quote no values."""
