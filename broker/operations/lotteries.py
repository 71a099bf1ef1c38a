"""Handlers of the operations on lotteries."""

from __future__ import annotations

from typing import Any

import trio

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.lottery import DrawCommand, EnterCommand, Lottery, VoidCommand
from broker.core.commerce.lottery_config import NewLottery
from broker.core.tenants.names import plain_name
from broker.operations.activities import ask_activity, begin, command, read_activity
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import required
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import mask_for
from protocol.activities.lotteries import LotteryDrawn, LotteryVoided
from protocol.codes import ErrorCode
from protocol.lottery.drand import check_signature
from protocol.lottery.terms import LotteryTerms
from protocol.operations.lotteries import (
    CreateLottery,
    DrawLottery,
    EnterLottery,
    GetLotteryProof,
    GetMyLotteryEntry,
    LotteryCreated,
    LotteryProofPage,
    MyLotteryEntry,
    VoidLottery,
)

__all__ = ["HANDLERS"]

MAX_CHECKS_WAITING = 4
"""Signatures of viewers that wait to be checked: each takes a second of a core."""
_viewers = trio.CapacityLimiter(1)
_platform = trio.CapacityLimiter(1)


def _key(id: str) -> tuple[str, str]:
    return Lottery.kind, id


async def _create(parts: Parts, caller: Caller, request: CreateLottery) -> LotteryCreated:
    terms = LotteryTerms(
        request.id, plain_name(request.room), request.open_at_ms, request.close_at_ms, request.grades,
        request.max_weight, request.rule, request.beacon_chain, request.beacon_round,
    )  # fmt: skip
    new = NewLottery(terms, request.is_blind, request.max_entries, request.eligibility, request.bonuses)
    created: LotteryCreated = await command(parts, caller, request.room, _key(request.id), new, creates=True)
    return created


def _enter(parts: Parts, caller: Caller, request: EnterLottery) -> object:
    return begin(parts, caller, request.room, _key(request.id), EnterCommand(request.keyword), takes_part=True)


def _my_entry(parts: Parts, caller: Caller, request: GetMyLotteryEntry) -> Any:
    def my_entry(lottery: Lottery[Any]) -> MyLotteryEntry:
        mine = lottery.my_entry(caller.id)
        if mine is None:
            raise OperationError(ErrorCode.UNKNOWN_CLAIM, "has no entry of yours", "id")
        return mine

    return read_activity(parts, request.room, _key(request.id), my_entry)


async def _draw(parts: Parts, caller: Caller, request: DrawLottery) -> LotteryDrawn:
    def chains_to_check(lottery: Lottery[Any]) -> tuple[str, ...]:
        if not signature or lottery.is_drawn:
            return ()
        refusal = lottery.draw_refusal(request.round, parts.unix_ms())
        if refusal is not None:
            raise OperationError(*refusal)
        return (lottery.beacon_chain,)

    try:
        signature = bytes.fromhex(request.signature)
    except ValueError:
        raise OperationError(ErrorCode.BAD_FIELD, "must be hexadecimal", "signature") from None
    is_checked = False
    for chain in await ask_activity(parts, request.room, _key(request.id), chains_to_check):
        is_checked = await _is_checked(caller, chain, request.round, signature)
    drawn: LotteryDrawn = await command(
        parts, caller, request.room, _key(request.id), DrawCommand(request.round, signature, is_checked)
    )
    return drawn


async def _is_checked(caller: Caller, chain: str, round: int, signature: bytes) -> bool:
    """Return whether a signature was found right; False: it could not be checked. OperationError: it is wrong."""
    limiter = _platform if caller.is_backend else _viewers
    if limiter.statistics().tasks_waiting >= MAX_CHECKS_WAITING:
        raise OperationError(ErrorCode.OVERLOADED, "signatures wait to be checked", retry_after_ms=5000)
    is_right = await trio.to_thread.run_sync(check_signature, chain, round, signature, limiter=limiter)
    if is_right is False:
        raise OperationError(ErrorCode.BAD_FIELD, "must be the signature of the round", "signature")
    return is_right is not None


async def _void(parts: Parts, caller: Caller, request: VoidLottery) -> LotteryVoided:
    voided: LotteryVoided = await command(parts, caller, request.room, _key(request.id), VoidCommand(request.reason))
    return voided


async def _proof(parts: Parts, caller: Caller, request: GetLotteryProof) -> LotteryProofPage:
    room = parts.hub.find(request.room)
    if room is not None and mask_for(room, caller) is not None:
        raise OperationError(
            ErrorCode.NOT_ALLOWED, "has the ids of all who entered, and guests do not see them", "room"
        )
    activities = None if room is None else room.state.activities.activities
    live = None if activities is None else activities.find(*_key(request.id))
    if live is not None and not live.is_drawn:
        raise OperationError(*live.proof_page(0, 0, 0, 0))  # it says why there is none
    epoch = parts.hub.epoch_of(request.room)
    found = await parts.lottery_proofs.find(required(parts.ledger), request.room, epoch, request.id)
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_ACTIVITY, "names none of the lotteries of this room", "id")
    first = request.cursor or "0"
    if not first.isascii() or not first.isdecimal() or len(first) > 9:
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    page = found.lottery.proof_page(int(first), request.limit, found.committed_offset, found.closed_offset)
    if isinstance(page, ActivityRefusal):
        raise OperationError(*page)
    return page


HANDLERS: dict[str, Handler] = {
    "lotteries.create": _create,
    "lotteries.enter": _enter,
    "lotteries.my_entry": _my_entry,
    "lotteries.draw": _draw,
    "lotteries.void": _void,
    "lotteries.proof": _proof,
}
