"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# No example database: a test run leaves nothing in the checkout, and repeats.
settings.register_profile(
    "recaption",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("recaption")

# Started in the background of a script, this process ignores SIGINT, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
