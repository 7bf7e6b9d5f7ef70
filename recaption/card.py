"""What a whole run gets for its readers: sizes.json for open_clip, README.md as dataset card."""

from __future__ import annotations

from string import Template
from typing import Any

from recaption import publish
from recaption.run.paths import RunPaths
from recaption.run.record import Run
from recaption.run.rows import STATES
from recaption.run.scan import scan

CARD = Template("""\
---
configs:
- config_name: default
  data_files: $files
license: $license
tags:
- image-captioning
- synthetic-captions
- webdataset
---

# $title

$captioned of $total pictures with captions by `$model`$revision, in $shards WebDataset shards,
made with [recaption]($home) $version.

$prompts
| samples | count |
|---|---|
$counts

Each sample has its picture and other members as in the source, the caption in `.txt`, and in
`.json` the fields `caption`, `caption_original`, `recaption_model`, `recaption_prompt`,
`recaption_finish_reason` and `recaption_flags` beside the source's own.

```python
import webdataset as wds
dataset = wds.WebDataset("$pattern", shardshuffle=False)

from datasets import load_dataset
dataset = load_dataset("webdataset", data_files="*.tar", split="train", streaming=True)
```
""")
HOME = "https://pypi.org/project/recaption"


def complete(paths: RunPaths, run: Run, tag: str) -> bool:
    """Write sizes.json and the card if every shard of the run has its marker."""
    if len(paths.marked()) < len(run.shards):
        return False
    state = scan(paths, run)
    captions_mode = run.identity["output.mode"] == "captions"
    sizes = {
        name: sum(counts.values()) if captions_mode else counts["captioned"]
        for name, counts in state.done.items()
    }
    files = {
        paths.sizes_json: publish.to_json(sizes),
        paths.card: _card(run, sizes, state.samples()).encode(),
    }
    for path, content in files.items():
        publish.replace(path, content, paths.temporary(path, tag))
    return True


def _card(run: Run, sizes: dict[str, int], counts: dict[str, int]) -> str:
    filled = [name for name, size in sizes.items() if size]
    files = '"*.tar"'
    if len(filled) < len(sizes):
        files = "\n" + "\n".join(f'  - "{name}"' for name in filled)
    revision = run.model.get("revision")
    return CARD.substitute(
        files=files,
        license="other",
        title="Recaptioned shards",
        captioned=counts["captioned"],
        total=sum(counts.values()),
        model=run.model["name"],
        revision=f" (revision {revision})" if revision else "",
        shards=len(sizes),
        home=HOME,
        version=run.versions["recaption"],
        prompts="".join(_prompt(p.name, p.system, p.text) for p in run.prompts),
        counts="\n".join(f"| {name} | {counts[name]} |" for name in STATES),
        pattern=filled[0] if filled else "*.tar",
    )


def _prompt(name: str, system: str | None, text: str) -> str:
    parts = [("System message", system), (f"Prompt `{name}`", text)]
    return "".join(f"{title}:\n\n{_quoted(body)}\n\n" for title, body in parts if body)


def _quoted(text: Any) -> str:
    return "\n".join(f"> {line}" for line in str(text).splitlines())
