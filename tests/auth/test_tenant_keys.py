"""Tokens of tenants: only configured ones, and a tenant with keys of its own trusts no others."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest

from broker.auth.grants import AuthError
from broker.auth.tenant_keys import TenantKeys
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from broker.config.tenants import TenantConfig
from tests.support.tokens import GOOD, HS256, SECRET, Clock, sign

ACME_SECRET = "acme" * 8


@pytest.fixture
def acme_file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.secret"
    path.touch(0o600)
    path.write_text(ACME_SECRET)
    return path


def authenticator(*tenants: TenantConfig) -> Authenticator:
    config = AuthConfig(secret=SECRET)
    return Authenticator(config, Clock(), random.Random(1), tenants=TenantKeys.read(tenants))


def token(tenant: str | None, secret: str, **claims: object) -> str:
    return sign(HS256, GOOD | claims | ({} if tenant is None else {"tenant": tenant}), secret)


def test_a_token_of_an_unknown_tenant_is_refused() -> None:
    auth = authenticator(TenantConfig(name="acme"))
    assert auth.verify(token("acme", SECRET)).tenant == "acme"
    with pytest.raises(AuthError) as caught:
        auth.verify(token("globex", SECRET))
    assert caught.value.detail == "claim tenant: there is no such tenant"


def test_a_tenant_with_its_own_keys_trusts_no_others(acme_file: Path) -> None:
    auth = authenticator(TenantConfig(name="acme", secret_file=str(acme_file)), TenantConfig(name="globex"))
    assert auth.verify(token("acme", ACME_SECRET)).tenant == "acme"
    assert auth.verify(token("globex", SECRET)).tenant == "globex"
    assert auth.verify(token(None, SECRET)).tenant == ""
    for tenant, secret in (("acme", SECRET), ("globex", ACME_SECRET), (None, ACME_SECRET), ("", ACME_SECRET)):
        with pytest.raises(AuthError):
            auth.verify(token(tenant, secret))


@pytest.mark.parametrize("inner", ['"tenant":"acme","tenant":"globex"', '"tenant":"globex","tenant":"acme"'])
def test_a_claim_that_is_there_twice_is_no_way_around(acme_file: Path, inner: str) -> None:
    """Whichever of the two a parser takes, the token is refused unless the keys are those of the one that counts."""
    auth = authenticator(TenantConfig(name="acme", secret_file=str(acme_file)), TenantConfig(name="globex"))
    body = json.dumps(GOOD)[:-1] + "," + inner + "}"
    for secret, tenant in ((SECRET, "globex"), (ACME_SECRET, "acme")):
        try:
            grant = auth.verify(sign(HS256, body, secret))
        except AuthError:
            continue
        assert grant.tenant == tenant


@pytest.mark.parametrize("claim", [7, None, [], "a/b", "ACME", "acme\x1f", "a" * 33])
def test_a_tenant_that_is_no_name_is_refused(acme_file: Path, claim: object) -> None:
    auth = authenticator(TenantConfig(name="acme", secret_file=str(acme_file)))
    for secret in (SECRET, ACME_SECRET):
        with pytest.raises(AuthError):
            auth.verify(sign(HS256, GOOD | {"tenant": claim}, secret))


EMPTY_ARRAY = base64.b64encode(b"[]").decode()


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "..", "a.%%.c", f"a.{EMPTY_ARRAY}.c"])
def test_bytes_that_are_no_token_are_refused(acme_file: Path, text: str) -> None:
    with pytest.raises(AuthError):
        authenticator(TenantConfig(name="acme", secret_file=str(acme_file))).verify(text)


def test_a_ticket_ends_with_its_tenant_and_a_token_in_the_cache_too(acme_file: Path) -> None:
    config, auth = AuthConfig(secret=SECRET), authenticator(TenantConfig(name="acme"))
    text = token("acme", SECRET)
    ticket, _ = auth.ticket(auth.verify(text))
    assert auth.verify(ticket).tenant == "acme"
    auth.use(config, auth.keyring_of(config), TenantKeys.read([TenantConfig(name="globex")]))
    for gone in (text, ticket):
        with pytest.raises(AuthError):
            auth.verify(gone)


def test_an_issued_token_names_its_tenant() -> None:
    auth = authenticator(TenantConfig(name="acme"))
    grant = auth.verify(auth.issue("ann", tenant="acme", ttl_s=60))
    assert (grant.tenant, grant.plain_id, grant.user_id) == ("acme", "ann", "acme\x1fann")
    with pytest.raises(ValueError, match="tenant"):
        auth.issue("ann", tenant="Acme")
