"""``roomcast lottery``: verifies the proof of a lottery, with no broker at hand.

Exit status 1: the proof has a failure, whose name is printed; 2: the file cannot be read.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from broker.cli.config import UserPath
from broker.config.files import read_bytes_of
from protocol.lottery.proof import ProofUnreadable, parse_proof, verify
from protocol.text import plain

__all__ = ["lottery"]


def hex_digest(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a SHA-256 in lower case; BadParameter for anything else."""
    if value is not None and not re.fullmatch("[0-9a-f]{64}", value.lower()):
        raise click.BadParameter("must be 64 digits 0-9a-f")
    return None if value is None else value.lower()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lottery() -> None:
    """Check the lotteries of rooms."""


@lottery.command("verify", short_help="Verify a proof file.")
@click.argument("file", type=UserPath())
@click.option("--commitment", metavar="HEX", callback=hex_digest, help="What your client kept when it was announced.")
@click.option("--root", metavar="HEX", callback=hex_digest, help="What your client kept when it closed.")
def verify_file(file: Path, commitment: str | None, root: str | None) -> None:
    """Compute the commitment, the root and the winners of a proof again, and name the first that is not as it says.

    `beacon: unchecked` means that the signature of the drand round was not checked: pip install 'roomcast[lottery]',
    or compare it with a drand mirror. `seen: no` means that nothing was compared with what your client kept: a proof
    that was made anew as a whole is in order too.
    """
    try:
        document = parse_proof(read_bytes_of(file))
    except (OSError, ProofUnreadable) as error:
        click.echo(f"{file}: cannot be read: {plain(str(error))}", err=True)
        sys.exit(2)
    result = verify(document, commitment or "", root or "")
    if result.failure is not None:
        click.echo(f"{result.failure}: {plain(result.detail)}")
        sys.exit(1)
    click.echo(f"OK\nbeacon: {result.beacon}\nseen: {'yes' if result.is_as_seen else 'no'}")
