"""Section [moderation]: what is refused, by path, file, line and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import moderation
from broker.config.moderation import read_word_file
from broker.config.schema import RELOADABLE, Config, ConfigError, load


def load_text(tmp_path: Path, text: str, words: str = "套现\n") -> Config:
    (tmp_path / "words.txt").write_text(words, encoding="utf-8")
    path = tmp_path / "roomcast.toml"
    path.write_text(text.replace("FILE", str(tmp_path / "words.txt")), encoding="utf-8")
    return load(path, {}, {})


LIST = "[[moderation.lists]]\nname = 'ads'\nfile = 'FILE'\naction = 'mask'\n"


def test_a_list_needs_a_name_a_file_and_an_action(tmp_path: Path) -> None:
    (found,) = load_text(tmp_path, LIST).moderation.lists
    assert (found.name, found.action, found.rooms, found.tenant, found.category) == ("ads", "mask", ("*",), None, "")


def test_words_are_lines_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeff# of the shop\r\n套现\r\n\r\n  加 微信 \n".encode())
    assert read_word_file(str(path)) == (("套现", "加 微信"), (2, 4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LIST.replace("'ads'", "'Ads!'"), "moderation.lists[0].name: "),
        (LIST.replace("mask", "delete"), "moderation.lists[0].action: expected one of flag, mask, shadow, hold, block"),
        (LIST.replace("FILE", "missing.txt"), "moderation.lists[0].file: cannot read missing.txt"),
        (LIST + LIST, "moderation.lists[0].name: ads is given to 2 lists"),
        (LIST + "rooms = ['a b']", "moderation.lists[0].rooms[0]: "),
        (LIST + "rooms = []", "moderation.lists[0].rooms: "),
        (LIST + "tenant = 'acme'", "moderation.lists[0].tenant: no table [[tenants]] is called 'acme'"),
        (LIST + "exceptions_file = 'none.txt'", "moderation.lists[0].exceptions_file: cannot read none.txt"),
        ("[moderation]\nexempt_roles = ['king']", "moderation.exempt_roles[0]: "),
        ("[moderation.detectors]\nlinks = 'yes'", "moderation.detectors.links: "),
        ("[moderation.detectors]\nnear_duplicates = 'mask'", "moderation.detectors.near_duplicates: expected one of"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert caught.value.problems[0].startswith(expected)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("好\n# a\n" + "x" * 65, "line 3: a word has at most 64 characters, got 65"),
        ("好\n...\n", "line 2: has no letter and no digit, got '...'"),
        ("a\nb\nc\nd\n", "line 4: all lists have at most 3 words together"),
    ],
)
def test_a_wrong_word_is_named_by_file_line_and_rule(tmp_path: Path, words: str, rule: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moderation, "MAX_FILE_WORDS", 3)
        with pytest.raises(ConfigError) as caught:
            load_text(tmp_path, LIST, words)
    assert caught.value.problems == [f"moderation.lists[0].file: {tmp_path / 'words.txt'}, {rule}"]


def test_all_lists_together_have_a_bound(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moderation, "MAX_FILE_WORDS", 3)
        with pytest.raises(ConfigError, match="at most 3 words together, got 4"):
            load_text(tmp_path, LIST + LIST.replace("ads", "more"), "a\nb\n")


def test_everything_but_the_bounds_of_review_queues_takes_effect_without_a_restart() -> None:
    names = {f"moderation.{name}" for name in Config().moderation.__struct_fields__}
    bounds = {name for name in names if name.startswith(("moderation.held_", "moderation.reported_"))}
    assert len(bounds) == 6
    assert names - RELOADABLE == bounds
