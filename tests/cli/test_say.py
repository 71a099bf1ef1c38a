from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main
from broker.cli.say import PostTemplate, message_type, report_of
from protocol.clients.events import PostResult
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.payloads import check_payload


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["say", *arguments], env=env)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_shown_merged_masked_and_counted_posts_are_good(outcome: Outcome) -> None:
    report = report_of(PostResult(outcome, "m", error_code=ErrorCode.ROOM_PAUSED), MessageType.DANMAKU)
    assert report.is_good == (outcome in (Outcome.ACCEPTED, Outcome.MERGED, Outcome.MASKED))
    assert report.text


def test_an_outcome_is_described() -> None:
    def text_of(result: PostResult, type: int = MessageType.DANMAKU) -> str:
        return report_of(result, type).text

    assert text_of(PostResult(Outcome.ACCEPTED, "m")) == "shown"
    assert text_of(PostResult(Outcome.ACCEPTED, "m", counted=1), MessageType.LIKE) == "counted: 1 like"
    assert text_of(PostResult(Outcome.ACCEPTED, "m", offset=7), MessageType.GIFT) == "published as event 7 of the room"
    kept = text_of(PostResult(Outcome.UNAVAILABLE, "m", retry_after_ms=2000), MessageType.GIFT)
    assert kept == "not kept: the broker's disk does not take it now (/healthz says why); again in 2.0 s"
    unchecked = text_of(PostResult(Outcome.UNAVAILABLE, "m", retry_after_ms=2000))
    assert unchecked == "not kept: the platform, which checks it, does not answer now; again in 2.0 s"
    blocked = PostResult(Outcome.REJECTED, "m", error_code=ErrorCode.BLOCKED, message="spam")
    assert text_of(blocked) == "rejected: spam (BLOCKED)"
    muted = PostResult(Outcome.REJECTED, "m", error_code=ErrorCode.MUTED, retry_after_ms=598_400)
    assert text_of(muted) == "rejected: a moderator or the platform has muted you (MUTED); again in 598 s"
    assert text_of(PostResult(Outcome.MASKED, "m")).startswith("shown, with another text")
    assert text_of(PostResult(Outcome.LIMITED, "m", retry_after_ms=870)) == "limited: too fast, try again in 0.9 s"
    assert "DUPLICATE_TEXT" in text_of(PostResult(Outcome.REJECTED, "m", error_code=ErrorCode.DUPLICATE_TEXT))
    wrong = PostResult(Outcome.REJECTED, "m", error_code=101, field="payload.text", message="must be text")
    assert text_of(wrong) == "rejected: payload.text must be text (BAD_FIELD)"


@pytest.mark.parametrize("sent", [True, False])
def test_an_unknown_outcome_is_not_good(sent: bool) -> None:
    report = report_of(PostResult(None, "m", sent=sent), MessageType.DANMAKU)
    assert not report.is_good
    assert ("may have arrived" in report.text) == sent
    assert report.text.startswith("unknown: " if sent else "not sent: ")


@pytest.mark.parametrize(
    "template",
    [
        PostTemplate(MessageType.DANMAKU, "你好"),
        PostTemplate(MessageType.EMOTE, "clap"),
        PostTemplate(MessageType.ANNOUNCEMENT, "a\nb"),
        PostTemplate(MessageType.LIKE, ""),
        PostTemplate(MessageType.LIKE, "12"),
        PostTemplate(MessageType.GIFT, "rocket"),
        PostTemplate(130, '{"sku": 3}'),
        PostTemplate(130, "not json"),
    ],
)
def test_a_template_makes_payloads_that_the_wire_accepts(template: PostTemplate) -> None:
    check_payload(template.type, template.payload(1, "anna"))


def test_a_text_may_contain_its_number_and_gifts_are_different_orders() -> None:
    assert PostTemplate(MessageType.DANMAKU, "{n} hi").payload(3, "a").text == "3 hi"
    orders = [PostTemplate(MessageType.GIFT, "rocket", "o-{n}").payload(n, "a").order_id for n in range(3)]
    assert orders == ["o-0", "o-1", "o-2"]
    assert PostTemplate(130, '{"sku": {n}}').payload(3, "a") == {"sku": 3}


def test_types_are_given_by_name_or_number() -> None:
    assert message_type("gift") == MessageType.GIFT
    assert (message_type("200"), message_type("5")) == (200, MessageType.GIFT)
    for text in ("room_phase", "missed", "12", "256", "x", "²"):
        with pytest.raises(click.BadParameter):
            message_type(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lobby",), "TEXT is missing"),
        (("lobby", "many", "--type", "like"), "TEXT of a like"),
        (("lobby", "hi", "--token", "dev:t", "--as", "anna"), "--as is for development"),
        (("lobby", "hi", "--as", "anna:king"), "USER:ROLE"),
        (("lobby", "hi", "--url", "http://x"), "'http' is not one of"),
        (("lobby", "hi", "--type", "shout"), "neither one of"),
        (("lobby", "hi", "--order-id", "o-1"), "--order-id is for --type gift"),
        (("lobby", "rose", "--type", "gift", "--count", "2", "--order-id", "o-1"), "contains {n}"),
        (("lobby", "hi", "--ca", "no-such-file.pem"), "--ca no-such-file.pem: No such file or directory"),
        (("lobby", "hi", "--ca", __file__), "contains no certificate in PEM form"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_without_a_broker_one_line_says_how_to_start_one() -> None:
    result = run("lobby", "hi", "--url", "roomcast://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.output == "Error: no broker at 127.0.0.1:1 (connection refused); start one with: roomcast serve\n"
