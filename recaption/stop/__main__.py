from recaption.__main__ import run
from recaption.stop.command import main

run(main)
