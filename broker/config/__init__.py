"""The configuration: its schema, and where its values come from."""
