"""Configuration as a whole: reading it, and what must hold between its sections.

Settings come from a TOML file, then ``ROOMCAST_`` environment variables (``ROOMCAST_LISTEN__PORT``), then flags;
later ones win. Unknown keys and variables are errors. `load` reports everything that is wrong at once. The sections
with their fields are in `broker.config.sections`, and can be imported from here.

Without any configuration the broker is in *development mode*: no secret is set, every user may take any name, and
therefore it listens on the loopback interface only. Every other address demands a secret.

Only this module reads files, and nothing below the composition root reads the environment.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from broker.config.dictionaries import read_dictionary
from broker.config.engine import EngineConfig, engine_conflicts, url_has_password, with_engine_password
from broker.config.files import FileError, exposure, read_bytes_of, read_secret_text, read_text_of
from broker.config.loader import Layers, Problem, nested, secret_paths, write_toml
from broker.config.moderation import ModerationConfig, moderation_conflicts, moderation_file_problems
from broker.config.nodes import node_conflicts
from broker.config.origins import origin_problem
from broker.config.pages import PagesConfig, pages_conflicts
from broker.config.privacy import PrivacyConfig, privacy_conflicts
from broker.config.sections import (
    AdmissionConfig,
    ApiConfig,
    AuthConfig,
    LedgerConfig,
    LinkConfig,
    ListenConfig,
    LogConfig,
    QueueConfig,
    RoomConfig,
    TypeConfig,
)
from broker.config.tenants import TenantConfig, tenant_conflicts, tenant_file_problems
from broker.config.webhooks import (
    WebhookConfig,
    is_loopback,
    webhook_conflicts,
    webhook_file_problems,
)
from protocol.codes import MESSAGE_TYPES, MessageType, Role, TypeRule
from protocol.text import is_room_pattern

__all__ = [
    "ENV_IGNORED",
    "ENV_PREFIX",
    "MIN_SECRET_BYTES",
    "SECRET_SETTINGS",
    "AdmissionConfig",
    "AuthConfig",
    "Config",
    "ConfigError",
    "EngineConfig",
    "LedgerConfig",
    "LinkConfig",
    "ListenConfig",
    "LogConfig",
    "ModerationConfig",
    "QueueConfig",
    "RoomConfig",
    "TenantConfig",
    "TypeConfig",
    "WebhookConfig",
    "check_for_nodes",
    "is_loopback",
    "load",
    "problems_of",
    "settings_of",
    "to_toml",
    "without_limit",
]

ENV_PREFIX = "ROOMCAST_"
ENV_IGNORED = frozenset({"ROOMCAST_CONFIG", "ROOMCAST_INHERITED", "ROOMCAST_REQUIRE", "ROOMCAST_TOKEN"})
"""Variables with the prefix that are not settings: the file to read, what tests demand, a client's token."""

MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash."""

S = TypeVar("S", bound=msgspec.Struct)

RELOADABLE = frozenset(
    {
        "log.level", "ledger.key_file", "privacy.marketing_per_hour", "privacy.marketing_per_day",
        "privacy.quiet_hours", "privacy.quiet_utc_offset_min",
        "api.key_file", "api.max_connections", "api.requests_per_s",
        "auth.secret", "auth.secret_file", "auth.previous_secret", "auth.previous_secret_file", "auth.keys_file",
        "auth.jwks_url", "auth.jwks_ca_file", "auth.jwks_refresh_s", "auth.jwks_min_refresh_s", "auth.jwks_max_age_s",
        "auth.issuer", "auth.leeway_s", "auth.guest_access",
        "auth.cache_tokens", "listen.tls_cert", "listen.tls_key", "link.frames_per_s", "link.errors_per_minute",
        "link.connections_per_user", "link.allowed_origins", "link.app_frames_per_s", "link.app_connections_per_user",
        "link.dictionary_file",
        "admission.max_connections", "admission.per_address", "admission.accept_per_s",
        "admission.unauthenticated_share", "admission.address_share", "admission.failed_logins_per_minute",
        "admission.descriptor_reserve", "room.max_rooms", "room.create_on_join", "room.open_roles", "room.policy",
        "webhooks.endpoints", "webhooks.ca_file", "webhooks.connect_timeout_s", "webhooks.timeout_s",
        "webhooks.max_connections", "webhooks.retry_for_h", "webhooks.max_waiting", "webhooks.dead_letter_bytes",
        "webhooks.questions",
        "room.new_rooms_per_minute", "room.unused_close_s", "room.idle_close_s", "room.max_viewers", "tenants", "types",
        "room.admit_per_window", "room.merge", "room.chat_budget_per_s", "room.paid_budget_per_s", "room.tick_ms",
        "room.tick_max_ms", "room.duplicate_window_s", "room.pre_review", "room.review_s", "room.approve_unreviewed",
        "room.user_chat_per_s", "room.user_chat_burst", "room.staff_posts_per_s", "room.staff_posts_burst",
        "room.app_posts_per_s", "room.app_posts_burst", "room.likes_per_s", "room.highlight_tiers",
        "moderation.exempt_roles", "moderation.detectors", "moderation.lists", "moderation.raid_joins",
        "moderation.raid_repeats", "moderation.raid_slow_s", "moderation.raid_s",
        "moderation.hints", "moderation.bot_user", "moderation.bot_name", "ledger.export_names",
        "ledger.export_texts",
    }
)  # fmt: skip
"""Settings that take effect on SIGHUP; the others need a restart."""


class ConfigError(ValueError):
    """The settings are wrong; ``problems`` says all of it, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration. Only `load` checks values and their combinations; the constructor checks nothing."""

    listen: ListenConfig = msgspec.field(default_factory=ListenConfig)
    link: LinkConfig = msgspec.field(default_factory=LinkConfig)
    admission: AdmissionConfig = msgspec.field(default_factory=AdmissionConfig)
    room: RoomConfig = msgspec.field(default_factory=RoomConfig)
    queue: QueueConfig = msgspec.field(default_factory=QueueConfig)
    auth: AuthConfig = msgspec.field(default_factory=AuthConfig)
    ledger: LedgerConfig = msgspec.field(default_factory=LedgerConfig)
    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
    privacy: PrivacyConfig = msgspec.field(default_factory=PrivacyConfig)
    api: ApiConfig = msgspec.field(default_factory=ApiConfig)
    pages: PagesConfig = msgspec.field(default_factory=PagesConfig)
    webhooks: WebhookConfig = msgspec.field(default_factory=WebhookConfig)
    moderation: ModerationConfig = msgspec.field(default_factory=ModerationConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    types: tuple[TypeConfig, ...] = ()
    """Message types of the deployment's own, any number of these tables."""
    tenants: tuple[TenantConfig, ...] = ()
    """Platforms that share this broker, any number of these tables; none = the default tenant alone."""

    @property
    def development(self) -> bool:
        """Whether there is neither secret nor key: any client may take any name, on the loopback interface only."""
        return self.auth.development

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


SECRET_SETTINGS = secret_paths(Config)
"""Settings that no output shows, and that a command line may not contain."""


def load(
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    origins: dict[str, str] | None = None,
) -> Config:
    """Read the settings: file, then environment, then ``overrides`` (flags), later ones winning key by key.

    ``overrides`` has dotted or nested keys; a None value means "flag not given"; strings are read as in the
    environment. ``auth.secret_file`` is read: the result has its content in ``auth.secret``. ConfigError with
    every problem that could be found, and nothing is half done. Reads up to four files.

    ``origins`` gets where each setting that is not the default came from, by the names of `settings_of`: "file",
    "flag", or the name of a variable.
    """
    layers = Layers(Config)
    wrong: list[Problem] = []
    if path is not None:
        table = _read_toml(path)
        layers.add(table)
        wrong += _exposed(table, path)
    layers.add_environment(env or {}, ENV_PREFIX, ENV_IGNORED)
    for key, value in (overrides or {}).items():
        if value is not None:
            layers.add(nested(key, value), "a flag", text_values=True)
    config = layers.build()
    wrong += layers.problems
    for setting in ("secret", "previous_secret"):
        config, more = _with_secret(config, setting)
        wrong += more
    engine, found = with_engine_password(config.engine)
    config = msgspec.structs.replace(config, engine=engine)
    wrong += [Problem(*each) for each in found]
    wrong += _unreadable(config)
    bad = {problem.path for problem in wrong}
    # A check between fields is skipped while one of its fields has a default because its own value was refused.
    wrong += [Problem(paths[0], rule) for paths, rule in _conflicts(config) if not any(_touches(p, bad) for p in paths)]
    if wrong:
        raise ConfigError([str(problem) for problem in wrong])
    if origins is not None:
        origins.clear()
        for name, origin in layers.origins.items():
            section, _, setting = name.partition(".")
            origins[f"{section}.{setting.partition('.')[0]}" if setting else section] = origin.removeprefix("a ")
    return config


def problems_of(config: Config) -> list[str]:
    """Return the conflicts between the fields of a ``config`` that was built in code; no file is read."""
    return [str(Problem(paths[0], rule)) for paths, rule in _conflicts(config)]


def check_for_nodes(config: Config) -> None:
    """Check that a broker of this configuration may be one of several nodes. ValueError names what it may not have."""
    wrong = [f"{name}: {rule}" for name, rule in node_conflicts(config.webhooks)]
    if wrong:
        raise ValueError("; ".join(wrong))


def to_toml(config: Config, comments: bool = True, in_force: Mapping[str, str] | None = None) -> str:
    """``config`` as TOML that `load` reads back; with ``comments``, every field's meaning, range and default.

    ``in_force``: what the comments say of settings that are not set, by dotted name.

    The secret itself is never written, so a config whose secret is not in a file does not come back whole.
    """
    return write_toml(config, comments=comments, in_force=in_force)


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings that are set or have a default, by dotted name, without secrets. Any: TOML values."""
    tables = tomllib.loads(to_toml(config, comments=False))
    return {
        f"{section}.{name}" if isinstance(table, dict) else section: value
        for section, table in tables.items()
        for name, value in (table.items() if isinstance(table, dict) else (("", table),))
    }


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


def _touches(path: str, bad: set[str]) -> bool:
    return any(b == path or b.startswith((f"{path}.", f"{path}[")) or path.startswith(f"{b}.") for b in bad)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text_of(path))
    except FileError as error:
        raise ConfigError([f"{path}: {error.reason}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error


def _exposed(table: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """A problem for each secret in a configuration file that other users can read."""
    for secret in sorted(SECRET_SETTINGS):
        section, _, name = secret.partition(".")
        part = table.get(section)
        if isinstance(part, Mapping) and name in part and (rule := exposure(path)):
            yield Problem(secret, rule)
    engine = table.get("engine")
    if isinstance(engine, Mapping) and url_has_password(engine.get("url")) and (rule := exposure(path)):
        yield Problem("engine.url", rule)


def _with_secret(config: Config, setting: str) -> tuple[Config, list[Problem]]:
    """``config`` with the content of a secret's file as the secret. ``setting``: secret or previous_secret."""
    name = getattr(config.auth, f"{setting}_file")
    if name is None:
        return config, []
    if getattr(config.auth, setting) is not None:
        return config, [Problem(f"auth.{setting}", f"set either this or auth.{setting}_file, not both")]
    try:
        secret = read_secret_text(name).strip()
    except FileError as error:
        rule = str(error) if error.is_text else f"{name} is not text; make one with `openssl rand -hex 32`"
        return config, [Problem(f"auth.{setting}_file", rule)]
    auth = msgspec.structs.replace(config.auth, **{setting: secret})
    return msgspec.structs.replace(config, auth=auth), []


def _unreadable(config: Config) -> Iterator[Problem]:
    for key in ("tls_cert", "tls_key"):
        name = getattr(config.listen, key)
        if name is None:
            continue
        try:
            read_bytes_of(name)
        except FileError as error:
            yield Problem(f"listen.{key}", str(error))
        else:
            if key == "tls_key" and (rule := exposure(name)):
                yield Problem("listen.tls_key", rule)
    try:
        read_dictionary(config.link.dictionary_file)
    except ValueError as error:
        yield Problem("link.dictionary_file", str(error))
    for path, rule in webhook_file_problems(config.webhooks):
        yield Problem(path, rule)
    for path, rule in tenant_file_problems(config.tenants):
        yield Problem(path, rule)
    for path, rule in moderation_file_problems(config.moderation):
        yield Problem(path, rule)


def _conflicts(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the conflicts between fields: (the paths concerned, the one to report first; the rule)."""
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
        sources = ("auth.secret", "auth.secret_file", "auth.keys_file", "auth.jwks_url")
        if not is_loopback(listen.host):
            rule = f"{listen.host} is not loopback: set auth.secret_file, without a secret any client may take any name"
            yield ("listen.host", *sources), rule
        if listen.proxy_protocol:
            rule = "set auth.secret_file first: viewers behind a proxy come from other machines"
            yield ("listen.proxy_protocol", *sources), rule
    amounts = [min_cents for min_cents, _ in config.room.highlight_tiers]
    if amounts != sorted(set(amounts)):
        yield ("room.highlight_tiers",), "the amounts must rise from tier to tier"
    api = config.api
    if api.listen is not None:
        host, _, port = api.listen.rpartition(":")
        if not api.listen.startswith("unix:") and not (host and port.isdigit() and int(port) < 65536):
            yield ("api.listen",), f"expected HOST:PORT or unix:PATH, got {api.listen!r}"
        elif api.key_file is None and not (
            config.development and (api.listen.startswith("unix:") or is_loopback(host.strip("[]")))
        ):
            yield ("api.key_file", "api.listen"), "is required: `roomcast key create` makes one"
    for setting in ("secret", "previous_secret"):
        secret = getattr(auth, setting)
        if secret is None:
            continue
        where = f"auth.{setting}" if getattr(auth, f"{setting}_file") is None else f"auth.{setting}_file"
        size = len(secret.encode())
        if size < MIN_SECRET_BYTES:
            yield (where,), f"{size} bytes are too few, HS256 needs {MIN_SECRET_BYTES} or more: `openssl rand -hex 32`"
        if secret != secret.strip():
            yield (where,), "has white space at an end, which is easily lost elsewhere: take it off"
        if secret.lstrip().startswith(("-----BEGIN", "ssh-", "{")):
            yield (where,), "this is a key pair's file, not a shared secret: `openssl rand -hex 32`, or auth.keys_file"
    if auth.previous_secret is not None and auth.secret is None:
        yield ("auth.previous_secret", "auth.secret", "auth.secret_file"), "is for a rotation: set auth.secret_file too"

    if auth.jwks_url is not None and (problem := _url_problem(auth.jwks_url)):
        yield ("auth.jwks_url",), problem
    if auth.jwks_max_age_s < auth.jwks_refresh_s:
        rule = f"expected at least auth.jwks_refresh_s ({auth.jwks_refresh_s:g}), got {auth.jwks_max_age_s:g}"
        yield ("auth.jwks_max_age_s", "auth.jwks_refresh_s"), rule

    for index, pattern in enumerate(auth.guest_access):
        if not is_room_pattern(pattern):
            rule = f"expected a room's name, or the beginning of one and *, got {pattern!r}"
            yield (f"auth.guest_access[{index}]",), rule

    for index, origin in enumerate(link.allowed_origins):
        if problem := origin_problem(origin):
            yield (f"link.allowed_origins[{index}]",), f"{problem}, got {origin!r}"

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
    yield from engine_conflicts(config.engine)
    if config.engine.url is not None:
        for name, rule in node_conflicts(config.webhooks):
            yield (name, "engine.url"), rule
    yield from privacy_conflicts(config.privacy)
    yield from pages_conflicts(config.pages)
    yield from webhook_conflicts(config.webhooks, builtin | {t.name for t in config.types})
    connect = config.webhooks.questions.connect
    if connect.endpoint is not None and connect.deadline_ms >= link.handshake_timeout_s * 1000:
        rule = (
            f"expected less than link.handshake_timeout_s ({link.handshake_timeout_s:g} s), got {connect.deadline_ms}"
        )
        yield ("webhooks.questions.connect.deadline_ms", "link.handshake_timeout_s"), rule
    is_guest = connect.endpoint is not None and connect.on_failure == "allow"
    if is_guest and not auth.guest_access and not config.development:
        paths = "webhooks.questions.connect.on_failure", "auth.guest_access"
        yield paths, "allow makes guests, and auth.guest_access names no room"
    yield from tenant_conflicts(
        config.tenants,
        endpoints=[endpoint.tenant for endpoint in config.webhooks.endpoints],
    )
    yield from moderation_conflicts(config.moderation, [tenant.name for tenant in config.tenants])

    ids, names = Counter(t.id for t in config.types), Counter(t.name for t in config.types)
    for index, custom in enumerate(config.types):
        for name in ("marketing", "opaque"):
            if getattr(custom, name) and custom.lane == "chat":
                lanes = (f"types[{index}].{name}", f"types[{index}].lane")
                yield lanes, "is for lanes 0 to 2: what is merged and sampled is read, and the same for all viewers"
        if ids[custom.id] > 1:
            yield (f"types[{index}].id",), f"{custom.id} is given to {ids[custom.id]} types"
        if custom.name in builtin:
            yield (f"types[{index}].name",), f"{custom.name} is a built-in type"
        elif names[custom.name] > 1:
            yield (f"types[{index}].name",), f"{custom.name} is given to {names[custom.name]} types"


def _url_problem(url: str) -> str:
    """Return what is wrong with the URL of a key set; "" if nothing is. Its text may contain a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "is not a URL"
    if not host or port == 0 or not url.isprintable() or " " in url or parts.fragment:
        return "is not a URL such as https://login.example.com/jwks.json"
    if parts.username is not None or parts.password is not None:
        return "has a user name or password, which ends in logs: keys of a set are public"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return ""
    return "is not https: whoever changes the answer on its way could sign tokens (http:// is for loopback)"


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


def with_reloadable(before: Config, after: Config, reloadable: frozenset[str] = RELOADABLE) -> Config:
    """Return the configuration with the ``reloadable`` settings of ``after`` and all others as before."""
    sections = {}
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, msgspec.Struct):
            sections[name] = reloaded(old, new, name, reloadable)
        else:
            sections[name] = new if name in reloadable else old
    return msgspec.structs.replace(before, **sections)


def reloaded(before: S, after: S, section: str, reloadable: frozenset[str] = RELOADABLE) -> S:
    """Return a section of the configuration with the ``reloadable`` settings of ``after`` and all others as before."""
    names = [name for name in before.__struct_fields__ if f"{section}.{name}" in reloadable]
    return msgspec.structs.replace(before, **{name: getattr(after, name) for name in names})
