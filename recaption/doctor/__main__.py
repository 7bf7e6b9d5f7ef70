from recaption.__main__ import run
from recaption.doctor import main

run(main)
