"""Everything that is addressed to a user: inboxes and batches."""
