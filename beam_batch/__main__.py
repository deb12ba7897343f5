"""Run the command line with ``python -m beam_batch``."""

from beam_batch.cli.main import main

main()
