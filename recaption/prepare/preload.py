"""Imported once by the forkserver: builds the renderer there, so that workers start at once.

It renders a picture, too: what libraries say once in each process is then said once in a task's log.
"""

from __future__ import annotations

import os
import traceback

from recaption.engine.base import Spec, own_picture
from recaption.errors import SampleError
from recaption.prepare.worker import preload

VARIABLE = "RECAPTION_SPEC"

if VARIABLE in os.environ:
    try:
        spec = Spec.from_json(os.environ[VARIABLE])
        own_picture(preload(spec), spec.prompts)
    except SampleError:
        pass  # a prompt that is too long before anything is filled in is each sample's own matter
    except Exception:  # noqa: BLE001 - workers meet it again and report it to the task
        traceback.print_exc()
