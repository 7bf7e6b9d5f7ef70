"""Repeats actions that fail because of the network, after pauses that double."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TypeVar

from recaption.errors import RecaptionError

T = TypeVar("T")
FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 30.0


def retried(action: Callable[[], T], failed: Callable[[Exception, int, float], float]) -> T:
    """The result of an action, repeated until it succeeds; errors of this package are final.

    `failed` is called after each failure with the error, the number of failures and the next pause.
    It returns the pause to be made, or raises to end the tries.
    """
    for count in itertools.count(1):
        try:
            return action()
        except RecaptionError:
            raise
        except Exception as e:  # noqa: BLE001 - every remote library has its own network errors
            pause = failed(e, count, min(FIRST_PAUSE * 2 ** min(count - 1, 20), LONGEST_PAUSE))
        time.sleep(pause)
    raise AssertionError


def said(error: BaseException) -> str:
    """An error as one line of text."""
    return " ".join(str(error).split()) or type(error).__name__
