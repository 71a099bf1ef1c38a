"""Entry point of ``python -m broker.cli``."""

from broker.cli.main import main

main(prog_name="roomcast")
