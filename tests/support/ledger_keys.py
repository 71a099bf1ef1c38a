"""Keys of ledgers, as tests need them."""

from __future__ import annotations

from pathlib import Path

from broker.ledger.key_file import LedgerKey, LedgerKeys

__all__ = ["key_file", "keys_of"]


def keys_of(*names: str) -> LedgerKeys:
    """Return keys by name; the first encrypts."""
    return LedgerKeys(tuple(LedgerKey.of(_secret(name)) for name in names), "ledger.key")


def key_file(path: Path, *names: str) -> Path:
    """Write a file of keys by name; the first encrypts."""
    path.write_text("".join(f"{_secret(name).hex()}  # {name}\n" for name in names), "ascii")
    path.chmod(0o600)
    return path


def _secret(name: str) -> bytes:
    return name.encode().ljust(32, b".")
