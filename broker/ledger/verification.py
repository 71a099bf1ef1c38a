"""Verification of the ledger: that its file holds what was written, all of it, and as much as was acknowledged."""

from __future__ import annotations

from broker.core.tenants.names import shown_name
from broker.ledger.chain import REDACTED_BYTES, ChainHead, ChainVerifier, verify
from broker.ledger.entries import DirectState, LedgerCut, LedgerDamaged, LedgerRefused
from broker.ledger.head import Head
from broker.ledger.row_reader import (
    SELECT_DIRECT,
    SELECT_INBOX,
    SELECT_OUTBOX,
    SELECT_RECORD,
    SELECT_STREAM,
    RowReader,
    reports_damage,
)
from broker.ledger.rows import TABLES, HeadRow, Tallies, checkpoint_checksum, key_checksum

__all__ = ["ChainCheck", "VerifyingReader"]

TAIL_ENTRIES = 10_000
"""Entries whose chain is checked when the ledger is opened: a fraction of a second."""
STEP_ENTRIES = 2000
"""Entries of one step of a `ChainCheck`: some 20 ms, in which no other question is answered."""
_THE_LEDGER = "the ledger"
"""What `ChainCheck` calls the file: its callers get no paths."""


class VerifyingReader(RowReader):
    """Reader that verifies the ledger."""

    @reports_damage
    def redacted(self) -> int:
        """Count the entries whose bodies were replaced. O(entries)."""
        rows = self._connection.execute("SELECT count(*) FROM entries WHERE length(salt) = ?", (REDACTED_BYTES,))
        return int(rows.fetchone()[0])

    @reports_damage
    def verify_tail(self, mark: Head | None, count: int = TAIL_ENTRIES) -> Head:
        """Check what is checked at each start: that nothing acknowledged is missing, and that the last entries are
        right. Return the end of the ledger.

        ``mark``: the high-water mark beside the file, read before. LedgerCut where they do not agree; LedgerDamaged
        names the place; LedgerRefused for a copy.
        """
        with self.snapshot() as row:
            head, anchor = row.head, row.anchor
            if row.is_copy:
                raise LedgerRefused(
                    f"{self.path}: a copy made by `roomcast ledger backup`;"
                    " `roomcast ledger restore` makes a ledger of it"
                )
            self._compare(row, mark)
            before = anchor
            if head.seq - anchor[0] > count:
                before = self.link_at(head.seq - count)
            self._verify_from(before, head)
            self._verify_stream_ends()
        return head

    @reports_damage
    def advance(self, check: ChainCheck) -> bool:
        """Take the next step of a check; return whether it has ended. LedgerDamaged where the chain does not hold."""
        with self.snapshot() as row:
            return check.advance(self, row)

    @reports_damage
    def link_at(self, number: int) -> ChainHead:
        """Return an entry's link in the chain. LedgerDamaged where it is missing."""
        found = self._connection.execute("SELECT seq, hash FROM entries WHERE seq = ?", (number,)).fetchone()
        if found is None:
            raise LedgerDamaged(f"{self.path}: entry {number} is missing")
        return found[0], found[1]

    def _compare(self, row: HeadRow, mark: Head | None) -> None:
        """Compare the end of the file with the high-water mark. LedgerCut where they do not agree."""
        head = row.head
        if mark is None:
            if not head.seq and Tallies.load(row.tallies).is_empty:
                return
            raise LedgerCut(
                self.path, f"there is no high-water mark that can be read: what followed entry {head.seq} is unknown"
            )
        if mark.lineage != head.lineage:
            raise LedgerCut(self.path, "it has another history than the high-water mark beside it")
        if head.batch < mark.batch or head.seq < mark.seq:
            raise LedgerCut(
                self.path,
                f"ends at commit {head.batch}, entry {head.seq}, but commit {mark.batch}, entry {mark.seq} was"
                " acknowledged: the write-ahead log is damaged or gone, or this is an older copy",
            )
        if mark.seq == head.seq and mark.hash != head.hash:
            raise LedgerDamaged(f"{self.path}: entry {head.seq} is not the one that was acknowledged")
        if mark.batch == head.batch and mark.seal != head.seal:
            raise LedgerDamaged(f"{self.path}: commit {head.batch} is not the one that was acknowledged")

    @reports_damage
    def verify_all(self) -> int:
        """Check everything at one moment: SQLite's structure, the whole chain, every row and the tallies of all tables.

        Return the number of entries. LedgerDamaged names the first difference.
        """
        with self.snapshot() as row:
            for (line,) in self._connection.execute("PRAGMA integrity_check(1)"):
                if line != "ok":
                    raise LedgerDamaged(f"{self.path}: {line}")
            self._verify_from(row.anchor, row.head)
            self._verify_stream_ends()
            self._verify_tallies(Tallies.load(row.tallies))
            return row.seq - row.anchor_seq

    def _verify_tallies(self, sealed: Tallies) -> None:
        """Check every row beside the chain, and that none is missing or too many."""
        found = Tallies()
        execute = self._connection.execute
        for row in execute(SELECT_STREAM):
            found["streams"].add(self._stream(row)[-1])
        for stream, at_ms, totals, crc in execute("SELECT stream, at_ms, totals, crc FROM checkpoints"):
            if checkpoint_checksum(stream, at_ms, totals) != crc:
                raise LedgerDamaged(
                    f"{self.path}: the checkpoint of stream {stream} is not what was written (checksum)"
                )
            found["checkpoints"].add(crc)
        for row in execute("SELECT digest, fingerprint, outcome, offset, answer, at_ms, crc FROM keys"):
            if key_checksum(*row[:6]) != row[6]:
                raise LedgerDamaged(f"{self.path}: key {row[0].hex()} is not what was written (checksum)")
            found["keys"].add(row[6])
        for row in execute(SELECT_INBOX):
            found["inboxes"].add(self._inbox(row)[-1])
        for row in execute(SELECT_DIRECT):
            self._check_direct(row)
            found.add_direct(row[-1], DirectState(row[5]))
        for row in execute(SELECT_OUTBOX):
            self._check_outbox(row)
            found["outbox"].add(row[-1])
        for row in execute(SELECT_RECORD):
            self._check_record(row)
            found["records"].add(row[-1])
        for table in TABLES:
            rows, expected = found[table].rows, sealed[table].rows
            if rows != expected:
                raise LedgerDamaged(f"{self.path}: table {table} has {rows} rows, {expected} were written")
            if found[table].sum != sealed[table].sum:
                raise LedgerDamaged(f"{self.path}: a row of table {table} is not the one that was written last")
        if found.states != sealed.states:
            raise LedgerDamaged(
                f"{self.path}: direct messages by state are {found.states}, written were {sealed.states}"
            )

    def _verify_from(self, before: ChainHead, head: Head) -> None:
        last = verify(self.chain_rows(before[0], head.seq), before, str(self.path))
        if last != (head.seq, head.hash):
            raise LedgerDamaged(f"{self.path}: entries {last[0] + 1} to {head.seq} are missing")

    def _verify_stream_ends(self) -> None:
        """Check that every stream ends where its last entry stands."""
        rows = self._connection.execute(
            "SELECT room, last_offset, (SELECT max(offset) FROM entries AS e WHERE e.stream = s.stream"
            " AND e.offset IS NOT NULL) AS top FROM streams AS s WHERE top <> last_offset"
        )
        for room, last_offset, top in rows:
            raise LedgerDamaged(
                f"{self.path}: room {shown_name(room)} ends at offset {last_offset}, its last event has {top}"
            )


class ChainCheck:
    """Check of the last ``entries`` of the hash chain, step by step, while the ledger is read and written.

    ``problem``: the first entry that is missing or not what was written, "" = none so far; ``last``, ``hash``: the last
    link that holds; ``is_whole``: what is asked for is all that the ledger keeps.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._verifier: ChainVerifier | None = None
        self.problem = ""
        self.is_whole = False
        self.last = 0
        self.hash = bytes(32)
        self._checked = 0

    @property
    def checked(self) -> int:
        """Entries that were checked and hold."""
        return self._checked

    def step(self, reader: VerifyingReader) -> bool:
        """Check the next entries; return whether the check has ended. A question to the ledger (`Ledger.ask`).

        What is appended meanwhile is checked as well, for a redaction is vouched for by a later entry. Where retention
        has removed what comes next, the check goes on behind it.
        """
        try:
            return reader.advance(self)
        except LedgerDamaged as error:
            self.problem = str(error).replace(str(reader.path), _THE_LEDGER)
            return True

    def advance(self, reader: VerifyingReader, row: HeadRow) -> bool:
        """Take the step at the moment whose head is ``row``. LedgerDamaged where the chain does not hold."""
        verifier = self._verifier
        if verifier is None or verifier.last[0] < row.anchor[0]:
            self._verifier = verifier = ChainVerifier(self._before(reader, row), _THE_LEDGER)
        before = verifier.last[0]
        end = min(before + STEP_ENTRIES, row.head.seq)
        try:
            for each in reader.chain_rows(before, end):
                verifier.take(each)
            if verifier.last[0] < end:
                raise LedgerDamaged(f"{_THE_LEDGER}: entries {verifier.last[0] + 1} to {end} are missing")
            if end < row.head.seq:
                return False
            if verifier.last[1] != row.head.hash:
                raise LedgerDamaged(f"{_THE_LEDGER}: entry {end} is not the last one that was written")
            verifier.finish()
        finally:
            self._checked += verifier.last[0] - before
            self.last, self.hash = verifier.last
        return True

    def _before(self, reader: VerifyingReader, row: HeadRow) -> ChainHead:
        """Return the link that the first entry to be checked follows."""
        first = row.head.seq - self._entries
        self.is_whole = first <= row.anchor[0]
        if self.is_whole:
            return row.anchor
        return reader.link_at(first)
