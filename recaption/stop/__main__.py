from recaption.__main__ import run
from recaption.stop import main

run(main)
