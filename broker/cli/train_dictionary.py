"""``roomcast train-dictionary``: makes a dictionary of the texts that a deployment has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from broker.cli.config import UserPath
from broker.core.net.dictionary_training import MAX_TEXT_CHARS, MAX_TEXTS, bytes_per_danmaku, train
from protocol.dictionaries import BUILT_IN, MAX_DICTIONARY_BYTES, to_file
from protocol.json_depth import parse_json

__all__ = ["texts_of", "train_dictionary"]

HELD_OUT = 10
"""One of so many texts is kept back, to measure with."""
MIN_LINES = 1000
MAX_DEPTH = 64
"""Of a line of an export."""
KIB = 1024


@click.command(name="train-dictionary", short_help="Make a dictionary for ticks of the texts of your rooms.")
@click.argument("export", type=UserPath(exists=True, dir_okay=False))
@click.option("--output", type=UserPath(dir_okay=False), required=True, help="File to write; `link.dictionary_file`.")
@click.option(
    "--kib", type=click.IntRange(24, MAX_DICTIONARY_BYTES // KIB), default=32, show_default=True, help="Size in KiB."
)
def train_dictionary(export: Path, output: Path, kib: int) -> None:
    """Make a dictionary of EXPORT: NDJSON with danmaku, as `roomcast tail ROOM --json` writes them.

    Each string named "text" counts, at any depth. In the dictionary are pieces that many texts share, and what the
    built-in one has; no user's name, and no text of one person. One text in ten is kept back to measure with.
    """
    texts = list(texts_of(export))
    if len(texts) < MIN_LINES:
        raise click.ClickException(f"{export} has {len(texts)} texts; fewer than {MIN_LINES} say little")
    held = texts[::HELD_OUT]
    try:
        dictionary = train((text for place, text in enumerate(texts) if place % HELD_OUT), kib * KIB)
        content = to_file(dictionary)
        output.write_bytes(content)
    except ValueError as error:
        raise click.ClickException(f"{export}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from error
    plain, before, after = (bytes_per_danmaku(held, each) for each in (None, BUILT_IN, dictionary))
    click.echo(f"{output}: {len(dictionary.data):,} bytes, SHA-256 {dictionary.name}")
    click.echo(
        f"texts kept back, two to a tick, bytes each: {plain:.1f} plain, {before:.1f} with the built-in dictionary, "
        f"{after:.1f} with this one"
    )


def texts_of(export: Path) -> Iterator[str]:
    """Return the texts of an export, at most MAX_TEXTS. ClickException with the line that is no JSON."""
    count = 0
    try:
        with export.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    found = parse_json(line, MAX_DEPTH) if line.strip() else None
                except ValueError:
                    raise click.ClickException(f"{export}, line {number}: is no JSON") from None
                for text in _texts(found):
                    yield text[:MAX_TEXT_CHARS]
                    count += 1
                    if count == MAX_TEXTS:
                        return
    except UnicodeDecodeError:
        raise click.ClickException(f"{export} is not UTF-8") from None
    except OSError as error:
        raise click.ClickException(f"{export}: {error.strerror}") from error


def _texts(value: Any) -> Iterator[str]:
    """Return the strings named ``text`` in a JSON value, which may be anything."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            text = each.get("text")
            if isinstance(text, str) and text:
                yield text
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
