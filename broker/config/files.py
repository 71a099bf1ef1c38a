"""Reading of files that people write: configuration, secrets, certificates, keys, and lists of messages.

Editors and shells of other systems leave traces in such a file. Every reader gets the same text whoever saved it: UTF-8
without its byte order mark, and with line feeds alone. ``~`` at the beginning of a path is the home directory, also
where no shell has replaced it: in a configuration file, in a variable of systemd, behind ``--option=``.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "FileError",
    "clean_text",
    "exposure",
    "openssl_path",
    "read_bytes_of",
    "read_secret_text",
    "read_text_of",
    "text_of",
    "user_path",
]

_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class FileError(OSError):
    """Error of a file that cannot be read, or whose content is no text. ``str()`` names the file and the reason.

    ``is_text``: False if the bytes are neither UTF-8 nor UTF-16, as those of a random key.
    """

    def __init__(self, name: str, reason: str, number: int = errno.EINVAL, is_text: bool = True) -> None:
        super().__init__(number, reason, name)
        self.is_text = is_text

    @property
    def reason(self) -> str:
        """What is wrong, without the name of the file."""
        return f"cannot be read: {self.strerror}" if self.errno != errno.EINVAL else str(self.strerror)

    def __str__(self) -> str:
        is_content = self.errno == errno.EINVAL
        return f"{self.filename} {self.reason}" if is_content else f"cannot read {self.filename}: {self.strerror}"


def user_path(name: str | Path) -> Path:
    """Return the path of ``name``, with the home directory in place of a ``~`` at its beginning, where there is one."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~ of a user that does not exist
        return Path(name)


def read_bytes_of(name: str | Path) -> bytes:
    """Return the content of a file without its byte order mark. FileError if it cannot be read, or is UTF-16."""
    try:
        data = user_path(name).read_bytes()
    except OSError as error:
        raise FileError(str(name), error.strerror or str(error), error.errno or errno.EIO) from error
    except ValueError as error:  # no system call takes such a name
        raise FileError(str(name), f"cannot be a file: {error}") from error
    return _without_mark(data, str(name))


def exposure(name: str | Path) -> str:
    """Return how to protect a secret's file that other users can read; "" if they cannot, or it is no regular file.

    A file below a directory that other users may not enter is not exposed, whatever its own mode.
    """
    path = user_path(name)
    try:
        path = path.resolve()
        found = path.stat()
        can_read = stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRGRP | stat.S_IROTH)
        can_enter = all(parent.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) for parent in path.parents)
    except OSError:
        return ""
    if not (can_read and can_enter):
        return ""
    return f"{name} can be read by other users of this machine: `chmod 600 {shlex.quote(str(name))}`"


def read_text_of(name: str | Path) -> str:
    """Return the content of a file as `text_of` does. FileError if it cannot be read, or is not UTF-8."""
    return text_of(read_bytes_of(name), str(name))


def read_secret_text(name: str | Path) -> str:
    """Return the content of a secret's file as `read_text_of` does. FileError also if other users can read it."""
    text = read_text_of(name)
    if rule := exposure(name):
        raise FileError(str(name), rule.removeprefix(f"{name} "))
    return text


def text_of(data: bytes, name: str) -> str:
    """Return UTF-8 ``data`` as text with line feeds alone and without a byte order mark. FileError with ``name``."""
    try:
        return clean_text(_without_mark(data, name).decode())
    except UnicodeDecodeError as error:
        raise FileError(name, f"is not UTF-8 text (byte {error.start})", is_text=False) from error


def clean_text(text: str) -> str:
    """Return ``text`` without a byte order mark at its beginning, and with a line feed for each CR LF and CR."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def openssl_path(name: str | Path) -> Iterator[str]:
    """Context of the path under which OpenSSL reads a PEM file: it finds nothing behind a byte order mark.

    The path is that of the file, or of a copy in memory that ends with the context. FileError as `read_bytes_of`.
    """
    data, path = read_bytes_of(name), user_path(name)
    if path.stat().st_size == len(data):
        yield str(path)
        return
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _without_mark(data: bytes, name: str) -> bytes:
    if data.startswith(_UTF_16):
        raise FileError(name, "is UTF-16: save it as UTF-8")
    return data.removeprefix(_MARK)
