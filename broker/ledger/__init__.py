"""The ledger: what was acknowledged survives. An append-only log in one SQLite file with one writer.

Whoever has something that must not be lost hands it to `Ledger.record` and acts on it only when it comes back
`Committed`. `Reader` answers questions beside the writer.
"""

from broker.ledger.entries import (
    FACT_KIND_MIN,
    Committed,
    DirectAcked,
    DirectEntry,
    DirectState,
    Entry,
    FailureKind,
    Item,
    Key,
    KeyResult,
    LedgerCut,
    LedgerDamaged,
    LedgerError,
    LedgerRefused,
    LedgerResult,
    OutboxDone,
    OutboxEntry,
    OutboxLater,
    RecordPut,
    RecordRemoved,
    Repeated,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
    StoredDirect,
    StoredEntry,
    StoredOutbox,
    StoredRecord,
    StoredRoom,
    SubmitResult,
    make_key,
)
from broker.ledger.maintenance import Retention
from broker.ledger.reader import Reader, open_directory
from broker.ledger.result_batch import ResultBatch
from broker.ledger.schema import database_path
from broker.ledger.service import Ledger, LedgerLimits
from broker.ledger.writer import LedgerState, LedgerStats, Pace

__all__ = [
    "FACT_KIND_MIN",
    "Committed",
    "DirectAcked",
    "DirectEntry",
    "DirectState",
    "Entry",
    "FailureKind",
    "Item",
    "Key",
    "KeyResult",
    "Ledger",
    "LedgerCut",
    "LedgerDamaged",
    "LedgerError",
    "LedgerLimits",
    "LedgerRefused",
    "LedgerResult",
    "LedgerState",
    "LedgerStats",
    "OutboxDone",
    "OutboxEntry",
    "OutboxLater",
    "Pace",
    "Reader",
    "RecordPut",
    "RecordRemoved",
    "Repeated",
    "ResultBatch",
    "Retention",
    "RoomCheckpointed",
    "RoomEnded",
    "RoomOpened",
    "StoredDirect",
    "StoredEntry",
    "StoredOutbox",
    "StoredRecord",
    "StoredRoom",
    "SubmitResult",
    "database_path",
    "make_key",
    "open_directory",
]
