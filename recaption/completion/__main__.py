from recaption.__main__ import run
from recaption.completion.command import main

run(main)
