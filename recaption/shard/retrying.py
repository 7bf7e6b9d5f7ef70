"""Doing again what a network broke, after pauses that double."""

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
    """The result of an action, done until it succeeds; an error of ours is final.

    `failed` hears of each failure: the error, how many there were, and the pause that is due. It
    returns the pause to be made, or raises what ends the tries.
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
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
