"""Keys of tenants: which tenants there are, and which keys verify the tokens of each.

A tenant with keys of its own trusts no others: neither the broker's secret nor another tenant's key signs a token of
it. The tenant that a token claims chooses the keys, before anything is verified; the claim itself is part of what is
then verified, so a false one finds keys that did not sign it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.auth.jws import unverified_claim
from broker.auth.keys import Keyring, read_public_keys
from broker.config.tenants import TenantConfig, read_tenant_secret

__all__ = ["TenantKeys"]


class TenantKeys:
    """The configured tenants but the default one, each with its own keys or None. Immutable."""

    __slots__ = ("_keyrings", "has_own")

    def __init__(self, keyrings: Mapping[str, Keyring | None]) -> None:
        self._keyrings = dict(keyrings)
        self.has_own = any(each is not None for each in keyrings.values())
        """Whether any tenant has keys of its own, so that tokens must be inspected for their tenant."""

    @classmethod
    def read(cls, tenants: Sequence[TenantConfig]) -> TenantKeys:
        """Read the files of a configuration. FileError, KeyProblem or ValueError names the one that is wrong."""
        return cls({tenant.name: _keyring(tenant) for tenant in tenants})

    def __contains__(self, tenant: str) -> bool:
        return tenant == "" or tenant in self._keyrings

    def keyring_for(self, token: str) -> Keyring | None:
        """Return the own keys of the tenant that a token claims, unverified; None where it has none."""
        if not self.has_own:
            return None
        claimed = unverified_claim(token, "tenant")
        return self._keyrings.get(claimed) if type(claimed) is str else None

    def own(self, tenant: str) -> Keyring | None:
        """Return the own keys of a tenant; None where it has none."""
        return self._keyrings.get(tenant)


def _keyring(tenant: TenantConfig) -> Keyring | None:
    if not tenant.has_own_keys:
        return None
    secrets = [] if tenant.secret_file is None else [read_tenant_secret(tenant.secret_file)]
    return Keyring(secrets, () if tenant.keys_file is None else read_public_keys(tenant.keys_file))
