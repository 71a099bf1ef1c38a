"""Qualified names: nothing is lost, no two tenants share one, the default tenant has its names as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.tenants.names import SEPARATOR, plain_name, qualify, split_name, tenant_of
from protocol.text import is_room_name, is_room_pattern, is_tenant, is_user_id

names = st.text(min_size=1, max_size=64).filter(is_user_id)
tenants = st.just("") | st.from_regex(r"[a-z0-9_-]{1,32}", fullmatch=True)


@given(tenants, names)
def test_a_qualified_name_splits_into_what_it_was_made_of(tenant: str, name: str) -> None:
    qualified = qualify(tenant, name)
    assert split_name(qualified) == (tenant, name)
    assert (tenant_of(qualified), plain_name(qualified)) == (tenant, name)


@given(tenants, names, tenants, names)
def test_two_names_are_one_only_in_one_tenant(tenant: str, name: str, other: str, other_name: str) -> None:
    same = (tenant, name) == (other, other_name)
    assert (qualify(tenant, name) == qualify(other, other_name)) is same


@given(names)
def test_the_default_tenant_has_its_names_as_they_are(name: str) -> None:
    assert qualify("", name) is name


@given(tenants.filter(bool), names)
def test_no_client_can_say_a_qualified_name(tenant: str, name: str) -> None:
    qualified = qualify(tenant, name)
    for accepts in (is_room_name, is_user_id, is_room_pattern, is_tenant):
        assert not accepts(qualified)
    with pytest.raises(ValueError, match="qualified"):
        qualify(tenant, qualified)


@pytest.mark.parametrize("text", ["", "A", "a" * 33, "a b", "a.b", "ä", f"a{SEPARATOR}"])
def test_names_of_tenants_are_short_and_plain(text: str) -> None:
    assert not is_tenant(text)
