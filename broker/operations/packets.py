"""Handlers of the operations on red packets and on rains of them."""

from __future__ import annotations

from typing import Any

from broker.core.commerce.packet import RedPacket
from broker.core.commerce.rain import GrabDrop, MyDropShare, Rain, drop_of
from broker.operations.activities import begin, command, page_of_kind
from broker.operations.caller import Caller
from broker.operations.parts import Handler, Parts
from protocol.operations.packets import (
    CancelPacket,
    CancelRain,
    CreatedPacket,
    CreatedRain,
    CreatePacket,
    CreateRain,
    GrabPacket,
    ListPackets,
    MyPacketShare,
    PacketPage,
)

__all__ = ["HANDLERS"]


async def _create(parts: Parts, caller: Caller, request: CreatePacket) -> CreatedPacket:
    key = RedPacket.kind, request.id
    created: CreatedPacket = await command(parts, caller, request.room, key, request, creates=True)
    return created


def _grab(parts: Parts, caller: Caller, request: GrabPacket) -> Any:
    drop = drop_of(request.id)
    if drop is None:
        return begin(parts, caller, request.room, (RedPacket.kind, request.id), request, takes_part=True)
    rain, number = drop
    grab = GrabDrop(number, request.keyword)
    return begin(parts, caller, request.room, (Rain.kind, rain), grab, takes_part=True)


def _mine(parts: Parts, caller: Caller, request: MyPacketShare) -> Any:
    drop = drop_of(request.id)
    if drop is None:
        return begin(parts, caller, request.room, (RedPacket.kind, request.id), request)
    rain, number = drop
    return begin(parts, caller, request.room, (Rain.kind, rain), MyDropShare(number))


def _cancel(parts: Parts, caller: Caller, request: CancelPacket) -> Any:
    return begin(parts, caller, request.room, (RedPacket.kind, request.id), request)


async def _list(parts: Parts, caller: Caller, request: ListPackets) -> PacketPage:
    found, next = await page_of_kind(
        parts, request.room, RedPacket.kind, request.cursor, request.limit, lambda packet: packet.info()
    )
    return PacketPage(tuple(found), next)


async def _create_rain(parts: Parts, caller: Caller, request: CreateRain) -> CreatedRain:
    created: CreatedRain = await command(parts, caller, request.room, (Rain.kind, request.id), request, creates=True)
    return created


def _cancel_rain(parts: Parts, caller: Caller, request: CancelRain) -> Any:
    return begin(parts, caller, request.room, (Rain.kind, request.id), request)


HANDLERS: dict[str, Handler] = {
    "packets.create": _create,
    "packets.grab": _grab,
    "packets.mine": _mine,
    "packets.cancel": _cancel,
    "packets.list": _list,
    "rains.create": _create_rain,
    "rains.cancel": _cancel_rain,
}
