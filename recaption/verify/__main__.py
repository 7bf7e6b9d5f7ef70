from recaption.__main__ import run
from recaption.verify import main

run(main)
