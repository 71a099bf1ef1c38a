"""Handlers of the table of operations (`protocol.operations`), and what every face of it shares."""
