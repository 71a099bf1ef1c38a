from __future__ import annotations

from types import FrameType, SimpleNamespace
from typing import cast

import pytest

from bench.cpu_parts import PARTS, by_part_us, part_of


def stack(*modules: str) -> FrameType | None:
    """Return the stack of functions of ``modules``, the outermost first."""
    frame = None
    for module in modules:
        frame = SimpleNamespace(f_globals={"__name__": module}, f_back=frame)
    return cast("FrameType | None", frame)


@pytest.mark.parametrize(
    ("modules", "part"),
    [
        (("trio._core._run", "broker.net.poller", "broker.net.transport"), "network"),
        (("broker.net.poller", "broker.sessions.session", "protocol.connection"), "sessions"),
        (("broker.sessions.session", "broker.rooms.room", "broker.core.rooms.state", "msgpack"), "rooms"),
        (("trio._core._run", "broker.rooms.fanout"), "fanout"),
        (("broker.rooms.room", "broker.ledger.writer"), "ledger"),
        (("trio._core._run", "broker.core.structures.timer_wheel"), "other"),
        (("broker.rooms.fanout_of_another",), "rooms"),
        ((), "other"),
    ],
)
def test_a_stack_belongs_to_the_innermost_part_of_the_broker(modules: tuple[str, ...], part: str) -> None:
    assert part_of(stack(*modules)) == part


def test_the_cpu_of_a_delivery_is_divided_by_the_samples_and_the_threads_are_the_ledgers() -> None:
    before = {"network": 5.0, "loop_s": 1.0, "threads_s": 0.5}
    after = {"network": 15.0, "fanout": 30.0, "loop_s": 3.0, "threads_s": 0.75}
    found = by_part_us(before, after, 1_000_000)
    assert found == {
        part: pytest.approx({"network": 0.5, "fanout": 1.5, "ledger": 0.25}.get(part, 0)) for part in PARTS
    }
    assert sum(found.values()) == pytest.approx(2.25)
    assert by_part_us(before, before, 10) == by_part_us(before, after, 0) == {}
