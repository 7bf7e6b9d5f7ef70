from recaption.__main__ import run
from recaption.filter import main

run(main)
