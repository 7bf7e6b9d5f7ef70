from recaption.__main__ import run
from recaption.retry.command import main

run(main)
