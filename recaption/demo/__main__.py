from recaption.__main__ import run
from recaption.demo.command import main

run(main)
