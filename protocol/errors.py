"""Exceptions of the protocol, by the side that caused them.

`LocalProtocolError`: the local side tried something that the protocol does not allow; a bug of the caller.
`RemoteProtocolError`: the peer did; it contains the close code for the link.
Outcomes that are not errors of a side (rate limited, merged) are values, not exceptions.
"""

from __future__ import annotations

from .codes import CloseCode

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """Base of both; decoding raises no other exception, whatever the bytes."""


class LocalProtocolError(ProtocolError):
    """Error of the local side; the state of the link is unchanged and nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """Error of the peer; the link is to be closed with ``code``.

    ``reason`` is a text of this package and contains no bytes of the peer, so it is safe to log and to send back.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{code.name} ({code.value}): {reason}")
        self.code = code
        self.reason = reason
