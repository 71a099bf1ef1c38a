"""Section [engine]: the server over which several processes share rooms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from broker.config.files import FileError, read_bytes_of, read_secret_text
from broker.config.redis_url import parse_url

__all__ = ["EngineConfig", "engine_conflicts", "url_has_password", "with_engine_password"]


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The engine: Redis 7 or Valkey, over which several processes have rooms in common. Without a URL there is none,
    and one process keeps everything for itself."""

    url: Annotated[str, Meta(min_length=1)] | None = None
    """redis://[USER@]HOST[:PORT][/DATABASE], rediss:// with TLS, unix:///PATH, sentinel://HOST,HOST/SERVICE and
    sentinels:// with TLS, or redis+cluster://HOST,HOST and rediss+cluster:// with TLS. Not set = no engine."""
    password: Annotated[str, Meta(max_length=4096, extra={"secret": True})] | None = None
    """Password for the server; better in password_file or in ROOMCAST_ENGINE__PASSWORD. One in the URL is taken too."""
    password_file: Annotated[str, Meta(min_length=1)] | None = None
    """File that holds the password; white space around it is not part of it."""
    tls_ca_file: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file of the authorities that the server's certificate is verified by; not set = those of the system."""
    tls_cert_file: Annotated[str, Meta(min_length=1)] | None = None
    """PEM file of a certificate and its key that the broker shows to the server; not set = none."""
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,32}\Z", examples=["rc:"])] = "rc:"
    """In front of every key and channel: brokers that share a server and not their rooms have different ones."""
    node: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", examples=["live3"])] | None = None
    """Name of this broker among those that share the engine, different on each; not set = the name of the host."""
    durability: Literal["any", "everysec", "always"] = "any"
    """What the server must at least promise of what is acknowledged: everysec and always are its appendfsync. A broker
    does not start on a server that promises less; any = it starts, and readiness says what is promised."""
    wait_replicas: Annotated[int, Meta(ge=0, le=16)] = 0
    """Replicas of the server that must have a write before it is acknowledged; 0 = none is waited for."""
    wait_timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    """After so long without them the sender is refused, to ask again."""
    connect_timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 3.0
    """For a connection to the server, from its name to the first answers."""
    ping_timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    """A server that answers nothing for so long is gone, until it answers again."""
    start_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    """How long a broker that starts waits for a server that does not answer; then it ends."""
    log_events: Annotated[int, Meta(ge=100, le=10_000_000)] = 10_000
    """Events that the server keeps of a room, about."""
    allow_eviction: bool = False
    """Use a server that drops keys when its memory is full (maxmemory-policy other than noeviction). Only for trying:
    it drops what was acknowledged."""

    def __repr__(self) -> str:
        """As the default, but for the password: this ends in logs and tracebacks."""
        shown = ("***" if f == "password" else repr(getattr(self, f)) for f in self.__struct_fields__)
        return "EngineConfig(" + ", ".join(map("=".join, zip(self.__struct_fields__, shown, strict=True))) + ")"


def url_has_password(url: object) -> bool:
    """Return whether a URL, as it was written, has a password in it."""
    return isinstance(url, str) and ":" in url.partition("://")[2].partition("/")[0].rpartition("@")[0]


def with_engine_password(engine: EngineConfig) -> tuple[EngineConfig, list[tuple[str, str]]]:
    """Return the section with the password of its URL or of its file as the password, and the problems of both.

    The URL is without it afterwards, so that whatever shows settings shows no secret.
    """
    sources = [f"engine.{name}" for name in ("password", "password_file") if getattr(engine, name) is not None]
    if url_has_password(engine.url):
        sources.append("engine.url")
    if len(sources) > 1:
        url = _without_password(engine.url) if engine.url is not None else None
        return msgspec.structs.replace(engine, url=url), [(sources[0], f"set either this or {sources[1]}, not both")]
    if sources == ["engine.url"] and engine.url is not None:
        try:
            password = parse_url(engine.url).password
        except ValueError as error:
            return msgspec.structs.replace(engine, url=None), [("engine.url", str(error))]
        return msgspec.structs.replace(engine, url=_without_password(engine.url), password=password), []
    if engine.password_file is None:
        return engine, []
    try:
        return msgspec.structs.replace(engine, password=read_secret_text(engine.password_file).strip()), []
    except FileError as error:
        rule = str(error) if error.is_text else f"{engine.password_file} is not text"
        return engine, [("engine.password_file", rule)]


def engine_conflicts(engine: EngineConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the conflicts between fields: (the paths concerned, the one to report first; the rule)."""
    if engine.url is None:
        for name in ("password", "password_file", "tls_ca_file", "tls_cert_file"):
            if getattr(engine, name) is not None:
                yield (f"engine.{name}", "engine.url"), "is for the server of engine.url, which is not set"
        return
    try:
        url = parse_url(engine.url)
    except ValueError as error:
        yield ("engine.url",), str(error)
        return
    for name in ("tls_ca_file", "tls_cert_file"):
        file = getattr(engine, name)
        if file is None:
            continue
        if not url.is_tls:
            yield (
                (f"engine.{name}", "engine.url"),
                "is for a URL with TLS: rediss://, sentinels:// or rediss+cluster://",
            )
        try:
            read_bytes_of(file)
        except FileError as error:
            yield (f"engine.{name}",), str(error)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}{'@' if user else ''}{hosts}{slash}{tail}"
