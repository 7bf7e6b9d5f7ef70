"""`recaption.verify`: every planted defect is found, and nothing is found in sound runs."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from drawing import EXTENSIONS, Sample, draw_samples, write_shard
from helpers import Completed, Members, launch, launched, read_shard, refused

from recaption.run.digest import sha256_of
from recaption.verify import loaders
from recaption.verify import main as verify_command

META = ".recaption"


def verify(run: Path, *words: str) -> Completed:
    return launch(str(run), *words, cwd=run.parent, module="verify")


def report(run: Path, *words: str, code: int = 0) -> Any:
    result = verify(run, "--json", *words)
    assert result.returncode == code, result
    assert result.stderr == ""
    return json.loads(result.stdout)


def kinds(run: Path, *words: str) -> set[str]:
    """Kinds of the defects that verify finds, of which there has to be one."""
    found = report(run, *words, code=1)
    assert not found["ok"]
    return {defect["kind"] for defect in found["defects"]}


def alike(count: int, seed: int, name: str) -> list[Sample]:
    """Samples that every loader can read: the same members everywhere, and no nulls."""
    made = []
    for sample in draw_samples(count, seed, side=128, plain=True, name=name):
        (image,) = [c for e, c in sample.members.items() if e in EXTENSIONS]
        members = {"jpg": image, "txt": sample.members["txt"], "json": b'{"id": 7}'}
        made.append(Sample(sample.key, members))
    return made


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `in`, three shards, and `run`, a finished run of them with one rejected sample."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "in").mkdir()
    for number in range(3):
        samples = alike(6, number, f"s{number}")
        if number == 1:
            samples[4] = Sample(samples[4].key, {**samples[4].members, "jpg": b"broken"})
        write_shard(folder / f"in/{number:05d}.tar", samples)
    launched(f"data.shards={folder}/in/*.tar", "engine=fake", "output.dir=run", cwd=folder)
    return folder


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound run, to damage; its source is where it was."""
    return Path(shutil.copytree(sound / "run", tmp_path / "run"))


def rewrite_tar(path: Path, change: Callable[[dict[str, Members]], dict[str, Members]]) -> None:
    """Write a shard again from changed samples, as a sound tar."""
    samples = change(read_shard(path))
    path.chmod(0o644)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def change_marker(run: Path, name: str, **values: Any) -> None:
    path = run / META / "shards" / f"{name}.json"
    record = {**json.loads(path.read_bytes()), **values}
    path.chmod(0o644)
    path.write_text(json.dumps(record))


def bless(run: Path, name: str) -> None:
    """Let the marker say what the tar and the sidecar now are."""
    for what, path in (
        ("tar", run / f"{name}.tar"),
        ("sidecar", run / META / "shards" / f"{name}.parquet"),
    ):
        change_marker(run, name, **{what: {"sha256": sha256_of(path), "size": path.stat().st_size}})


def change_rows(run: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = run / META / "shards" / f"{name}.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    path.unlink()
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)


def test_a_sound_run(sound: Path, run: Path) -> None:
    """Also where it was copied to, which nothing in it depends on."""
    for folder in (sound / "run", run):
        found = report(folder, "--input")
        assert found["ok"]
        assert found["defects"] == []
        assert found["shards"] == {"total": 3, "published": 3, "given_up": 0}
        assert found["samples"] == 18
        assert {name: way["result"] for name, way in found["loaders"].items()} == dict.fromkeys(
            ("webdataset", "datasets", "open_clip"), "ok"
        )
        assert f"{folder}/{{00000..00002}}.tar" in found["train"]
        assert "--train-num-samples 17" in found["train"]
    text = verify(run).stdout
    assert "open_clip_train.main" in text
    read = "samples read by webdataset 17, datasets 17, open_clip 17"
    assert text.splitlines()[-1] == f"no defect in 3 of 3 shards; {read}"


def test_an_unfinished_run_has_the_last_word(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "00002.tar", *(run / META / "shards").glob("00002.*")):
        path.unlink()
    for name in ("sizes.json", "README.md"):
        (run / name).unlink()
    assert verify_command([str(run)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("no defect in 2 of 3 shards: run unfinished; ")
    assert last.endswith("webdataset 11, datasets 11, open_clip 11")
    assert verify_command([str(run), "--complete"]) == 1
    flip(run / "00001.tar", 700)
    assert verify_command([str(run)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("2 defects, none in 1 of 3 shards: run unfinished; ")


def flipped_image(run: Path) -> None:
    path = run / "00001.tar"
    key, members = next(iter(read_shard(path).items()))
    del key
    flip(path, path.read_bytes().index(members["jpg"]) + 20)


def flipped_sidecar(run: Path) -> None:
    flip(run / META / "shards/00001.parquet", 100)


def missing_sample(run: Path) -> None:
    rewrite_tar(run / "00000.tar", lambda s: dict(list(s.items())[1:]))
    bless(run, "00000")


def extra_sample(run: Path) -> None:
    rewrite_tar(run / "00000.tar", lambda s: {**s, "more": next(iter(s.values()))})
    bless(run, "00000")


def reordered_samples(run: Path) -> None:
    rewrite_tar(run / "00000.tar", lambda s: dict(reversed(s.items())))
    bless(run, "00000")


def changed_caption(run: Path) -> None:
    def change(samples: dict[str, Members]) -> dict[str, Members]:
        next(iter(samples.values()))["txt"] = b"something else"
        return samples

    rewrite_tar(run / "00000.tar", change)
    bless(run, "00000")


def changed_image(run: Path) -> None:
    def change(samples: dict[str, Members]) -> dict[str, Members]:
        first, second = list(samples.values())[:2]
        first["jpg"] = second["jpg"]
        return samples

    rewrite_tar(run / "00000.tar", change)
    bless(run, "00000")


def marker_without_tar(run: Path) -> None:
    (run / "00002.tar").unlink()


def marker_without_sidecar(run: Path) -> None:
    (run / META / "shards/00002.parquet").unlink()


def tar_without_marker(run: Path) -> None:
    (run / META / "shards/00002.json").unlink()


def foreign_tar(run: Path) -> None:
    shutil.copy(run / "00000.tar", run / "extra.tar")


def foreign_marker(run: Path) -> None:
    shutil.copy(run / META / "shards/00000.json", run / META / "shards/00009.json")


def stale_temporary(run: Path) -> None:
    (run / META / "tmp/00000.tar@0-0-0-0123456789ab").write_bytes(b"half")


def leftover_journal(run: Path) -> None:
    (run / META / "journal/00000@0-0-0-0123456789ab.0.zst").write_bytes(b"")


def other_fingerprint(run: Path) -> None:
    change_marker(run, "00001", fingerprint="0" * 64)


def wrong_counts(run: Path) -> None:
    counts = {"captioned": 6, "filtered": 0, "rejected": 0, "failed": 0}
    change_marker(run, "00001", counts=counts)


def swapped_rows(run: Path) -> None:
    change_rows(run, "00000", lambda rows: rows.reverse())
    bless(run, "00000")


def cut_tar(run: Path) -> None:
    path = run / "00000.tar"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:9000])


def half_a_marker(run: Path) -> None:
    path = run / META / "shards/00000.json"
    path.chmod(0o644)
    path.write_text(path.read_text()[:100])


def wrong_sizes(run: Path) -> None:
    (run / "sizes.json").write_text('{"00000.tar": 6, "00001.tar": 6, "00002.tar": 6}')


def no_card(run: Path) -> None:
    (run / "README.md").unlink()


PLANTED = [
    (flipped_image, "changed tar", "00001.tar"),
    (flipped_sidecar, "changed sidecar", "00001.tar"),
    (missing_sample, "missing sample", "00000.tar"),
    (extra_sample, "extra sample", "00000.tar"),
    (reordered_samples, "wrong order", "00000.tar"),
    (changed_caption, "wrong caption", "00000.tar"),
    (changed_image, "wrong image", "00000.tar"),
    (marker_without_tar, "marker without tar", "00002.tar"),
    (marker_without_sidecar, "missing sidecar", "00002.tar"),
    (tar_without_marker, "tar without marker", "00002.tar"),
    (foreign_tar, "foreign file", "extra.tar"),
    (foreign_marker, "foreign file", "00009.json"),
    (stale_temporary, "stale temporary", "00000.tar"),
    (leftover_journal, "leftover journal", "00000.tar"),
    (other_fingerprint, "other fingerprint", "00001.tar"),
    (wrong_counts, "wrong counts", "00001.tar"),
    (swapped_rows, "wrong rows", "00000.tar"),
    (cut_tar, "damaged tar", "00000.tar"),
    (half_a_marker, "damaged marker", "00000.tar"),
    (wrong_sizes, "wrong sizes.json", "00001.tar"),
    (no_card, "missing card", "README.md"),
]


@pytest.mark.parametrize(
    ("plant", "kind", "named"), PLANTED, ids=lambda p: getattr(p, "__name__", "")
)
def test_a_planted_defect(run: Path, plant: Callable[[Path], None], kind: str, named: str) -> None:
    plant(run)
    result = verify(run, "--json")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    found = json.loads(result.stdout)["defects"]
    assert any(d["kind"] == kind and named in d["shard"] + d["text"] for d in found), found


def test_only_the_source_tells(sound: Path, tmp_path: Path) -> None:
    """A member that neither marker nor sidecar knows, and a source that is another one now."""
    folder = Path(shutil.copytree(sound / "in", tmp_path / "in"))
    launched(f"data.shards={folder}/*.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    run = tmp_path / "run"

    def change(samples: dict[str, Members]) -> dict[str, Members]:
        first = next(iter(samples.values()))
        first["json"] = first["json"].replace(b'"id": 7', b'"id": 8')
        return samples

    rewrite_tar(run / "00000.tar", change)
    bless(run, "00000")
    assert report(run)["ok"]
    (defect,) = report(run, "--input", code=1)["defects"]
    assert defect["kind"] == "differs from source"
    assert "s0_00000.json" in defect["text"]
    write_shard(folder / "00001.tar", alike(6, 99, "s1"))
    assert "input changed" in kinds(run, "--input")
    (folder / "00002.tar").unlink()
    assert "input changed" in kinds(run, "--input")


def test_what_lies_in_the_source_is_a_warning(tmp_path: Path) -> None:
    samples = alike(6, 5, "mixed")
    for i, sample in enumerate(samples):
        value = None if i % 2 else {"x": 1}
        members = {**sample.members, "json": json.dumps({"sometimes": value}).encode()}
        if i == 3:
            members["png"] = members.pop("jpg")
        samples[i] = Sample(sample.key, members)
    write_shard(tmp_path / "0.tar", samples)
    launched(f"data.shards={tmp_path}/0.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    found = report(tmp_path / "run", "--input")
    assert found["loaders"]["datasets"]["result"] == "warn"
    assert "jpg" in found["loaders"]["datasets"]["text"]
    assert found["loaders"]["open_clip"]["result"] == "ok"
    broken = [Sample(s.key, {"jpg": b"no image"}) for s in samples]
    write_shard(tmp_path / "0.tar", broken)
    launched(
        f"data.shards={tmp_path}/0.tar",
        "engine=fake",
        "data.alarm=1",
        "output.dir=none",
        cwd=tmp_path,
    )
    found = report(tmp_path / "none")
    assert {way["result"] for way in found["loaders"].values()} == {"warn"}
    assert found["train"] == ""


ENDS_BADLY = """\
import atexit, os
if {at_once}:
    os.abort()
atexit.register(os.abort)
def load_dataset(*_, **__):
    print("as loaders do")
    return [dict(txt="", json=dict())] * 17
"""


@pytest.mark.parametrize("at_once", [False, True])
def test_a_loader_that_ends_its_process(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Threads of pyarrow's did that after all was said, and made a sound run's exit code -6."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/datasets.py").write_text(ENDS_BADLY.format(at_once=at_once))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    result = verify(run, "--json")
    assert result.returncode == int(at_once), result
    loaders = json.loads(result.stdout)["loaders"]
    assert loaders["webdataset"]["result"] == "ok"
    assert loaders["datasets"]["result"] == ("fail" if at_once else "ok")
    assert ("ended with -6" in loaders["datasets"]["text"]) == at_once
    assert loaders["open_clip"]["result"] == ("skipped" if at_once else "ok")


@pytest.mark.parametrize(
    "words", [("output.mode=captions",), ("output.text=keep",), ("prompts=[short,detailed]",)]
)
def test_other_shapes_of_run(sound: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    source = f"data.shards={sound}/in/*.tar"
    launched(source, "engine=fake", "output.dir=run", *words, cwd=tmp_path)
    found = report(tmp_path / "run", "--input")
    assert found["ok"]
    assert found["samples"] == 18


def test_an_unfinished_run_is_not_a_defect(sound: Path, tmp_path: Path) -> None:
    source = f"data.shards={sound}/in/*.tar"
    launched(source, "engine=fake", "output.dir=run", "data.range=0-1", cwd=tmp_path)
    found = report(tmp_path / "run", "--input")
    assert found["shards"] == {"total": 3, "published": 2, "given_up": 0}
    assert "1 of 3 shards are not published yet" in found["notes"]


def test_the_card_loads_in_datasets(sound: Path, tmp_path: Path) -> None:
    """By its folder, as a repository on the Hub is loaded; an empty shard is left out."""
    from datasets import load_dataset

    folder = Path(shutil.copytree(sound / "in", tmp_path / "in"))
    write_shard(folder / "00000.tar", [Sample(f"bad{i}", {"jpg": b"broken"}) for i in range(2)])
    launched(f"data.shards={folder}/*.tar", "engine=fake", "output.dir=run", cwd=tmp_path)
    run = tmp_path / "run"
    sizes = json.loads((run / "sizes.json").read_bytes())
    assert sizes == {"00000.tar": 0, "00001.tar": 5, "00002.tar": 6}
    for root in (run, sound / "run"):
        dataset = load_dataset(str(root), split="train", streaming=True)
        expected = [
            (key, members["txt"].decode())
            for path in sorted(root.glob("*.tar"))
            for key, members in read_shard(path).items()
        ]
        assert [(s["__key__"], s["txt"]) for s in dataset] == expected
        assert len(expected) in (11, 17)
    files = load_dataset(
        "webdataset", data_dir=str(sound / "run"), data_files="*.tar", split="train", streaming=True
    )
    assert sum(1 for _ in files) == 17


def test_wrong_use(sound: Path, tmp_path: Path) -> None:
    refused(verify(tmp_path), str(tmp_path), "run.json")
    refused(verify(sound / "run", "--inputs"), "--inputs", "--input")
    refused(launch(cwd=tmp_path, module="verify"), "run directory")
    assert "--input" in launch("--help", cwd=tmp_path, module="verify").stdout


def test_a_webdataset_that_cannot_be_imported_leaves_torch_to_other_loaders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # both are put back afterwards
    monkeypatch.setitem(sys.modules, "webdataset", None)
    found = loaders._checked(loaders._webdataset, loaders._Shards([], 0, False))
    assert (found.result, found.text) == ("skipped", "not installed: webdataset")
    assert "torch" not in sys.modules
