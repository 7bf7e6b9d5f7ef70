from recaption.__main__ import run
from recaption.launch import main

run(main)
