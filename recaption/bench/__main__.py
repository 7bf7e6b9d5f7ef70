from recaption.__main__ import run
from recaption.bench import main

run(main)
