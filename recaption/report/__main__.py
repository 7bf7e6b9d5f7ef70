from recaption.__main__ import run
from recaption.report.command import main

run(main)
