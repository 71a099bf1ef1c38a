"""The engine: what several broker processes share. Ownership of rooms, their logs, messages between nodes, inboxes.

`Engine` is the contract; `MemoryEngine` keeps the data in this process. An engine knows bytes and names, no rooms.
"""
