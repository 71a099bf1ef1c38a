"""``roomcast key``: keys are added, listed and removed; everything else in the file stays."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.api_keys import ApiKey, ApiKeys, KeyFileError, key_table, parse_keys, without_key
from broker.cli.main import main
from protocol.operations import Scope

ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
keys = st.builds(
    ApiKey,
    ids,
    st.binary(min_size=32, max_size=32),
    st.frozensets(st.sampled_from(Scope), min_size=1),
    st.lists(st.sampled_from(["*", "live-*", "lobby"]), min_size=1, max_size=3).map(tuple),
    expires_at=st.integers(0, 2**40 - 1),
    note=st.sampled_from(["", "orders", "[[key]]", "直播"]),
    tenant=st.sampled_from(["", "acme"]),
)
comments = st.sampled_from(["", "# the shop's\n", "\n\n", "# [[key]] is a table\n"])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["key", *map(str, arguments)])


@given(st.lists(st.tuples(keys, comments), unique_by=lambda each: each[0].id, max_size=5), st.data())
def test_removing_a_key_leaves_the_others_and_every_comment(
    tables: list[tuple[ApiKey, str]], data: st.DataObject
) -> None:
    text = "".join(comment + key_table(key) for key, comment in tables)
    known = parse_keys(text, "keys.toml")
    assert known == {key.id: key for key, _ in tables}
    if not tables:
        with pytest.raises(KeyFileError, match=r"keys.toml: has no key shop; it has none"):
            without_key(text, "shop", "keys.toml")
        return
    removed = data.draw(st.sampled_from(sorted(known)))
    left = without_key(text, removed, "keys.toml")
    assert parse_keys(left, "keys.toml") == {id: key for id, key in known.items() if id != removed}
    for _, comment in tables:
        assert comment.strip() in left


def test_a_rotation_ends_with_the_removal_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secrets = [
        run("create", id, "--file", file, "--scope", "admin", "--note", "backend").output.strip()
        for id in ("shop", "shop-2")
    ]
    file.write_text("# keys of the shop\n" + file.read_text())
    assert run("remove", "shop", "--file", file).exit_code == 0
    assert run("list", "--file", file).output == "shop-2 admin * backend\n"
    assert file.read_text().startswith("# keys of the shop\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys.toml"]
    api_keys = ApiKeys.read(file, lambda: 0.0)
    assert [api_keys.verify(secret)[0] is not None for secret in secrets] == [False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        ("", "has no key shop; it has none"),
        ("[[key]]\nid = 5\n", "key 1: id must be"),
        ("not TOML", "keys.toml: "),
    ],
)
def test_what_cannot_be_removed_is_one_line_and_changes_nothing(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_text(content)
    result = run("remove", "shop", "--file", file)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert (file.read_text() if file.exists() else None) == content


def test_a_signing_key_is_a_secret_that_the_file_has_too(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    made = run("create", "signer", "--file", path, "--scope", "rooms:read", "--signing")
    assert made.exit_code == 0, made.output
    secret = made.output.strip()
    assert len(secret) == 43
    assert f'hmac = "{secret}"' in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "signer rooms:read" in run("list", "--file", path).output
