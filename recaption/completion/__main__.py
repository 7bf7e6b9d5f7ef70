from recaption.__main__ import run
from recaption.completion import main

run(main)
