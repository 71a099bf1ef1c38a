"""The public names of `Client` and `JoinedRoom`: applications rely on them, so none comes or goes by accident."""

from __future__ import annotations

from typing import Any

from tests.support.peer import join, linked

CLIENT = {
    "batch_state", "call", "change_token", "clock_offset_ms", "closed", "dropped", "dropped_directs", "events",
    "is_connected", "join", "room", "rooms", "send_direct", "server", "server_ms", "set_token", "unexpected_frames",
    "user", "wait_connected",
}  # fmt: skip
ROOM = {
    "account", "dropped", "duplicates", "gaps", "interval_ms", "is_active", "is_joined", "keys", "leave", "like",
    "likes", "membership", "name", "number", "online", "phase", "pinned", "position", "post", "post_announcement",
    "post_danmaku", "post_emote", "post_gift", "post_highlight", "recovered", "set_phase", "snapshot", "tier", "users",
}  # fmt: skip


UNJOINED_ROOM = {
    "name", "post", "post_announcement", "post_danmaku", "post_emote", "post_gift", "post_highlight", "set_phase",
}  # fmt: skip


def public_names(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


async def test_clients_and_rooms_have_these_public_names(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        assert public_names(client) == CLIENT
        assert public_names(room) == ROOM
        assert public_names(client.room("lobby")) == UNJOINED_ROOM
        assert not hasattr(client, "__dict__"), "no attribute can be added"
        assert not hasattr(room, "__dict__")
