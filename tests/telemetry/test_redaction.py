"""No log line holds what people write, their names, ids or tokens: by itself, and in all that a broker logs."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.config.schema import LogConfig
from broker.ledger import database_path
from broker.operations.kept import required
from broker.telemetry.logs import LogFile, configure
from broker.telemetry.redaction import PLAIN_FIELDS, USER_FIELDS, redact
from protocol.codes import MessageType
from protocol.messages import Auth
from tests.support.broker import raw_link
from tests.support.erasing import EVERYTHING, VICTIM, erase, erasing_broker, populate
from tests.support.faulty_disk import quick_directory
from tests.support.operating import operate
from tests.support.until import until

ROOT = Path(__file__).parent.parent.parent
SECRET = "geheim-4711"
values: Any = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.none(), st.just(f"my {SECRET}"), st.just(SECRET.encode())),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=5,
)


@given(st.text().filter(lambda field: field not in PLAIN_FIELDS and field != "exc_info"), values)
def test_a_text_passes_in_no_field_that_is_not_known_to_hold_none(field: str, value: Any) -> None:
    assert SECRET not in repr(redact(None, "info", {"event": "it happened", field: value}))


def test_a_user_is_the_same_hash_in_every_line_and_members_of_tables_stay() -> None:
    lines = [
        redact(None, "info", {"event": "x", field: SECRET, "reason": "ROOM_IDLE"}) for field in sorted(USER_FIELDS)
    ]
    found = {line[field] for line, field in zip(lines, sorted(USER_FIELDS), strict=True)}
    assert len(found) == 1
    assert found.pop().startswith("user~")
    assert lines[0]["reason"] == "ROOM_IDLE"
    assert redact(None, "info", {"event": "x", "by": ""})["by"] == ""


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / "broker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "log" and node.args:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return is_constant(node.body) and is_constant(node.orelse)
    return isinstance(node, ast.Constant)


def test_what_is_logged_is_a_constant_text_and_fields() -> None:
    calls = list(log_calls())
    assert len(calls) > 80
    assert [place for place, call in calls if not all(map(is_constant, call.args))] == []


@contextmanager
def captured(redacts: bool) -> Iterator[list[str]]:
    """Log every line of every level; afterwards the list has them."""
    reader, writer = os.pipe()
    file = LogFile(writer)
    lines: list[str] = []
    configure(LogConfig(level="debug", redact=redacts), file)
    try:
        yield lines
    finally:
        file.close()
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as text:
            lines += text.read().splitlines()
        structlog.reset_defaults()


def test_a_traceback_keeps_types_and_places_and_loses_messages() -> None:
    def fail() -> None:
        try:
            int(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error

    for redacts in (True, False):
        with captured(redacts) as lines:
            try:
                try:
                    fail()
                except KeyError as error:
                    raise ExceptionGroup(SECRET, [error, OSError(SECRET)]) from None
            except ExceptionGroup:
                structlog.get_logger().exception("it failed", room="live-1")
        (line,) = [json.loads(line) for line in lines]
        assert line["room"] == "live-1"
        for part in ("ExceptionGroup", "KeyError", "ValueError", "OSError", "in fail"):
            assert part in line["exception"], part
        assert (f"{SECRET}'" in line["exception"]) is not redacts
    assert "\n" not in line["event"]


async def cause_lines(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a broker do all that it logs, with texts, names and tokens that are known."""
    directory = root / "data"
    async with erasing_broker(directory) as broker:
        await populate(broker, EVERYTHING)
        async with raw_link(broker) as link:
            await link.hello()
            await link.send((Auth(f"dev:{SECRET} with spaces:nobody"), 0, 0))
            await link.expect_close()
        async with raw_link(broker) as link:
            await link.login(f"dev:{SECRET}")
            room, _ = await link.join("live-1")
            await link.post(room, 1, MessageType.DANMAKU, (f"text {SECRET}",))
            await operate(broker, "users.kick", "live-1", SECRET, f"reason {SECRET}", 10)
            await operate(broker, "users.disconnect", SECRET, f"reason {SECRET}")
            await link.expect_close()
        async with raw_link(broker) as link:
            await link.stream.send_all(f"GET /{SECRET} HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode())
            await link.stream.send_eof()
            async for _ in link.stream:
                pass
        found = broker.hub.find("live-1")
        assert found is not None

        def fail(*args: Any, **more: Any) -> None:
            raise ValueError(f"no such user: {SECRET}")

        with monkeypatch.context() as patch:
            patch.setattr("broker.operations.users._rooms_of", fail)
            async with raw_link(broker) as link:
                await link.login(f"dev:{SECRET}-2")
                with pytest.raises(ValueError, match="no such user"):
                    await operate(broker, "users.get", f"{SECRET}-2")
        try:
            raise ValueError(f"a defect that quotes {SECRET}")
        except ValueError:
            broker.hub.crash(found)
        await trio.testing.wait_all_tasks_blocked(0.01)
        inboxes = required(broker.inboxes)
        await operate(broker, "directs.send", VICTIM, 4, [f"text {SECRET}"])
        assert broker.ledger is not None
        await broker.ledger.flush()
        with monkeypatch.context() as patch:
            patch.setattr("broker.users.inbox.unpack_body", lambda body: [][0])
            async with raw_link(broker) as link:
                await link.login(f"dev:{VICTIM}")
                await until(lambda: inboxes.delivered)
        await erase(broker)
    assert database_path(directory).exists()


MARKS = (SECRET, "secret ", "Vic the Great", "hello ", VICTIM, VICTIM.replace('"', '\\"'))


@pytest.mark.integration
def test_nothing_that_people_write_no_name_and_no_token_is_in_any_line_that_a_broker_logs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: dict[bool, list[str]] = {}
    for redacts in (True, False):
        with quick_directory() as root, captured(redacts) as lines:
            trio.run(cause_lines, root, monkeypatch)
        found[redacts] = [line for line in lines if any(mark in line for mark in MARKS)]
        assert len({json.loads(line)["event"] for line in lines}) >= 12
    assert found[True] == []
    assert len(found[False]) >= 3, "the same broker without redaction"
