from __future__ import annotations

from broker.core.rooms.bans import BanTable, RoomBan


def test_a_ban_holds_until_its_time() -> None:
    table = BanTable()
    ban = RoomBan("lobby", "ann", 1000, "spam")
    assert table.add(ban, 0)
    assert table.find("lobby", "ann", 999) == ban
    assert table.find("lobby", "ann", 1000) is None
    assert table.find("lobby", "bob", 0) is None
    assert table.find("other", "ann", 0) is None
    assert table.of_user("ann", 0) == [ban]


def test_the_newest_ban_of_a_user_counts_and_can_be_removed() -> None:
    table = BanTable()
    table.add(RoomBan("lobby", "ann", 1000), 0)
    table.add(RoomBan("lobby", "ann", 500), 0)
    assert table.find("lobby", "ann", 600) is None
    table.remove("lobby", "ann")
    table.remove("lobby", "ann")
    assert len(table) == 0


def test_a_full_table_drops_what_has_ended_and_nothing_else() -> None:
    table = BanTable(max_bans=2)
    assert table.add(RoomBan("a", "ann", 100), 0)
    assert table.add(RoomBan("b", "ann", 200), 0)
    assert not table.add(RoomBan("c", "ann", 300), 0)
    assert table.add(RoomBan("c", "ann", 300), 150)
    assert [ban.room for ban in table.of_user("ann", 150)] == ["b", "c"]


def test_bans_are_restored() -> None:
    table = BanTable()
    table.restore([RoomBan("a", "ann", 100), RoomBan("b", "ann", 10)])
    assert [ban.room for ban in table.sweep(50)] == ["b"]
    assert len(table) == 1
