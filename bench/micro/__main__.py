"""``python -m bench.micro``."""

from bench.micro.run import main

main()
