from recaption.__main__ import run
from recaption.doctor.command import main

run(main)
