"""Tables [[tenants]]: platforms that share a broker and see nothing of each other, and the quotas of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from broker.config.files import FileError, read_secret_text

__all__ = ["MAX_TENANTS", "TenantConfig", "read_tenant_secret", "tenant_conflicts", "tenant_file_problems"]

MAX_TENANTS = 1000
MIN_SECRET_BYTES = 32
"""As of ``auth.secret``."""


class TenantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tenant. Rooms, users, keys and webhooks without a tenant are the default tenant's, which needs no table."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,32}\Z", examples=["acme"])]
    """Name in the claim tenant of tokens, in key files, logs and metrics; another name is another tenant."""
    secret_file: Annotated[str, Meta(min_length=1)] | None = None
    """File of a secret (HS256) of its own; with it or keys_file, auth.secret and auth.keys_file verify none of its
    tokens."""
    keys_file: Annotated[str, Meta(min_length=1)] | None = None
    """File of public keys of its own, as auth.keys_file."""
    max_connections: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Connections that are logged in at a time, 0 = no limit of its own."""
    max_rooms: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Rooms open at a time, 0 = no limit of its own."""
    messages_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Messages to rooms and users a second in the long run, twice as many at once; 0 = no limit of its own."""
    mask_names_for_guests: bool | None = None
    """As privacy.mask_names_for_guests, for rooms of this tenant that are opened from now on; not set = as there."""
    calls_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Calls of operations a second in the long run, twice as many at once; 0 = no limit of its own."""

    @property
    def has_own_keys(self) -> bool:
        """Whether its tokens are verified with keys of its own alone."""
        return self.secret_file is not None or self.keys_file is not None


def read_tenant_secret(name: str) -> bytes:
    """Return the secret of a file. FileError, or ValueError that names the file and not the secret."""
    secret = read_secret_text(name).strip().encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{name}: {len(secret)} bytes are too few, HS256 needs {MIN_SECRET_BYTES} or more")
    return secret


def tenant_file_problems(tenants: Sequence[TenantConfig]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the files of secrets: (path of the setting, rule)."""
    for index, tenant in enumerate(tenants):
        if tenant.secret_file is not None:
            try:
                read_tenant_secret(tenant.secret_file)
            except (FileError, ValueError) as error:
                yield f"tenants[{index}].secret_file", str(error)


def tenant_conflicts(
    tenants: Sequence[TenantConfig],
    *,
    endpoints: Sequence[str | None] = (),
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the conflicts of the tables: (the paths concerned, the one to report first; the rule).

    ``endpoints``: the tenant of each webhook endpoint, None = the default one.
    """
    times = Counter(tenant.name for tenant in tenants)
    if len(tenants) > MAX_TENANTS:
        yield ("tenants",), f"expected at most {MAX_TENANTS} tenants, got {len(tenants)}"
    for index, tenant in enumerate(tenants):
        if times[tenant.name] > 1:
            yield (f"tenants[{index}].name",), f"{tenant.name} is given to {times[tenant.name]} tenants"
    for index, name in enumerate(endpoints):
        if name is not None and name not in times:
            yield (f"webhooks.endpoints[{index}].tenant", "tenants"), f"no table [[tenants]] is called {name!r}"
