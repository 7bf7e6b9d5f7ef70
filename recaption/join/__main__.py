from recaption.__main__ import run
from recaption.join import main

run(main)
