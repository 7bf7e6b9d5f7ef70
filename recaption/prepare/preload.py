"""Imported once by the forkserver: builds the renderer there, so that workers start at once."""

from __future__ import annotations

import os
import traceback

from recaption.engine.base import Spec
from recaption.prepare.worker import preload

VARIABLE = "RECAPTION_SPEC"

if VARIABLE in os.environ:
    try:
        preload(Spec.from_json(os.environ[VARIABLE]))
    except Exception:  # noqa: BLE001 - workers meet it again and report it to the task
        traceback.print_exc()
