"""The data set card: what a reader of the shards has to know, as valid YAML and Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Made, Source, launch, launched, refused
from synthetic import make_run

from recaption.errors import TaskError
from recaption.run import dataset_card
from recaption.run.record import read_run


def card(run: Path) -> tuple[dict[str, Any], str]:
    """Its front matter and its text."""
    _, head, text = (run / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_what_it_says(made: Made, source: Source) -> None:
    head, text = card(made.run)
    assert head["license"] == "other"
    assert head["configs"] == [{"config_name": "default", "data_files": "*.tar"}]
    record = json.loads((made.run / ".recaption/run.json").read_bytes())
    assert f"`{record['model']['name']}`" in text
    assert f"> {record['prompts'][0]['text']}" in text
    total = sum(map(len, source.shards.values()))
    sizes = json.loads((made.run / "sizes.json").read_bytes())
    assert f"{sum(sizes.values())} of {total} pictures" in text
    assert f"| captioned | {sum(sizes.values())} |" in text
    assert 'wds.WebDataset("{00000..00002}.tar::odd.tar", shardshuffle=False)' in text
    assert "fulfil" not in text


def test_license_filter_and_several_prompts(one_shard: Path, tmp_path: Path) -> None:
    """What is made from a run keeps its license, which is outside the fingerprint."""
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run", "output.mode=captions")
    words += ("prompts=[short,detailed]",)
    launched(*words, "output.license=cc-by-4.0", cwd=tmp_path)
    head, text = card(tmp_path / "run")
    assert head["license"] == "cc-by-4.0"
    assert "nothing to do" in launched(*words, cwd=tmp_path).stdout
    assert "recaption.pairs(" in text
    assert "`caption_NAME`" in text
    where = "len(caption) > 3 and caption != '`x`'"
    result = launch("run", "--where", where, "-o", "few", cwd=tmp_path, module="filter")
    assert result.returncode == 0
    assert launch("few", "-o", "full", cwd=tmp_path, module="join").returncode == 0
    for name in ("few", "full"):
        head, text = card(tmp_path / name)
        assert head["license"] == "cc-by-4.0"
        assert f"Samples fulfil `` {where} ``." in text


@pytest.mark.parametrize("value", ["CC BY 4.0", "''", "a: b"])
def test_a_license_that_is_none(one_shard: Path, value: str, tmp_path: Path) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run")
    refused(launch(*words, f"output.license={value}", cwd=tmp_path), "output.license", "cc-by-4.0")


def test_a_marker_without_counts_is_named(tmp_path: Path) -> None:
    """As of a copy without the tasks' logs; sizes.json would say that the shard is empty."""
    paths = make_run(tmp_path / "run", 2, 1)
    for log in paths.tasks.iterdir():
        log.unlink()
    paths.marker("000000.tar").write_text('{"given_up": "lost"}')
    with pytest.raises(TaskError, match=r"000001\.json: .*verify"):
        dataset_card.complete(paths, read_run(paths), "t")
    assert not paths.sizes_json.exists()
