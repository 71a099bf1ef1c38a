"""Operations on mic-link: their records."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.mic import MicState, mic_state
from ..fields import optional, record, text

__all__ = ["MAX_TOKEN_CHARS", "MicAccess"]

MAX_TOKEN_CHARS = 2048


class MicAccess(NamedTuple):
    """An invitation that is accepted. ``rtc_token``: opaque, for this user alone; null = ask the application for it."""

    state: MicState
    rtc_token: str | None = None


_access = record(MicAccess, (mic_state, optional(text(1, MAX_TOKEN_CHARS))))
