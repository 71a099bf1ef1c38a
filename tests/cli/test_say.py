from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main
from broker.cli.say import Saying, fate_of, message_type
from protocol.clients.events import PostResult
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.payloads import check_payload


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["say", *arguments], env=env)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_what_others_see_or_what_counts_is_good(outcome: Outcome) -> None:
    fate = fate_of(PostResult(outcome, "m", error_code=ErrorCode.ROOM_PAUSED), MessageType.DANMAKU)
    assert fate.is_good == (outcome in (Outcome.ACCEPTED, Outcome.MERGED))
    assert fate.words


def test_an_outcome_is_reported_in_words() -> None:
    def words(result: PostResult, type: int = MessageType.DANMAKU) -> str:
        return fate_of(result, type).words

    assert words(PostResult(Outcome.ACCEPTED, "m")) == "shown"
    assert words(PostResult(Outcome.ACCEPTED, "m", counted=1), MessageType.LIKE) == "counted: 1 like"
    assert words(PostResult(Outcome.ACCEPTED, "m", offset=7), MessageType.GIFT) == "published as event 7 of the room"
    assert words(PostResult(Outcome.LIMITED, "m", retry_after_ms=870)) == "limited: too fast, try again in 0.9 s"
    assert "DUPLICATE_TEXT" in words(PostResult(Outcome.REJECTED, "m", error_code=ErrorCode.DUPLICATE_TEXT))
    wrong = PostResult(Outcome.REJECTED, "m", error_code=101, field="payload.text", message="must be text")
    assert words(wrong) == "rejected: payload.text must be text (BAD_FIELD)"


@pytest.mark.parametrize("sent", [True, False])
def test_an_outcome_that_nobody_knows_is_not_called_good(sent: bool) -> None:
    fate = fate_of(PostResult(None, "m", sent=sent), MessageType.DANMAKU)
    assert not fate.is_good
    assert ("may have arrived" in fate.words) == sent
    assert fate.words.startswith("unknown: " if sent else "not sent: ")


@pytest.mark.parametrize(
    "saying",
    [
        Saying(MessageType.DANMAKU, "你好"),
        Saying(MessageType.EMOTE, "clap"),
        Saying(MessageType.ANNOUNCEMENT, "a\nb"),
        Saying(MessageType.LIKE, ""),
        Saying(MessageType.LIKE, "12"),
        Saying(MessageType.GIFT, "rocket"),
        Saying(130, '{"sku": 3}'),
        Saying(130, "not json"),
    ],
)
def test_what_is_said_is_a_payload_that_the_wire_takes(saying: Saying) -> None:
    check_payload(saying.type, saying.payload(1, "anna", "order"))


def test_the_number_of_a_message_can_be_part_of_its_text_and_gifts_are_different_orders() -> None:
    assert Saying(MessageType.DANMAKU, "{n} hi").payload(3, "a", "o").text == "3 hi"
    orders = {Saying(MessageType.GIFT, "rocket").payload(n, "a", "o").order_id for n in range(5)}
    assert len(orders) == 5
    assert Saying(130, '{"sku": {n}}').payload(3, "a", "o") == {"sku": 3}


def test_types_go_by_name_and_custom_ones_by_number() -> None:
    assert message_type("gift") == MessageType.GIFT
    assert message_type("200") == 200
    for text in ("room_phase", "missed", "12", "256", "x", "²"):
        with pytest.raises(click.BadParameter):
            message_type(text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("lobby",), "TEXT is missing"),
        (("lobby", "many", "--type", "like"), "TEXT of a like"),
        (("lobby", "hi", "--token", "t", "--as", "anna"), "--as is for development"),
        (("lobby", "hi", "--as", "anna:king"), "USER:ROLE"),
        (("lobby", "hi", "--url", "http://x"), "'http' is not one of"),
        (("lobby", "hi", "--type", "shout"), "neither one of"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments: tuple[str, ...], complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_where_no_broker_is_one_line_says_how_to_start_one() -> None:
    result = run("lobby", "hi", "--url", "roomcast://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.output == "Error: no broker at 127.0.0.1:1 (connection refused); start one with: roomcast serve\n"
