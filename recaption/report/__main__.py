from recaption.__main__ import run
from recaption.report import main

run(main)
