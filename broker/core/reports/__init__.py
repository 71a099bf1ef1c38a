"""Reports of shows: pure folds over what the ledger holds of a room."""
