"""A browser's connection on the viewers' port: several requests, one answer each, and an end in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.net.http1 import HttpRequest, PageAnswer
from broker.net.page_connection import IDLE_S, LIFE_S, MAX_REQUESTS, PageConnection
from tests.support.poller import Harness, connection_harness

BIG = bytes(range(256)) * 1024
GET = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"


def pages(request: HttpRequest) -> PageAnswer | None:
    bodies = {b"/page": b"hello", b"/big": BIG}
    body = bodies.get(request.target)
    return None if body is None else PageAnswer(200, (("Content-Type", "text/plain"),), body)


@pytest.fixture
def harness() -> Iterator[Harness]:
    with connection_harness() as found:
        found.detector.pages = pages
        yield found


def test_a_connection_answers_one_request_after_another(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(GET)
    first = harness.read(client, 1)
    for _ in range(3):
        client.sendall(GET)
    harness.until(lambda: harness.detector.answered == {200: 4})
    client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    rest = first + harness.read_all(client)
    assert rest.count(b"HTTP/1.1 200 OK\r\n") == 5
    assert rest.count(b"Connection: keep-alive") == 4
    assert rest.endswith(b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")


def test_requests_that_come_at_once_are_answered_in_order(harness: Harness) -> None:
    said = harness.ask(GET * 150 + GET.replace(b"/page", b"/big") + GET.replace(b"/page", b"/other"))
    assert said.count(b"200 OK") == 151
    assert said.count(BIG) == 1
    assert said.endswith(b"There is nothing here.\n")


def test_a_large_answer_arrives_whole_however_slowly_it_is_read(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(GET.replace(b"/page", b"/big") + GET)
    said = harness.read(client, len(BIG))
    client.sendall(GET.replace(b"1.1", b"1.0"))
    said += harness.read_all(client)
    assert BIG in said
    assert said.count(b"\r\n\r\nhello") == 2


def test_the_last_request_of_a_connection_says_so(harness: Harness) -> None:
    said = harness.ask(GET * (MAX_REQUESTS + 3))
    assert said.count(b"200 OK") == MAX_REQUESTS
    assert said.count(b"Connection: close") == 1


def test_head_has_the_length_and_no_body(harness: Harness) -> None:
    said = harness.ask(GET.replace(b"GET", b"HEAD") + GET.replace(b"/page", b"/none"))
    assert b"Content-Length: 5\r\n" in said
    assert b"hello" not in said


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 31\r\n\r\n") + GET,
        GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + GET,
        GET.replace(b"1.1", b"1.0") + GET,
    ],
)
def test_nothing_behind_a_body_is_taken_for_a_request(harness: Harness, request_bytes: bytes) -> None:
    assert harness.ask(request_bytes).count(b"HTTP/1.1") == 1


def test_what_is_no_request_ends_the_connection(harness: Harness) -> None:
    assert harness.ask(GET + b"GET /page HTTP/1.1\r\n\r\n").count(b"400 Bad Request") == 1
    assert harness.ask(GET + b"GET /" + b"a" * 17_000).count(b"431 ") == 1


def test_a_browser_that_reads_nothing_cannot_pile_up_requests(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(GET.replace(b"/page", b"/big") * 40)
    harness.until(lambda: harness.detector.answered[200] >= 1)
    [connection] = [each for each in harness.poller if isinstance(each, PageConnection)]
    harness.turn(50)
    assert harness.detector.answered[200] < 40
    harness.later(IDLE_S + 1.5)
    assert connection.state
    assert harness.budget.used_bytes == 0


def test_an_idle_connection_ends_and_so_does_one_that_lasts(harness: Harness) -> None:
    _, client = harness.greet()
    client.sendall(GET)
    harness.until(lambda: harness.detector.answered == {200: 1})
    [connection] = [each for each in harness.poller if isinstance(each, PageConnection)]
    for _ in range(round(LIFE_S / 3) - 1):
        harness.later(3.0)
        assert not connection.state
        client.sendall(GET)
        harness.turn(3)
    harness.later(6.0)
    assert connection.state
    _, client = harness.greet()
    client.sendall(GET)
    harness.turn(3)
    harness.later(IDLE_S + 1.5)
    assert harness.read_all(client).count(b"hello") == 1


def test_a_websocket_does_not_follow_a_page_on_its_connection(harness: Harness) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    assert harness.ask(GET + upgrade).count(b"404 ") == 1
    assert harness.owners == []


def test_without_pages_there_is_nothing(harness: Harness) -> None:
    harness.detector.pages = None
    assert b"404 Not Found" in harness.ask(GET)
