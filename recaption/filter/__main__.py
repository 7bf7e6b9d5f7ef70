from recaption.__main__ import run
from recaption.filter.command import main

run(main)
