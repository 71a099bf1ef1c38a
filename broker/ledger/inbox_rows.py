"""Inboxes of users and their messages, as one transaction changes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from broker.core.users.marketing import DAY_MS, HOUR_MS, MarketingRules, Suppression
from broker.ledger.encryption import BodyCipher
from broker.ledger.entries import CANCEL_ROWS, CopyFilled, DirectEntry, DirectsCancelled, DirectState, LedgerDamaged
from broker.ledger.inserting import insert_rows
from broker.ledger.rows import ACKED_MARK, CRC_MASK, Tallies, direct_checksum, inbox_checksum, state_mark
from protocol.frames import pack_body

__all__ = ["MARKETING", "PREFERENCES", "InboxRows"]

PREFERENCES, MARKETING = "user.preferences", "marketing"
"""Kind and name of the records that say whether a user wants marketing."""
NO = pack_body((False,))
"""Body of such a record where the user does not."""
INBOX_STEP = 1 << 32
"""Inbox numbers of one history: more than any user can get; a number holds 2^21 histories within 53 bits."""

_INBOXES = "INSERT OR REPLACE INTO inboxes (user, last_id, acked_id, at_ms, crc)"
_DIRECTS = "INSERT INTO directs (user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, marketing, crc)"
_DIRECT_ROW = "user, direct_id, kind, at_ms, expires_at_ms, state, batch, marketing, crc"
_CANCEL = (
    f"UPDATE directs SET state = {DirectState.CANCELLED:d},"
    f" crc = (crc + {state_mark(DirectState.CANCELLED)}) & {CRC_MASK} WHERE "
)
_OF_BATCH = (
    f"id IN (SELECT id FROM directs WHERE batch = ? AND batch <> '' AND state = 0 ORDER BY id LIMIT {CANCEL_ROWS})"
)
_OF_MARKETING = (
    f"id IN (SELECT id FROM directs WHERE user = ? AND marketing = 1 AND state = 0 ORDER BY at_ms LIMIT {CANCEL_ROWS})"
)
_OF_USER = "user = ? AND direct_id = ? AND state = 0"


class _Inbox:
    """A row of inboxes; ``crc`` as in `StreamRow`."""

    __slots__ = ("acked_id", "at_ms", "crc", "last_id")

    def __init__(self, last_id: int, acked_id: int, at_ms: int, crc: int | None) -> None:
        self.last_id = last_id
        self.acked_id = acked_id
        self.at_ms = at_ms
        self.crc = crc


class InboxRows:
    """Inboxes of one transaction. ``base``: the number after which a new inbox begins; ``rules``: of marketing."""

    def __init__(
        self, connection: sqlite3.Connection, cipher: BodyCipher, tallies: Tallies, base: int, rules: MarketingRules
    ) -> None:
        self.base = base
        self._connection = connection
        self._cipher = cipher
        self._rules = rules
        self._tallies = tallies
        self._inboxes: dict[str, _Inbox] = {}
        self._directs: list[tuple[Any, ...]] = []
        """Rows as the statement takes them."""

    def add(self, item: DirectEntry) -> int:
        """Put a message into an inbox; return its number, or why it is not sent."""
        user, kind, at_ms, expires_at_ms, body, batch, marketing = item
        if marketing and (suppression := self._suppression(user, at_ms)) is not None:
            return suppression
        inbox = self._inbox(user)
        if inbox is None:
            inbox = self._inboxes[user] = _Inbox(self.base, 0, at_ms, None)
        direct_id = inbox.last_id = inbox.last_id + 1
        inbox.at_ms = at_ms
        body = self._cipher.encrypt("directs", body)
        crc = direct_checksum(user, direct_id, kind, at_ms, expires_at_ms, DirectState.PENDING, batch, body, marketing)
        self._tallies.add_direct(crc, DirectState.PENDING)
        self._directs.append((user, direct_id, kind, at_ms, expires_at_ms, 0, batch, body, int(marketing), crc))
        return direct_id

    def _suppression(self, user: str, now_ms: int) -> Suppression | None:
        """Return why marketing is not sent to a user now, by what is written."""
        execute = self._connection.execute
        row = execute(
            "SELECT body FROM records WHERE kind = ? AND subject = ? AND name = ?", (PREFERENCES, user, MARKETING)
        ).fetchone()
        is_opted_out = row is not None and self._cipher.decrypt("records", row[0]) == NO
        last_hour = last_day = 0
        if self._rules.has_caps and not is_opted_out:
            self._write_directs()
            last_day, last_hour = execute(
                "SELECT count(*), coalesce(sum(at_ms > ?), 0) FROM directs"
                f" WHERE user = ? AND marketing = 1 AND at_ms > ? AND state <> {DirectState.CANCELLED:d}",
                (now_ms - HOUR_MS, user, now_ms - DAY_MS),
            ).fetchone()
        return self._rules.judge(is_opted_out, last_hour, last_day, now_ms)

    def begin_lineage(self) -> None:
        """Continue the numbers of all inboxes above any that may have been given out."""
        for (user,) in self._connection.execute("SELECT user FROM inboxes").fetchall():
            self._inbox(user)
        last_id = max([self.base, *(inbox.last_id for inbox in self._inboxes.values())])
        self.base = (last_id // INBOX_STEP + 1) * INBOX_STEP
        for inbox in self._inboxes.values():
            inbox.last_id = self.base

    def write(self) -> None:
        """Write what was gathered."""
        self._write_inboxes()
        self._write_directs()

    def _inbox(self, user: str) -> _Inbox | None:
        inbox = self._inboxes.get(user)
        if inbox is None:
            row = self._connection.execute(
                "SELECT last_id, acked_id, at_ms, crc FROM inboxes WHERE user = ?", (user,)
            ).fetchone()
            if row is None:
                return None
            if row[3] != inbox_checksum(user, *row[:3]):
                raise LedgerDamaged("an inbox is not what was written (checksum)")
            inbox = self._inboxes[user] = _Inbox(*row)
        return inbox

    def acknowledge(self, user: str, direct_id: int, at_ms: int) -> None:
        """Acknowledge the messages of a user up to one."""
        inbox = self._inbox(user)
        if inbox is None:
            return
        self._write_directs()
        acked = self._connection.execute(
            f"UPDATE directs SET state = 1, crc = (crc + {ACKED_MARK}) & {CRC_MASK}"
            " WHERE user = ? AND direct_id <= ? AND state = 0",
            (user, direct_id),
        ).rowcount
        self._tallies.move_directs(acked, DirectState.PENDING, DirectState.ACKED)
        if inbox.acked_id < direct_id:
            inbox.acked_id = min(direct_id, inbox.last_id)
            inbox.at_ms = at_ms

    def cancel(self, item: DirectsCancelled) -> list[tuple[str, int]]:
        """Cancel pending messages; return user and number of each, sorted."""
        self._write_directs()
        where = _OF_USER
        names: tuple[Any, ...] = (item.user, item.direct_id)
        if item.batch:
            where, names = _OF_BATCH, (item.batch,)
        elif item.marketing:
            where, names = _OF_MARKETING, (item.user,)
        rows = self._connection.execute(f"{_CANCEL}{where} RETURNING user, direct_id", names).fetchall()
        self._tallies.move_directs(len(rows), DirectState.PENDING, DirectState.CANCELLED)
        return sorted(rows)

    def remove(self, user: str) -> None:
        """Delete messages of a user, and its inbox with the last of them; no later message gets a number of these."""
        self._write_directs()
        rows = self._connection.execute(
            "DELETE FROM directs WHERE id IN (SELECT id FROM directs WHERE user = ? LIMIT ?) RETURNING crc, state",
            (user, CANCEL_ROWS),
        ).fetchall()
        self._tallies.remove_directs(rows)
        inbox = self._inbox(user) if len(rows) < CANCEL_ROWS else None
        if inbox is not None:
            del self._inboxes[user]
            if inbox.crc is not None:
                self._tallies["inboxes"].remove(inbox.crc)
                self._connection.execute("DELETE FROM inboxes WHERE user = ?", (user,))
            self.base = max(self.base, inbox.last_id)

    def fill(self, rows: CopyFilled) -> None:
        """Add inboxes and messages of another copy; those that are there stay, but for those of the users that it
        replaces."""
        self.base = max(self.base, rows.base)
        self.write()
        for user in rows.replaced:
            self._delete("user = ?", (user,))
        for user, last_id, acked_id, at_ms in rows.inboxes:
            if self._inbox(user) is None:
                self._inboxes[user] = _Inbox(last_id, acked_id, at_ms, None)
        for user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, marketing in rows.directs:
            found = self._connection.execute(
                "SELECT 1 FROM directs WHERE user = ? AND direct_id = ?", (user, direct_id)
            ).fetchone()
            if found is None:
                body = self._cipher.encrypt("directs", body)
                columns = user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, marketing
                crc = direct_checksum(*columns)
                self._tallies.add_direct(crc, state)
                self._directs.append((*columns, crc))

    def clear(self) -> None:
        """Delete all inboxes with their messages."""
        self.write()
        self._delete("1", ())

    def _delete(self, where: str, names: tuple[str, ...]) -> None:
        """Delete inboxes with their messages; what was gathered is written."""
        directs = self._connection.execute(f"DELETE FROM directs WHERE {where} RETURNING crc, state", names)
        self._tallies.remove_directs(directs.fetchall())
        inboxes = self._connection.execute(f"DELETE FROM inboxes WHERE {where} RETURNING user, crc", names)
        for user, crc in inboxes.fetchall():
            self._tallies["inboxes"].remove(crc)
            self._inboxes.pop(user, None)

    def redact(self, bodies: Sequence[tuple[int, bytes]]) -> None:
        """Replace bodies of messages, by the id of their row."""
        self._write_directs()
        for each, body in bodies:
            row = self._connection.execute(f"SELECT {_DIRECT_ROW} FROM directs WHERE id = ?", (each,)).fetchone()
            if row is None:
                continue
            user, direct_id, kind, at_ms, expires_at_ms, state, batch, marketing, crc = row
            body = self._cipher.encrypt("directs", body)
            after = direct_checksum(user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, marketing)
            self._tallies.remove_directs([(crc, state)])
            self._tallies.add_direct(after, state)
            self._connection.execute("UPDATE directs SET body = ?, crc = ? WHERE id = ?", (body, after, each))

    def redact_batch(self, batch: str, body: bytes) -> None:
        """Replace the bodies of all messages of a batch."""
        self._write_directs()
        rows = self._connection.execute("SELECT id FROM directs WHERE batch = ? AND batch <> ''", (batch,))
        self.redact([(each, body) for (each,) in rows.fetchall()])

    def _write_inboxes(self) -> None:
        tally = self._tallies["inboxes"]
        rows = []
        for user, inbox in self._inboxes.items():
            columns = inbox.last_id, inbox.acked_id, inbox.at_ms
            crc = inbox_checksum(user, *columns)
            if crc != inbox.crc:
                tally.replace(inbox.crc, crc)
                rows.append((user, *columns, crc))
        insert_rows(self._connection, _INBOXES, rows)

    def _write_directs(self) -> None:
        insert_rows(self._connection, _DIRECTS, self._directs)
        self._directs = []
