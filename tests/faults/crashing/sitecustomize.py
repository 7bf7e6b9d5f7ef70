"""On a run's PYTHONPATH: pictures with these words in them crash or hang the process that opens them."""

import os
import signal
import time

import PIL.Image

_open = PIL.Image.open


def _opened(file, *arguments, **options):  # type: ignore[no-untyped-def]
    content = file.getvalue() if hasattr(file, "getvalue") else b""
    if b"crash the decoder" in content:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"hang the decoder" in content:
        time.sleep(3600)
    return _open(file, *arguments, **options)


PIL.Image.open = _opened
