"""The registry of numbers: ranges mean what they say, and no number serves twice."""

from __future__ import annotations

from enum import IntEnum

import pytest

from protocol.codes import (
    CUSTOM_TYPE_MIN,
    MESSAGE_TYPES,
    CloseCode,
    Codec,
    ErrorCode,
    Feature,
    Lane,
    LeaveReason,
    MessageType,
    Opcode,
    Outcome,
    ReconnectAdvice,
    Role,
    RoomPhase,
    Tier,
    reconnect_advice,
)
from protocol.compression import best_codec

ENUMS: list[type[IntEnum]] = [
    CloseCode, Codec, ErrorCode, Lane, LeaveReason, MessageType, Opcode, Outcome, Role, RoomPhase, Tier,
]  # fmt: skip


@pytest.mark.parametrize("kind", ENUMS)
def test_no_number_serves_twice(kind: type[IntEnum]) -> None:
    assert len(kind) == len(kind.__members__), "an alias hides a second name of one number"


def test_header_fields_hold_every_number() -> None:
    assert all(0 < opcode < 2**16 for opcode in Opcode)
    assert list(Lane) == [0, 1, 2, 3, 4]
    assert all(0 <= codec < 16 for codec in Codec)


def test_every_built_in_type_has_a_rule_and_stays_below_the_custom_ones() -> None:
    assert set(MESSAGE_TYPES) == set(MessageType)
    assert max(MessageType) < CUSTOM_TYPE_MIN
    assert all(0 < rule.max_bytes <= 4096 for rule in MESSAGE_TYPES.values())


def test_only_the_platform_posts_what_costs_money() -> None:
    assert MESSAGE_TYPES[MessageType.GIFT].post_roles == {Role.APP}


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (CloseCode.GOING_AWAY, ReconnectAdvice.NOW),
        (CloseCode.SLOW_VIEWER, ReconnectAdvice.NOW),
        (4199, ReconnectAdvice.NOW),
        (4200, ReconnectAdvice.BACKOFF),
        (4399, ReconnectAdvice.BACKOFF),
        (CloseCode.BAD_FRAME, ReconnectAdvice.NEVER),
        (CloseCode.KICKED, ReconnectAdvice.NEVER),
        (4599, ReconnectAdvice.NEVER),
        (4600, ReconnectAdvice.BACKOFF),
        (3999, ReconnectAdvice.BACKOFF),
        (1006, ReconnectAdvice.BACKOFF),
    ],
)
def test_the_range_of_a_close_code_says_whether_to_come_back(code: int, advice: ReconnectAdvice) -> None:
    assert reconnect_advice(code) is advice


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_is_a_private_websocket_code_in_a_known_range(code: CloseCode) -> None:
    assert 4000 <= code < 4600


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_is_in_a_known_range(code: ErrorCode) -> None:
    assert 100 < code < 500


@pytest.mark.parametrize(
    ("features", "codec"),
    [(0, Codec.PLAIN), (1, Codec.LZ4), (2, Codec.LZ4_DICT_1), (3, Codec.LZ4_DICT_1), (0xFFFF_FFFC, Codec.PLAIN)],
)
def test_the_best_codec_of_both_sides_is_used_and_unknown_bits_mean_nothing(features: int, codec: Codec) -> None:
    assert best_codec(features) is codec
    assert best_codec(Feature(features)) is codec
