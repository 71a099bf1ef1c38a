"""``roomcast`` with checkpoints of the broker's log that are due early, in many parts, and cut at once."""

from __future__ import annotations

from broker.cli.main import main
from broker.rooms import log_checkpoints

if __name__ == "__main__":
    log_checkpoints.MIN_BYTES, log_checkpoints.PART_BYTES, log_checkpoints.CUT_AFTER_S = 2000, 100, 0.0
    main(prog_name="roomcast")
