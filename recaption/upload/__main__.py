from recaption.__main__ import run
from recaption.upload.command import main

run(main)
