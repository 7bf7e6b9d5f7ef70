"""The settings of a frozen run that shape its shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recaption.run.record import Run
from recaption.shard.write import Settings


def settings_of(run: Run) -> Settings:
    """The settings with which every attempt writes this run's shards."""
    frozen = run.identity
    return Settings(
        model=run.model["name"],
        prompts=tuple(p.name for p in run.prompts),
        image_keys=tuple(frozen["data.image_keys"]),
        caption_key=frozen["data.caption_key"],
        keep_text=frozen["output.text"] == "keep",
        captions_only=frozen["output.mode"] == "captions",
        scores=score_columns(frozen),
        rules=run.rules,
        text_key=frozen.get("data.text_key", "txt"),
        scattered=frozen.get("data.order") == "any",
    )


def score_columns(identity: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the columns and fields that hold scores."""
    watermark = ["watermark"] if identity["watermark"] != "off" else []
    return tuple(f"{name}_score" for name in [*watermark, *identity["scorers"]])
