"""What all tests share."""

from __future__ import annotations

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
