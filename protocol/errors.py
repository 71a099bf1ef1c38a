"""What can go wrong on the wire, and whose fault it is.

`LocalProtocolError`: our side tried something the protocol forbids; a bug in the caller.
`RemoteProtocolError`: the peer did; carries the close code to end the link with.
Outcomes that are nobody's fault (rate limited, merged) are values, not exceptions.
"""

from __future__ import annotations

from .codes import CloseCode

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """Base of both kinds; decoding any bytes raises this or nothing."""


class LocalProtocolError(ProtocolError):
    """Our own side broke the protocol; the link's state is unchanged and nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; end the link with ``code``.

    ``reason`` is written by us (never the peer's bytes), so it is safe to log and to send back.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{code.name} ({code.value}): {reason}")
        self.code = code
        self.reason = reason
