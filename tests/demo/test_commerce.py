"""The reconciliation of the demo finds what does not agree."""

from __future__ import annotations

from random import Random
from typing import cast

from broker.demo.features.base import DemoFeature, Participants


class Counting(DemoFeature):
    """A feature that plays nothing."""

    name = "counting"

    async def run(self) -> None:
        """Do nothing."""

    async def reconcile(self) -> dict[str, int]:
        self.equal("units", platform=3, broker=3)
        self.equal("cents", platform=300, broker=299, ledger=300)
        return {"units": 3}


async def test_counts_that_differ_are_named() -> None:
    feature = Counting(cast(Participants, None), 5.0, Random(1))
    assert await feature.reconcile() == {"units": 3}
    assert feature.differences == ["counting: cents: platform 300, broker 299, ledger 300"]
