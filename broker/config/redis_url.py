"""Where a Redis or Valkey server is, as an operator writes it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = ["Address", "RedisUrl", "parse_url"]

Address = tuple[str, int]
"""Host and port."""

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379
CLUSTER = "+cluster"
"""At the end of the scheme of a Cluster."""
SCHEMES = ("redis", "rediss", "unix", "sentinel", "sentinels", "redis+cluster", "rediss+cluster")


class RedisUrl(NamedTuple):
    """Where to connect, and as whom.

    ``addresses``: host and port of the server, of the Sentinels where ``service`` names what they watch, or of some
    servers of a Cluster; ``path``: of a Unix socket, then there are no addresses.
    """

    addresses: tuple[Address, ...]
    path: str = ""
    service: str = ""
    user: str = ""
    password: str = ""
    database: int = 0
    is_tls: bool = False
    is_cluster: bool = False

    def __str__(self) -> str:
        """Return it for logs: without the password."""
        if self.path:
            return f"unix:{self.path}"
        scheme = ("sentinel" if self.service else "redis") + ("s" if self.is_tls else "") + CLUSTER * self.is_cluster
        where = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        return f"{scheme}://{where}" + ("" if self.is_cluster else f"/{self.service or self.database}")

    def __repr__(self) -> str:
        return f"<RedisUrl {self}>"


def parse_url(text: str) -> RedisUrl:
    """Return what a URL says. ValueError names what is wrong, and never the password.

    ``redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]``, ``rediss://`` with TLS, ``unix:///PATH[?db=N]``,
    ``sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT].../SERVICE``, ``sentinels://`` with TLS, and
    ``redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]...``, ``rediss+cluster://`` with TLS. A name alone in
    front of the @ is a password, as with ``redis://:PASSWORD@HOST``, only where the colon is there.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"the URL of the engine begins with {', '.join(f'{each}://' for each in SCHEMES)}")
    if scheme == "unix":
        path, _, query = rest.partition("?")
        if not path.startswith("/"):
            raise ValueError("the URL of a Unix socket is unix:///PATH")
        return RedisUrl((), path=unquote(path), database=_database(query.removeprefix("db=")))
    authority, _, tail = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    is_sentinel = scheme.startswith("sentinel")
    if is_sentinel and not tail:
        raise ValueError("the URL of Sentinels ends with the name of what they watch: sentinel://HOST:26379/NAME")
    is_cluster = scheme.endswith(CLUSTER)
    if not is_sentinel and not is_cluster and "," in hosts:
        raise ValueError("in the URL of the engine only Sentinels and a Cluster are more than one host")
    if is_cluster and tail not in ("", "0"):
        raise ValueError("the URL of a Cluster names no database: it has the one with the number 0")
    port = SENTINEL_PORT if is_sentinel else DEFAULT_PORT
    return RedisUrl(
        tuple(_address(each, port) for each in hosts.split(",")),
        service=unquote(tail) if is_sentinel else "",
        user=unquote(user) if at else "",
        password=unquote(password) if at else "",
        database=0 if is_sentinel else _database(tail),
        is_tls=scheme in ("rediss", "sentinels", "rediss+cluster"),
        is_cluster=is_cluster,
    )


def _address(text: str, default_port: int) -> tuple[str, int]:
    try:
        split = urlsplit(f"//{text}")
        host, port = split.hostname, split.port
    except ValueError:
        host = port = None
    if not host or port == 0:
        raise ValueError("the URL of the engine names no host, or a port that is none")
    return host, default_port if port is None else port


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise ValueError("the URL of the engine ends with the number of a database, or with nothing")
    return int(text)
