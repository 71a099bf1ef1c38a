"""Log lines whose reader has stopped: no task waits for it, the memory is bounded, and what was dropped is counted."""

from __future__ import annotations

import json
import os
import threading

import pytest
import structlog

from broker.config.schema import LogConfig
from broker.telemetry.logs import MAX_WAITING_CHARS, LogFile, configure, report_left_out


def read_until_closed(descriptor: int) -> list[str]:
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read().splitlines()


def test_lines_come_in_order_and_the_last_ones_before_the_end() -> None:
    reader, writer = os.pipe()
    file = LogFile(writer)
    configure(LogConfig(level="info"), file)
    log = structlog.get_logger()
    for number in range(100):
        log.info(f"弹幕 {number % 20}", number=number)  # above ten of a kind in a second they are sampled
    file.close()
    os.close(writer)
    lines = [json.loads(line) for line in read_until_closed(reader)]
    assert [line["number"] for line in lines] == list(range(100))
    assert [line["event"] for line in lines] == [f"弹幕 {number % 20}" for number in range(100)]


def test_a_line_is_one_write_so_that_processes_with_one_standard_error_do_not_mix_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[bytes] = []

    def write(_descriptor: int, data: memoryview) -> int:
        written.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    file = LogFile(2)
    configure(LogConfig(level="info"), file)
    for number in range(3):
        structlog.get_logger().info("process serves", number=number)
    file.close()
    assert [(json.loads(data)["number"], data[-1:]) for data in written] == [(n, b"\n") for n in range(3)]


def test_of_many_lines_of_a_kind_ten_are_written_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("broker.telemetry.logs.monotonic", lambda: now)
    reader, writer = os.pipe()
    file = LogFile(writer)
    configure(LogConfig(level="info"), file)
    log = structlog.get_logger()
    for number in range(1000):
        log.info("auth refused", number=number)
        log.error("room crashed") if number < 3 else log.debug("link closed")
    report_left_out()
    now = 101.5
    report_left_out()
    report_left_out()
    log.info("auth refused", number=1000)
    file.close()
    os.close(writer)
    lines = [json.loads(line) for line in read_until_closed(reader)]
    assert [line["number"] for line in lines if line["event"] == "auth refused"] == [*range(10), 1000]
    assert sum(line["event"] == "room crashed" for line in lines) == 3
    (left_out,) = [line for line in lines if line["event"] == "log lines left out"]
    assert (left_out["of"], left_out["count"]) == ("auth refused", 990)


def test_a_reader_that_stalls_holds_nobody_up_and_hears_later_what_it_missed() -> None:
    reader, writer = os.pipe()
    file = LogFile(writer)
    line = "x" * 999 + "\n"
    count = 3 * MAX_WAITING_CHARS // len(line)
    for _ in range(count):
        file.write(line)  # without a reader this would hang for ever
    assert file.waiting_chars <= MAX_WAITING_CHARS

    def finish() -> None:
        file.write("at last\n")
        file.close()
        os.close(writer)

    lines: list[str] = []
    with os.fdopen(reader, encoding="utf-8") as source:
        for read in source:
            lines.append(read)
            if "log lines dropped" in read:
                threading.Thread(target=finish).start()
    reported = sum(json.loads(read)["count"] for read in lines if read.startswith("{"))
    assert lines.count(line) + reported == count
    assert reported > count // 2
    assert file.dropped == reported
    assert lines[-1] == "at last\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    file = LogFile(writer)
    for _ in range(10):
        file.write("this is never read\n")
    file.close()
    assert not file.is_running
    os.close(writer)
