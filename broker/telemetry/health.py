"""Health of a broker: whether viewers should be sent here, and the fields of ``GET /healthz``."""

from __future__ import annotations

from typing import Any

from broker.core.clock import TrustedClock
from broker.core.limits.overload import OverloadStage
from broker.engine.base import Engine
from broker.ledger import Ledger, LedgerState

__all__ = ["health_of"]


def health_of(
    stage: OverloadStage,
    ledger: Ledger | None,
    clock: TrustedClock,
    *,
    is_draining: bool,
    has_stale_keys: bool,
    engine: Engine | None = None,
) -> tuple[bool, dict[str, Any]]:
    """Return readiness and the fields of the answer. Any: what `json` can write.

    A node whose engine does not answer takes viewers on: it has the rooms that it follows, and the others have no more.
    """
    ready = not is_draining and stage < OverloadStage.REFUSE_JOINS
    state = "draining" if is_draining else "ok" if ready else "overloaded"
    fields: dict[str, Any] = {"status": state, "stage": int(stage)}
    if has_stale_keys:
        ready = False
        fields["keys"] = "stale"
        if state == "ok":
            fields["status"] = "degraded"
    if ledger is not None:
        keeps, more = ledger.status()
        fields |= more
        # Danmaku continue while the disk is full; but a broker without committed data needs an operator.
        ready = ready and ledger.state is not LedgerState.DAMAGED
        distrust = clock.distrust()
        if distrust:
            fields["clock"] = distrust
        if not keeps and state == "ok":
            fields["status"] = "degraded"
    if engine is not None:
        status = engine.status
        fields |= {"engine": "up" if status.is_up else "down", "engine_durability": status.durability}
        if status.reason:
            fields["engine_reason"] = status.reason
            if fields["status"] == "ok":
                fields["status"] = "degraded"
    return ready, fields
