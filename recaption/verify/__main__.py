from recaption.__main__ import run
from recaption.verify.command import main

run(main)
