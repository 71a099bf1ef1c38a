"""An answer of the service desk that comes in parts, before it is a message. Pure."""

from __future__ import annotations

from protocol.activities.conversations import message_text
from protocol.fields import FieldError

__all__ = ["AnswerStream"]


class AnswerStream:
    """An answer under way. ``by``: who holds the conversation, under ``epoch``."""

    __slots__ = ("_parts", "by", "epoch", "id")

    def __init__(self, id: str, by: str, epoch: int) -> None:
        self.id = id
        self.by = by
        self.epoch = epoch
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """All parts together."""
        return "".join(self._parts)

    @property
    def seq(self) -> int:
        """How many parts it has."""
        return len(self._parts)

    def append(self, part: str) -> None:
        """Add a part. ValueError, and nothing is added, where the whole is no text of a message."""
        whole = self.text + part
        try:
            message_text(whole if whole.strip() else f"{whole}.")
        except FieldError as error:
            raise ValueError(error.rule) from None
        self._parts.append(part)
