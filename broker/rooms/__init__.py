"""Everything that is published to a room: registry, tasks, members, fan-out, durability."""
