from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.direct import Recipients, check_messages, direct_type, read_values, template_of
from broker.cli.main import main
from protocol.codes import MessageType
from tests.support.durable import durable_broker
from tests.support.examples import examples

NEWS = int(MessageType.ANNOUNCEMENT)


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["direct", "--batch", "may", *arguments], input=given)


def test_both_formats_of_a_list_have_the_same_result() -> None:
    expected = {"ann": {"user": "ann", "code": "C,1"}, "小明": {"user": "小明", "code": "7"}}
    for text in (
        'user,code\nann,"C,1"\n小明,7\n',
        '\ufeffcode , user\r\n"C,1",ann\r\n\r\n7,小明\r\n',
        'user,code\n ann ,"C,1"\n小明\u3000,7\n',
        '{"user": "ann", "code": "C,1"}\n\n{"code": 7, "user": "小明"}\n',
    ):
        assert read_values(io.StringIO(text), "list").values == expected


@examples(60)
@given(st.text())
def test_any_text_is_a_list_or_a_usage_error(text: str) -> None:
    try:
        assert read_values(io.StringIO(text), "list").values
    except click.UsageError:
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'names no column "user"'),
        ("user,code\n", "contains no user"),
        ("name,code\nann,1\n", 'names no column "user"'),
        ("user,code,code\nann,1,2\n", "a column twice"),
        ("user,code\nann,1\nbob\n", "line 3: 1 fields, the first line has 2"),
        ("user,code\nann,1\nbob,2\nann,3\n", "line 4: user 'ann' is in line 2 already"),
        ("user,code\n,1\n", "line 2: a user id has 1 to 64"),
        ('user,code\nann,"1\n', "line 2: unexpected end of data"),
        ('{"user": "ann"}\n{"user": "bob"\n', "line 2: not JSON"),
        ('{"user": "ann"}\n[1]\n', "line 2: not a JSON object"),
        ('{"user": "ann"}\n{"code": "1"}\n', 'line 2: no "user"'),
        ('{"user": "ann", "code": 1.5}\n', "line 1: code is neither text nor a whole number"),
    ],
)
def test_an_error_in_the_list_names_its_line_and_nothing_is_sent(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "codes"
    path.write_text(text, encoding="utf-8")
    done = run("--template", "{code}", "--values", str(path), "--url", "roomcast://127.0.0.1:1")
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_wrong_message_is_found_before_the_first_is_sent() -> None:
    values = {f"u{number}": {"code": str(number)} for number in range(5000)} | {"bob": {}}
    recipients = Recipients(values, {user: line for line, user in enumerate(values, 2)})
    with pytest.raises(click.UsageError, match=r"list, line 5002: \{code\} has no value; nothing was sent"):
        check_messages(recipients, "list", "may", NEWS, ("{code}",), None)
    with pytest.raises(click.UsageError, match=r"line 2: payload.text: must be a string of 1 to 500"):
        check_messages(recipients, "list", "may", NEWS, ("{code}" * 501,), None)
    del values["bob"]
    check_messages(recipients, "list", "may", NEWS, ("{code}",), None)
    with pytest.raises(click.UsageError, match=r"directs.send_many.batch"):
        check_messages(recipients, "list", "m" * 65, NEWS, ("{code}",), None)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("{code} {", NEWS, ("{code} {",)),
        ('{"text": "{code}"}', 130, {"text": "{code}"}),
        ('{"text": "{}"}', 130, {"text": "{}"}),
        ("您的优惠码 {code}", 130, "您的优惠码 {code}"),
    ],
)
def test_a_template_is_a_text_or_the_json_of_a_payload(text: str, kind: int, expected: Any) -> None:
    assert template_of(text, kind) == expected


@pytest.mark.parametrize("braces", ["{}", "{ code }", "{code!r}", "{code:>3}", "{a.b}", "{优惠码}", "{1st}"])
def test_an_announcement_with_braces_without_a_name_is_refused(braces: str) -> None:
    with pytest.raises(click.UsageError, match=r"--template: .* is not a field") as refused:
        template_of(f"{{code}} {braces}", NEWS)
    assert braces in refused.value.message


def test_only_announcements_and_custom_types_are_for_one_user() -> None:
    assert (direct_type("announcement"), direct_type("128"), direct_type("255")) == (NEWS, 128, 255)
    for text in ("danmaku", "127", "256", "-1", "²", ""):
        with pytest.raises(click.BadParameter):
            direct_type(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--template", "x"], "go together"),
        (["--values", "-"], "go together"),
        (["--batch", ""], "must be 1 to 64 characters, not 0"),
        (["--batch", "m" * 65], "must be 1 to 64 characters, not 65"),
        (["--token", "dev:t", "--as", "shop"], "--as is for development"),
        (["--template", "x", "--values", "/nowhere/codes.csv"], "/nowhere/codes.csv: No such file"),
        (["--template", "x", "--values", "-", "--expires", "soon"], "is not a time"),
    ],
)
def test_a_wrong_command_line_sends_nothing(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_without_a_broker_the_error_is_one_line() -> None:
    listed = json.dumps({"user": "ann", "code": "1"})
    done = run("--template", "{code} {user}", "--values", "-", "--url", "roomcast://127.0.0.1:1", given=listed)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no broker at 127.0.0.1:1" in done.stderr


@pytest.mark.integration
async def test_the_counts_of_a_batch_that_was_never_sent_are_an_error(tmp_path: Path) -> None:
    async with durable_broker(tmp_path) as broker:
        host, port = broker.addresses[0]
        found = await trio.to_thread.run_sync(lambda: run("--url", f"roomcast://{host}:{port}"))
    # The log of the broker, which runs in this process, may be in the output too.
    assert (found.exit_code, found.output.splitlines()[-1]) == (1, "Error: the broker has no batch may")
