from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.users.revocations import Revocation, RevocationTable, RevokedToken, TooManyTokens

users = st.sampled_from(["", "ann", "bob", "eve", "kim"])
tenants = st.sampled_from(["", "acme"])
revocations = st.lists(st.builds(Revocation, tenants, users, st.integers(1, 50).map(lambda s: s * 1000)), max_size=20)


@given(revocations, tenants, users.filter(bool), st.integers(0, 60))
def test_a_token_is_revoked_if_any_revocation_of_its_user_or_tenant_is_later_than_its_issue(
    given_ones: list[Revocation], tenant: str, user: str, issued_at_s: int
) -> None:
    table = RevocationTable()
    for each in given_ones:
        table.revoke(each)
    wanted = any(
        issued_at_s * 1000 < each.before_ms for each in given_ones if each.tenant == tenant and each.user in ("", user)
    )
    assert table.is_revoked(tenant, user, issued_at_s) is wanted


@given(revocations, st.integers(1, 3))
def test_the_records_of_all_changes_are_the_table_and_bounded(given_ones: list[Revocation], most: int) -> None:
    table, records = RevocationTable(most), dict[tuple[str, str], int]()
    for each in given_ones:
        added, removed = table.revoke(each)
        records |= {(one.tenant, one.user): one.before_ms for one in added}
        for one in removed:
            records.pop((one.tenant, one.user), None)
        assert records == {(one.tenant, one.user): one.before_ms for one in table.all()}
        for tenant in ("", "acme"):
            assert len([user for of, user in records if of == tenant and user]) <= most
    again = RevocationTable(most)
    for each in table.all():
        again.revoke(each)
    assert set(again.all()) == set(table.all())


@given(revocations, st.integers(1, 3), tenants, users.filter(bool), st.integers(0, 60))
def test_a_full_table_revokes_more_and_never_less(
    given_ones: list[Revocation], most: int, tenant: str, user: str, issued_at_s: int
) -> None:
    small, large = RevocationTable(most), RevocationTable()
    for each in given_ones:
        small.revoke(each)
        large.revoke(each)
    assert small.is_revoked(tenant, user, issued_at_s) or not large.is_revoked(tenant, user, issued_at_s)


def test_the_oldest_of_too_many_holds_for_every_user() -> None:
    table = RevocationTable(2)
    for number, user in enumerate(("ann", "bob", "eve"), 1):
        added, removed = table.revoke(Revocation("", user, number * 10_000))
    assert added == [Revocation("", "eve", 30_000), Revocation("", "", 10_000)]
    assert removed == [Revocation("", "ann", 10_000)]
    assert table.is_revoked("", "kim", 9)
    assert not table.is_revoked("", "kim", 10)
    assert not table.is_revoked("acme", "kim", 9)


def test_a_token_is_revoked_by_its_id_until_it_ends_and_the_latest_end_holds() -> None:
    table = RevocationTable(max_tokens=2)
    for ends_ms in (100, 50):
        assert table.revoke_token(RevokedToken("", "a", ends_ms), 10) == ([RevokedToken("", "a", 100)], [])
    assert table.is_revoked("", "ann", 9, "a")
    assert not table.is_revoked("", "ann", 9)
    assert not table.is_revoked("acme", "ann", 9, "a")
    assert table.revoke_token(RevokedToken("", "over", 10), 10) == ([], [])
    table.revoke_token(RevokedToken("", "b", 60), 10)
    with pytest.raises(TooManyTokens):
        table.revoke_token(RevokedToken("", "c", 70), 59)
    assert table.revoke_token(RevokedToken("acme", "c", 70), 59)[0], "each tenant has its own space"
    assert table.revoke_token(RevokedToken("", "c", 70), 60) == (
        [RevokedToken("", "c", 70)],
        [RevokedToken("", "b", 60)],
    )
    again = RevocationTable()
    again.restore_tokens(table.tokens())
    assert sorted(again.end_tokens(70)) == [RevokedToken("", "c", 70), RevokedToken("acme", "c", 70)]
    assert (again.tokens(), len(again)) == ([RevokedToken("", "a", 100)], 1)
