from recaption.__main__ import run
from recaption.demo import main

run(main)
