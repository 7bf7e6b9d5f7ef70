"""Files for the readers of a finished run: sizes.json for open_clip, README.md as dataset card."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from string import Template
from typing import Any

from recaption.errors import TaskError
from recaption.run import publish, shared
from recaption.run.brace_patterns import shard_pattern
from recaption.run.crash_points import crash_point
from recaption.run.paths import RunPaths, entries
from recaption.run.record import Run, read_submission, submission_numbers
from recaption.run.rows import CAPTIONED, STATES
from recaption.run.scan import RunState, named, scan

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
made with [recaption]($home) $version.$given_up

$prompts$filters
| samples | count |
|---|---|
$counts

$members

```python
$load
```
""")
FULL = """\
Each sample has its picture and other members as in the source, the caption in `.txt`, and in
`.json` the fields `caption`, `caption_original`, `recaption_model`, `recaption_prompt`,
`recaption_finish_reason` and `recaption_flags` beside the source's own."""
KEPT = FULL.replace("the caption in `.txt`", "the source's caption in `.txt`")
CAPTIONS_ONLY = """\
These shards have captions only, for every key of the source's shards of the same names, in order:
the caption in `.txt` (empty where there is none), and in `.json` the fields `caption`,
`caption_original`, `recaption_status`, `recaption_model`, `recaption_prompt`,
`recaption_finish_reason` and `recaption_flags`."""
SEVERAL = """\
There were several prompts: `caption` has the first one's, and each has its own `caption_NAME`,
`recaption_finish_reason_NAME` and `recaption_flags_NAME`."""
LOAD = Template("""\
import webdataset as wds
dataset = wds.WebDataset("$pattern", shardshuffle=False)

from datasets import load_dataset
dataset = load_dataset("path/to/this/folder", split="train", streaming=True)""")
LOAD_CAPTIONS = Template("""\
import webdataset as wds
captions = wds.WebDataset("$pattern", shardshuffle=False)

import recaption  # with the pictures of the source
samples = recaption.pairs("path/to/this/folder", inputs="path/to/source/*.tar")""")
UNKNOWN = "other"
HOME = "https://pypi.org/project/recaption"


def complete(paths: RunPaths, run: Run, tag: str) -> bool:
    """Write sizes.json and the card, unless they exist, if every shard of the run has its marker.

    Also removes what dead attempts left behind.
    """
    if len(paths.marked()) < len(run.shards):
        return False
    _sweep(paths)
    crash_point("swept")
    if shared.exists(paths.sizes_json) and shared.exists(paths.card):
        return True
    for path, content in _files(paths, run).items():
        publish.create(path, content, paths.temporary(path, tag))
        crash_point("described")
    return True


def withdraw(paths: RunPaths, run: Run) -> None:
    """Remove sizes.json and the card of a run that is about to be unfinished again.

    A card that was edited stays.
    """
    card = _files(paths, run)[paths.card]
    if shared.exists(paths.card) and shared.content(paths.card) == card:
        shared.remove(paths.card)
    shared.remove(paths.sizes_json)


def _files(paths: RunPaths, run: Run) -> dict[Path, bytes]:
    """The files that describe a finished run, with their contents."""
    state = scan(paths, run)
    for name, counts in state.done.items():
        if CAPTIONED not in counts:
            raise TaskError(f"{paths.marker(name)}: without counts of samples; see verify")
    sizes = state.sizes(run)
    return {
        paths.sizes_json: publish.to_json(sizes),
        paths.card: _card(run, license_of(paths, run), sizes, state).encode(),
    }


def _sweep(paths: RunPaths) -> None:
    """Remove files that a finished run does not need; an attempt that still uses them notices."""
    for folder in (paths.journals, paths.leases, paths.failures, paths.temporaries):
        for name in entries(folder):
            shared.remove(folder / name)


def _card(run: Run, license: str, sizes: dict[str, int], state: RunState) -> str:
    counts = state.samples()
    filled = [name for name, size in sizes.items() if size]
    files = '"*.tar"'
    if len(filled) < len(sizes):
        files = "".join(f"\n  - {json.dumps(glob.escape(name))}" for name in filled) or "[]"
    revision = run.model.get("revision")
    load = LOAD_CAPTIONS if run.captions_only else LOAD
    return CARD.substitute(
        files=files,
        license=license,
        title="Recaptioned shards",
        captioned=counts["captioned"],
        total=sum(counts.values()),
        model=run.model["name"],
        revision=f" (revision {revision})" if revision else "",
        shards=len(sizes),
        home=HOME,
        version=run.versions["recaption"],
        given_up=f"\n\nShards {named(state.given_up)}." if state.given_up else "",
        prompts="".join(_prompt(p.name, p.system, p.text) for p in run.prompts),
        counts="\n".join(f"| {name} | {counts[name]} |" for name in STATES),
        members=_members(run),
        filters="".join(
            f"Samples fulfil {_code(text)}.\n\n" for text in run.identity.get("filter", [])
        ),
        load=load.substitute(pattern=shard_pattern(filled)),
    )


def license_of(paths: RunPaths, run: Run) -> str:
    """output.license of the run's last submission, or of its parent's if it was made from a run."""
    numbers = submission_numbers(paths)
    if not numbers:
        return str((run.parent or {}).get("license", UNKNOWN))
    return str(read_submission(paths, numbers[-1]).config["output"].get("license", UNKNOWN))


def _members(run: Run) -> str:
    if run.captions_only:
        text = CAPTIONS_ONLY
    else:
        text = KEPT if run.identity["output.text"] == "keep" else FULL
    return f"{text} {SEVERAL}" if len(run.prompts) > 1 else text


def _prompt(name: str, system: str | None, text: str) -> str:
    parts = [("System message", system), (f"Prompt `{name}`", text)]
    return "".join(f"{title}:\n\n{_quoted(body)}\n\n" for title, body in parts if body)


def _code(text: str) -> str:
    """Markdown's code for a line that may have backticks."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"


def _quoted(text: Any) -> str:
    return "\n".join(f"> {line}" for line in str(text).splitlines())
