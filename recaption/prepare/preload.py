"""Imported once by the forkserver: builds the renderer there, so that workers start at once."""

from __future__ import annotations

import os
import traceback

from recaption.engine.base import Spec
from recaption.engine.orphan import die_with_parent
from recaption.prepare.worker import preload

VARIABLE = "RECAPTION_SPEC"

if VARIABLE in os.environ:
    die_with_parent()  # a forkserver looks at its parent's pipe only after the imports
    try:
        preload(Spec.from_json(os.environ[VARIABLE]))
    except Exception:  # noqa: BLE001 - workers meet it again and report it to the task
        traceback.print_exc()
