"""The settings of a frozen run that shape its shards."""

from __future__ import annotations

from recaption.run.columns import columns_of
from recaption.run.record import Run
from recaption.shard.write import Settings


def settings_of(run: Run) -> Settings:
    """The settings with which every attempt writes this run's shards."""
    frozen = run.identity
    return Settings(
        model=run.model["name"],
        columns=columns_of(run),
        image_keys=tuple(frozen["data.image_keys"]),
        caption_key=frozen["data.caption_key"],
        keep_text=frozen["output.text"] == "keep",
        captions_only=run.captions_only,
        rules=run.rules,
        text_key=frozen.get("data.text_key", "txt"),
        scattered=frozen.get("data.order") == "any",
    )
