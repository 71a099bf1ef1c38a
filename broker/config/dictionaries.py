"""Reading of the deployment's dictionary of compressed frames."""

from __future__ import annotations

from broker.config.files import FileError, read_bytes_of
from protocol.dictionaries import Dictionary, from_file

__all__ = ["read_dictionary"]


def read_dictionary(name: str | None) -> Dictionary | None:
    """Return the dictionary of a file, None where none is named. ValueError with the file and what is wrong with it."""
    if name is None:
        return None
    try:
        return from_file(read_bytes_of(name))
    except FileError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
