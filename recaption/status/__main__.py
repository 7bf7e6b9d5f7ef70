from recaption.__main__ import run
from recaption.status.command import main

run(main)
