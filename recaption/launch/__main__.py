from recaption.__main__ import run
from recaption.launch.command import main

run(main)
