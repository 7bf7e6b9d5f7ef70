"""A model from the Hub, against a local server of its endpoints with a copy of the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawing import Sample, write_shard, write_shards
from helpers import Completed, launch, launched, parse_caption, refused, rows
from stores import Hub

from recaption.model.files import model_folder

REPO = "owner/tiny"
FIRST, SECOND, OTHER = "a" * 40, "b" * 40, "c" * 40
MODEL = (
    f"model.repo={REPO}",
    "model.name=ours",
    "model.max_model_len=512",
    "model.processor.backend=pil",
)


@pytest.fixture
def model(hub: Hub) -> Hub:
    """The Hub with a copy of the tiny model at two revisions."""
    hub.files[REPO] = {p.name: p.read_bytes() for p in model_folder("builtin:tiny").iterdir()}
    hub.revisions[REPO] = {"main": FIRST, "v2": OTHER}
    return hub


@pytest.mark.parametrize(
    ("case", "words", "named"),
    [
        ("gated", MODEL, [f"model.repo={REPO}", "gated", "accept", "HF_TOKEN"]),
        ("", ("model.repo=owner/nosuch", "model.name=x"), ["model.repo=owner/nosuch", "no such"]),
        ("", (*MODEL, "model.revision=v9"), ["model.revision=v9", REPO, "no such revision"]),
        ("offline", MODEL, [f"model.repo={REPO}", "cannot be reached", "model.path"]),
    ],
)
def test_what_is_wrong_is_said(
    model: Hub, one_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str,
    words: tuple[str, ...], named: list[str],
) -> None:  # fmt: skip
    if case == "gated":
        model.gated.add(REPO)
    if case == "offline":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = launch(f"data.shards={one_shard}", *words, "output.dir=run", cwd=tmp_path)
    refused(result, *named)
    assert not (tmp_path / "run").exists()


def shards(folder: Path) -> None:
    """Two shards: originals that no context holds, or that hold the model's own tokens; and scenes."""
    made = write_shards(folder, 2, 12, side=128, plain=True)
    texts = [" ".join(["word"] * 2000)] * 10 + [
        "<image> and <|im_end|>",
        "<fake_token_around_image>",
    ]
    first = [
        Sample(s.key, {**s.members, "txt": text.encode()}, s.picture)
        for s, text in zip(made["00000.tar"], texts, strict=True)
    ]
    write_shard(folder / "00000.tar", first)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_keeps_its_commit(model: Hub, tmp_path: Path) -> None:
    """Downloaded and captioned by vLLM; `main` moves on, and the run does not."""
    shards(tmp_path / "in")
    words = ("data.shards=in/*.tar", *MODEL, "output.dir=run", "prompt.name=mine")
    text = "prompt.text=Describe this image in one short sentence. {caption}"
    launched(*words, text, "data.range=0", "data.workers=1", cwd=tmp_path, timeout=580)
    found = rows(tmp_path / "run", "00000.tar")
    assert {(r["status"], r["reason"]) for r in found} == {("captioned", "")}
    assert any(parse_caption(r["caption"]).names for r in found)
    record = json.loads((tmp_path / "run/.recaption/run.json").read_bytes())
    assert record["model"]["revision"] == FIRST
    assert record["model"]["files"] == f"{REPO}@{FIRST}"

    model.revisions[REPO] |= {"main": SECOND}
    model.files[REPO]["README.md"] += b"\nedited\n"

    def again(*more: str) -> Completed:
        return launch(*words, text, "dry_run=true", *more, cwd=tmp_path)

    result = again()
    assert result.returncode == 0, result
    (line,) = [line for line in result.stdout.splitlines() if "model.revision" in line]
    assert FIRST[:12] in line
    assert SECOND[:12] in line
    refused(again("model.revision=v2"), "model.revision=v2", OTHER[:12], FIRST[:12])
    assert again(f"model.revision={FIRST}").returncode == 0
    result = launch("run", "dry_run=true", "data.range=1", cwd=tmp_path, module="retry")
    assert result.returncode == 0, result
    assert not any(SECOND in path for path in model.faults.requests if "/resolve/" in path)
