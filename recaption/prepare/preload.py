"""Imported once by the forkserver: builds the renderer there, so that workers start at once."""

from __future__ import annotations

import os

from recaption.engine.base import Spec
from recaption.prepare.worker import preload

VARIABLE = "RECAPTION_SPEC"

if VARIABLE in os.environ:
    preload(Spec.from_json(os.environ[VARIABLE]))
