from recaption.__main__ import run
from recaption.upload import main

run(main)
