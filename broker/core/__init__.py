"""Pure decisions: no Trio, no sockets, no clocks; ``now`` and random sources are arguments."""
