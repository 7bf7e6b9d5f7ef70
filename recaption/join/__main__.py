from recaption.__main__ import run
from recaption.join.command import main

run(main)
