"""Checks that the fields in a new run's prompts exist, in the first samples of its first shard."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from recaption.config.schema import Config, Prompt
from recaption.errors import ShardError, UserError
from recaption.model.prompt import Field, Values, fields_of
from recaption.run.record import RULES, InputShard
from recaption.shard import source
from recaption.shard.index import first_samples
from recaption.shard.rules import Texts
from recaption.shard.samples import Layout
from recaption.shard.write import Reader, source_text

FIRST = 100  # samples that are read
NAMED = 12  # fields of the JSON that a message lists


def check_fields(config: Config, prompts: Sequence[Prompt], shards: Sequence[InputShard]) -> None:
    """Raise UserError for a field that none of the first samples of a local first shard has.

    If the prompt gives a word for samples without the field, this is a warning only. If the shard
    cannot be read, nothing is checked.
    """
    wanted = [(p, f) for p in prompts for f in fields_of(p) if f.source != "captions"]
    samples = _samples(config, shards[0].url) if wanted else []
    for prompt, field in wanted:
        if not samples or any(values.of(field) is not None for values in samples):
            continue
        key = "prompt.text" if len(prompts) == 1 else f"prompt {prompt.name}"
        there = f"none of the first {len(samples)} samples of {shards[0].url} has it"
        if field.word is None:
            hint = f"{_hint(field, config, samples)}; {{{field.path}|WORD}} is WORD without it"
            raise UserError(f"{key}: {{{field.path}}}: {there}{hint}")
        print(f"warning: {key}: {{{field.path}|{field.word}}}: {there}", file=sys.stderr)


def _samples(config: Config, url: str) -> list[Values]:
    """The first samples' values for the fields of prompts; none if the shard is remote or compressed."""
    path = source.local_path(url)
    if path is None or source.needs_spool(url):
        return []
    texts = Texts(config.data.text_key, config.data.caption_key, RULES)
    layout = Layout(config.data.order == "any", texts.by.links)
    try:
        with Path(path).open("rb") as file:
            reader = Reader(file)
            found = [s for s in first_samples(file, layout, FIRST) if not s.defect]
            originals = [source_text(reader, sample, texts) for sample in found]
    except (ShardError, OSError):
        return []
    return [Values(o.caption, o.fields, {}, texts.by) for o in originals]


def _hint(field: Field, config: Config, samples: Sequence[Values]) -> str:
    if field.source == "caption":
        data = config.data
        return f" (.{data.text_key}, or {data.caption_key} of the .json)"
    names = sorted({str(name) for values in samples for name in values.json})
    near = difflib.get_close_matches(field.name, names, n=1)
    if near:
        return f" (did you mean json.{near[0]}?)"
    more = ", …" if len(names) > NAMED else ""
    return f"; their .json has {', '.join(names[:NAMED]) or 'no field'}{more}"
