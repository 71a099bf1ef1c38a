from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.loader import Layers, Problem, field_docs, nested, write_toml
from tests.support.examples import examples

NONE = frozenset[str]()


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel."""

    size_mm: Annotated[int, msgspec.Meta(ge=1, le=900)]
    """Diameter."""
    tags: tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z]+\Z", examples=["soft"])], ...] = ()


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What drives it.

    Second paragraph.
    """

    power_kw: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 50.0
    """Power, in the
    long run."""
    fuel: Literal["diesel", "wood"] = "wood"
    turbo: bool = False
    serial: Annotated[str, msgspec.Meta(min_length=3, extra={"secret": True})] | None = None
    limit_kmh: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Car(msgspec.Struct, frozen=True, kw_only=True):
    engine: Engine = msgspec.field(default_factory=Engine)
    wheels: tuple[Wheel, ...] = ()
    """Any number."""


def problems(table: dict[str, Any]) -> list[str]:
    layers = Layers(Car)
    layers.add(table)
    return [str(problem) for problem in layers.problems]


def test_later_layers_win_key_by_key() -> None:
    layers = Layers(Car)
    layers.add({"engine": {"power_kw": 60, "fuel": "diesel"}})
    layers.add_environment({"X_ENGINE__POWER_KW": "70", "HOME": "/", "X_KEEP": "out"}, "X_", frozenset({"X_KEEP"}))
    layers.add(nested("engine.turbo", "yes"), "a flag", text_values=True)
    assert not layers.problems
    assert layers.build().engine == Engine(power_kw=70.0, fuel="diesel", turbo=True)


def test_a_list_is_replaced_not_joined() -> None:
    layers = Layers(Car)
    layers.add({"wheels": [{"size_mm": 1}, {"size_mm": 2}]})
    layers.add({"wheels": [{"size_mm": 3}]})
    assert layers.build().wheels == (Wheel(size_mm=3),)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"engine": {"power_kw": -1}}, "engine.power_kw: expected float >= 0.0, got -1"),
        ({"engine": {"power_kw": "much"}}, "engine.power_kw: expected float, got 'much'"),
        ({"engine": {"power_kw": float("nan")}}, "engine.power_kw: expected float >= 0.0, got nan"),
        ({"engine": {"limit_kmh": 0}}, "engine.limit_kmh: expected int >= 1, got 0"),
        ({"engine": {"limit_kmh": "1"}}, "engine.limit_kmh: expected int, got '1'"),
        ({"engine": {"limit_kmh": True}}, "engine.limit_kmh: expected int, got True"),
        ({"engine": {"turbo": "yes"}}, "engine.turbo: expected bool, got 'yes'"),
        ({"engine": {"fuel": "wod"}}, "engine.fuel: expected one of diesel, wood, got 'wod'; did you mean wood?"),
        ({"engine": {"fuel": 3}}, "engine.fuel: expected str, got 3"),
        ({"engine": 5}, "engine: expected a table, got 5"),
        ({"wheels": 5}, "wheels: expected an array of tables, got 5"),
        ({"wheels": [5]}, "wheels[0]: expected a table, got 5"),
        ({"wheels": [{"size_mm": 1}, {}]}, "wheels[1].size_mm: is required"),
        ({"wheels": [{"size_mm": 0}]}, "wheels[0].size_mm: expected int >= 1, got 0"),
        ({"wheels": [{"size_mm": 1, "size": 1}]}, "wheels[0].size: unknown key; did you mean wheels[0].size_mm?"),
        (
            {"wheels": [{"size_mm": 1, "tags": ["a", "B"]}]},
            "wheels[0].tags[1]: expected a string such as soft, got 'B'",
        ),
        ({"engine": {"turob": True}}, "engine.turob: unknown key; did you mean engine.turbo?"),
        ({"turbo": True}, "turbo: unknown key; did you mean engine.turbo?"),
        ({"zzz": 1}, "zzz: unknown key; known here: engine, wheels"),
        ({"engine": {"serial": "12"}}, "engine.serial: expected str of length >= 3, got a secret that is not shown"),
    ],
)
def test_a_wrong_value_names_its_path_and_its_rule(table: dict[str, Any], expected: str) -> None:
    assert problems(table) == [expected]


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    assert len(problems({"engine": {"power_kw": -1, "x": 1, "turbo": 2}, "wheels": [{}, 3], "y": 1})) == 6


def test_a_shown_value_is_of_bounded_length() -> None:
    (text,) = problems({"engine": {"fuel": "x" * 100_000}})
    assert len(text) < 200


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("X_ENGINE_TURBO", "1", "X_ENGINE_TURBO: unknown variable; did you mean X_ENGINE__TURBO?"),
        ("X_Q", "1", "X_Q: unknown variable"),
        ("X_engine__turbo", "1", "X_engine__turbo: unknown variable"),
        ("X_ENGINE__POWER_KW__X", "1", "X_ENGINE__POWER_KW__X: unknown variable; did you mean X_ENGINE__POWER_KW?"),
        ("X_ENGINE__LIMIT_KMH", "2.5", "engine.limit_kmh: expected int, got '2.5' (from X_ENGINE__LIMIT_KMH)"),
        ("X_ENGINE__LIMIT_KMH", "", "engine.limit_kmh: expected int, got '' (from X_ENGINE__LIMIT_KMH)"),
        ("X_ENGINE__TURBO", "maybe", "engine.turbo: expected bool, got 'maybe' (from X_ENGINE__TURBO)"),
        ("X_WHEELS", "[broken", "wheels: expected an array of tables, got '[broken' (from X_WHEELS)"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(variable: str, value: str, problem: str) -> None:
    layers = Layers(Car)
    layers.add_environment({variable: value}, "X_", NONE)
    assert [str(p) for p in layers.problems] == [problem]


def test_text_becomes_what_the_field_wants() -> None:
    layers = Layers(Car)
    env = {
        "X_ENGINE__LIMIT_KMH": " 90 ",
        "X_ENGINE__TURBO": "On",
        "X_ENGINE__SERIAL": "null",
        "X_WHEELS": '[{size_mm = 5, tags = ["a"]}]',
    }
    layers.add_environment(env, "X_", NONE)
    assert not layers.problems
    assert layers.build() == Car(
        engine=Engine(limit_kmh=90, turbo=True, serial="null"), wheels=(Wheel(size_mm=5, tags=("a",)),)
    )


def test_a_file_is_not_read_leniently() -> None:
    assert problems({"engine": {"limit_kmh": "90", "turbo": 1}}) == [
        "engine.limit_kmh: expected int, got '90'",
        "engine.turbo: expected bool, got 1",
    ]


def test_a_comment_is_the_docstring_and_the_rule() -> None:
    text = write_toml(Car())
    assert "# What drives it.\n#\n# Second paragraph.\n[engine]" in text
    assert "# Power, in the long run. (0 to 1000; default 50.0)\npower_kw = 50.0" in text
    assert '(one of diesel, wood; default "wood")' in text
    assert "# limit_kmh is not set" in text
    assert "# Any number.\n# [[wheels]]\n# size_mm: Diameter. (1 to 900; required)" in text
    assert field_docs(Wheel) == {"size_mm": "Diameter."}


def test_a_secret_is_never_written() -> None:
    car = Car(engine=Engine(serial="hush-hush"))
    assert "hush" not in write_toml(car) + write_toml(car, comments=False)
    assert "# serial is set, and not shown" in write_toml(car)


def test_a_problem_says_where_it_was_said() -> None:
    assert str(Problem("a.b", "is wrong")) == "a.b: is wrong"
    assert str(Problem("a.b", "is wrong", "X_A__B")) == "a.b: is wrong (from X_A__B)"


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_cars = st.builds(
    Car,
    engine=st.builds(
        Engine,
        power_kw=st.floats(0, 1000),
        fuel=st.sampled_from(["diesel", "wood"]),
        turbo=st.booleans(),
        limit_kmh=st.none() | st.integers(1, 2**63 - 1),
    ),
    wheels=st.lists(
        st.builds(Wheel, size_mm=st.integers(1, 900), tags=st.lists(st.sampled_from(["a", "bc"])).map(tuple))
    ).map(tuple),
)


@examples(40)
@given(_cars, st.booleans())
def test_what_is_written_is_read_back_equal(car: Car, comments: bool) -> None:
    layers = Layers(Car)
    layers.add(tomllib.loads(write_toml(car, comments=comments)))
    assert not layers.problems
    assert layers.build() == car


class Note(msgspec.Struct, frozen=True):
    text: str = ""


class Desk(msgspec.Struct, frozen=True):
    note: Note = Note()


@given(_text)
def test_any_text_survives_writing_and_reading(text: str) -> None:
    assert tomllib.loads(write_toml(Desk(Note(text)))) == {"note": {"text": text}}


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["engine", "wheels", "power_kw", "turbo", "size_mm", "tags"]) | _text, inner, max_size=3
        )
    ),
    max_leaves=10,
)


@examples(60)
@given(st.dictionaries(st.sampled_from(["engine", "wheels"]) | _text, _junk), st.booleans())
def test_any_table_gives_problems_or_a_struct_and_never_an_exception(table: dict[str, Any], text_values: bool) -> None:
    layers = Layers(Car)
    layers.add(table, text_values=text_values)
    assert isinstance(layers.build(), Car)
    assert all(problem.path for problem in layers.problems) or "" in table
