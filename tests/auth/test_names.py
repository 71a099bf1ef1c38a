"""Names of rooms and ids of users: one rule each, wherever one is given."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import assume, example, given
from hypothesis import strategies as st

from broker.auth.grants import AuthError, Grant, GrantReader, development_grant
from broker.cli.client import development_token
from broker.cli.direct import read_values
from broker.cli.main import main
from broker.cli.token import room_entry
from broker.config.schema import ConfigError, load
from protocol.connection import Connection
from protocol.errors import LocalProtocolError
from protocol.fields import FieldError, room_name
from protocol.messages import Join, Side
from protocol.operations import BY_NAME
from protocol.payloads import GiftPayload, check_payload
from protocol.text import is_room_name, is_user_id
from tests.support.strategies import room_names, user_ids

GOOD_ROOMS = ["lobby", "live-1", "直播:7", "ห้องนอน", "हिन्दी", "বাংলা.ঘর", "ಕನ್ನಡ", "தமிழ்", "café", "Ⅷ", "ก" * 64]
BAD_ROOMS = [
    "", "a b", "a/b", "a\n", "a" * 65, "้าง", "-้", "cafe\u0301", "\u212b", "a\u200bb", "ᅠ", "a\ufe0f", "a\u034f",
    "a\u20dd", "🎉", "a\ud800", "a*b", "**",
]  # fmt: skip
"""Among them: marks at the beginning or behind punctuation, another form of a good name, and invisible letters."""


def grant(**claims: Any) -> Grant:
    rooms = [{"pattern": "*"}]
    return GrantReader().read({"sub": "shop", "exp": 2_000_000_000, "rooms": rooms} | claims)


def accepts(take: Callable[[str], object], *errors: type[Exception]) -> Callable[[str], bool]:
    """Return whether ``take`` accepts a text, as a function of the text; any other error is a failure."""

    def ask(text: str) -> bool:
        try:
            take(text)
        except errors:
            return False
        return True

    return ask


def settings_with_guests_in(pattern: str) -> None:
    load(None, {}, {"auth.secret": "0123456789abcdef" * 2, "auth.guest_access": [pattern]})


ROOM_PLACES: dict[str, Callable[[str], bool]] = {
    "JOIN": accepts(lambda text: Connection(Side.CLIENT).check(Join(text)), LocalProtocolError),
    "the rule of the field": accepts(room_name, FieldError),
    "a token": accepts(lambda text: grant(rooms=[{"pattern": text}]), AuthError),
    "auth.guest_access": accepts(settings_with_guests_in, ConfigError),
    "roomcast token --room": accepts(room_entry, click.BadParameter),
}


@pytest.mark.parametrize("place", ROOM_PLACES)
def test_names_of_rooms_are_of_any_script(place: str) -> None:
    assert [name for name in GOOD_ROOMS if not ROOM_PLACES[place](name)] == []
    assert [name for name in BAD_ROOMS if ROOM_PLACES[place](name)] == []


@given(room_names | st.text(max_size=66) | st.text("aé\u0301中ีกิक\u200d-_.:@ ", max_size=66))
def test_every_place_has_the_same_rule_for_the_name_of_a_room(text: str) -> None:
    assume(not text.endswith("*"))  # a pattern of rooms, which most places take too
    good = is_room_name(text)
    # "x:host" is a pattern and a role on the command line.
    assert {place: ask(text) for place, ask in ROOM_PLACES.items()} == dict.fromkeys(ROOM_PLACES, good)


@given(room_names, st.integers(0, 64))
def test_the_beginning_of_a_name_and_a_star_is_a_pattern_of_it(name: str, length: int) -> None:
    pattern = name[:length] + "*"
    (entry,) = grant(rooms=[{"pattern": pattern}]).rooms
    assert entry.fits(name)
    settings_with_guests_in(pattern)
    assert room_entry(pattern) == (pattern, None)


def gift(**fields: Any) -> None:
    values: dict[str, Any] = {
        "order_id": "o-1",
        "user_id": "ann",
        "name": "Ann",
        "gift_id": "rose",
        "count": 1,
        "price_cents": 1,
    }
    check_payload(5, GiftPayload(**values | fields))


def sent_to(user: str) -> None:
    BY_NAME["directs.send_many"].read(("may", 4, ("hi",), {user: {}}))


def command(*arguments: str) -> Callable[[str], bool]:
    def ask(text: str) -> bool:
        result = CliRunner().invoke(main, [*arguments, text], env={"ROOMCAST_AUTH__SECRET": "0123456789abcdef" * 2})
        assert result.exit_code in (0, 2), result.output
        return result.exit_code == 0

    return ask


USER_PLACES: dict[str, Callable[[str], bool]] = {
    "a token": accepts(lambda text: grant(sub=text), AuthError),
    "payer of a gift": accepts(lambda text: gift(user_id=text), FieldError),
    "target of a gift": accepts(lambda text: gift(target=text), FieldError),
    "directs.send_many": accepts(sent_to, FieldError),
}
WITHOUT_COLON: dict[str, Callable[[str], bool]] = {
    "a development token": accepts(lambda text: development_grant(f"dev:{text}"), AuthError),
    "--as": accepts(lambda text: development_token(text, "app"), click.UsageError),
}
"""A colon ends the id here."""
TRIMMED: dict[str, Callable[[str], bool]] = {
    "roomcast direct, NDJSON": accepts(
        lambda text: read_values(io.StringIO(json.dumps({"user": text})), "list"), click.UsageError
    ),
    "roomcast direct, CSV": accepts(
        lambda text: read_values(io.StringIO('user,code\n"' + text.replace('"', '""') + '",1\n'), "list"),
        click.UsageError,
    ),
}
"""White space around the id is removed here."""


@given(user_ids | st.text(min_size=1, max_size=66) | st.text(" \u3164\u200bab\ufe0f", min_size=1, max_size=66))
@example("ann ")
@example("a\u200db")
@example("a\ud800")
@example("\u3164")
@example("a" * 65)
def test_what_a_login_cannot_have_is_refused_wherever_a_user_is_named(text: str) -> None:
    good = is_user_id(text)
    assert {place: ask(text) for place, ask in USER_PLACES.items()} == dict.fromkeys(USER_PLACES, good)
    if ":" not in text:
        assert {place: ask(text) for place, ask in WITHOUT_COLON.items()} == dict.fromkeys(WITHOUT_COLON, good)
    trimmed = is_user_id(text.strip())
    assert {place: ask(text) for place, ask in TRIMMED.items()} == dict.fromkeys(TRIMMED, trimmed)


@pytest.mark.parametrize(("user", "good"), [("ann", True), ("ann ", False), ("\u3164", False), ("", False)])
def test_no_token_is_made_for_what_a_login_cannot_have(user: str, good: bool) -> None:
    assert command("token", "--user")(user) is good


@pytest.mark.parametrize("name", ["a" * 65, "a\nb", "\u202eann", "a\ud800"])
def test_the_name_of_a_payer_is_one_that_a_token_may_have(name: str) -> None:
    with pytest.raises(FieldError):
        gift(name=name)
    with pytest.raises(AuthError):
        grant(name=name)


@pytest.mark.parametrize("name", ["", " ", "\u200b", "\u3164"])
def test_a_name_that_shows_nothing_is_replaced_with_the_id(name: str) -> None:
    assert grant(name=name).name == "shop"
