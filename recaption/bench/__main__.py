"""`python -m recaption.bench`."""

from recaption.__main__ import run
from recaption.bench.command import main

run(main)
