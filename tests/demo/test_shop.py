"""The scene of a shop, shortened: what buyers, bot and agents say is compared, and what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest

from broker.demo import shop
from broker.demo.shop import ShopDemo
from protocol.clients import Client

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_each_question_has_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop, "AWAY_S", 0.2)
    result = await ShopDemo(2, buyers=10, agents=3).run()
    assert result.differences == []
    assert result.questions == result.answers >= 10
    assert (result.ratings, result.by_bot > 0) == (10, True)


class _Twice(ShopDemo):
    """Bot and agents answer twice, and buyers forget the first message that they have seen."""

    async def _answer(self, client: Client, by: str, id: str, epoch: int, offset: int, text: str) -> bool:
        more: Any = {
            "conversation": id,
            "epoch": epoch,
            "text": text,
            "reply_to": offset,
            "key": f"again {id} {offset}",
        }
        await client.call("desk.answer", **more)
        return await super()._answer(client, by, id, epoch, offset, text)

    def compare(self) -> list[str]:
        self._buyers[0].seen.clear()
        return super().compare()


async def test_what_is_answered_twice_or_not_seen_is_named() -> None:
    result = await _Twice(0.5, buyers=2, agents=1).run()
    assert sum("has 2 answers" in line for line in result.differences) == result.questions
    assert any(line.startswith("buyer-0 has not seen message") for line in result.differences)


def test_a_receipt_that_falls_is_named() -> None:
    assert shop.falling_receipts("ann", "tea", [("amy", 1, 1), ("amy", 2, 1), ("bob", 1, 0), ("amy", 2, 2)]) == []
    assert len(shop.falling_receipts("ann", "tea", [("amy", 2, 2), ("amy", 2, 1)])) == 1
    assert len(shop.falling_receipts("ann", "tea", [("amy", 1, 2)])) == 1
