from recaption.__main__ import run
from recaption.status import main

run(main)
