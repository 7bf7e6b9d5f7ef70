"""Imported once by the forkserver: builds the renderer there, so that workers start at once.

It also renders a picture, so that messages which libraries print once per process appear once per task.
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
        pass  # the prompt is too long even without fields; each sample reports that
    except Exception:  # noqa: BLE001 - workers meet it again and report it to the task
        traceback.print_exc()
