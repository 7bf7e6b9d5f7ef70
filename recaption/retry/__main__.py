from recaption.__main__ import run
from recaption.retry import main

run(main)
