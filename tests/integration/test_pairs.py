"""recaption.pairs: source samples beside the captions of a captions-only run, as the joined run has
them."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from helpers import IMAGES, Made, launch, launched, read_run
from tars import entry, members_of, plain_members, tar_bytes, tiny_png, write_tar

import recaption
from recaption.errors import ShardError, UserError
from recaption.join import main as join

FAKE = ("engine=fake", "output.mode=captions", "output.dir=run")
README = Path(__file__).parents[2] / "README.md"
CUT = 3000  # bytes that the cut shard lacks: the rest of its last sample but two


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captions-only run of shards whose names collide, some damaged, one packed; and it joined."""
    cwd = tmp_path_factory.mktemp("pairs")
    for folder in ("x", "y"):
        (cwd / "set" / folder).mkdir(parents=True)
    write_tar(cwd / "set/x/00000.tar", plain_members(6, 1))
    (cwd / "set/y/00000.tar").write_bytes(tar_bytes(plain_members(6, 2))[:-CUT])
    twice = [*members_of("a", 1), *members_of("b", 2), *members_of("a", 3)]
    apart = [("c.png", tiny_png(4)), ("d.png", tiny_png(5)), ("c.txt", b"c"), ("d.txt", b"d")]
    rest = [
        *members_of("e", 6),
        ("g.txt", b"no picture"),
        ("h.PNG", tiny_png(7)),
        ("h.txt", b"upper case"),
        *members_of("z", 8),
    ]
    write_tar(cwd / "set/x/mixed.tar", [*twice, *apart, *rest])
    packed = gzip.compress(tar_bytes(plain_members(4, 3)), mtime=0)
    (cwd / "set/y/packed.tar.gz").write_bytes(packed)
    launched("data.shards=set/*/*", *FAKE, "data.damaged=salvage", "data.max_samples=10", cwd=cwd)
    assert join([str(cwd / "run"), "-o", str(cwd / "full")]) == 0
    return cwd


def picture_and_text(sample: dict[str, Any]) -> tuple[bytes, bytes]:
    (image,) = [sample[extension] for extension in IMAGES if extension in sample]
    return image, sample["txt"]


def joined(run: Path) -> list[tuple[str, tuple[bytes, bytes]]]:
    """Key, picture and caption of every sample of full shards, in order."""
    return [
        (key, picture_and_text({name.lower(): content for name, content in members.items()}))
        for shard in read_run(run).values()
        for key, members in shard.items()
    ]


def found(pairs: Any) -> list[tuple[str, tuple[bytes, bytes]]]:
    return [(sample["__key__"], picture_and_text(sample)) for sample in pairs]


def test_pairs_are_what_join_makes_where_names_collide_and_shards_are_damaged(place: Path) -> None:
    pairs = found(recaption.pairs(place / "run"))
    assert sorted(pairs) == sorted(joined(place / "full"))
    keys = [key for key, _ in pairs]
    assert keys.count("k00000") == 3
    assert {"a", "b", "e", "h"} < set(keys)
    assert not {"c", "d", "g", "z"} & set(keys)
    assert all(text.startswith(b"fake ") for _, (_, text) in pairs)


def test_samples_keep_the_members_of_their_source(place: Path) -> None:
    (sample,) = [s for s in recaption.pairs(place / "run") if s["__key__"] == "e"]
    assert sample["__url__"].endswith("/set/x/mixed.tar")
    assert sample["png"] == tiny_png(6)
    assert b'"recaption_status": "captioned"' in sample["json"]
    first = next(iter(recaption.pairs(place / "run").compose(wds.decode("rgb"))))
    assert first["png"].shape == (8, 8, 3)


def test_readmes_pipeline(place: Path) -> None:
    """The code that README shows, run as it stands there."""
    (code,) = re.findall(r"```python\n([^`]*recaption\.pairs[^`]*)```", README.read_text())
    code = re.sub(r"pairs\(\".*?\"\)", f"pairs({str(place / 'run')!r})", code)
    names: dict[str, Any] = {}
    exec(code, names)
    made = list(names["samples"])
    assert sorted(text for _, text in made) == sorted(
        text.decode() for _, (_, text) in joined(place / "full")
    )
    assert all(picture.size == (8, 8) for picture, _ in made)


@pytest.mark.parametrize(("count", "number"), [("WORLD_SIZE", "RANK"), ("NUM_WORKERS", "WORKER")])
def test_nodes_and_workers_share_the_shards(
    count: str, number: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "NUM_WORKERS"):
        monkeypatch.setenv(name, "1")
    for name in ("RANK", "WORKER"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv(count, "3")
    parts = []
    for part in range(3):
        monkeypatch.setenv(number, str(part))
        parts.append(found(recaption.pairs(place / "run")))
    assert all(parts)
    assert sorted(pair for part in parts for pair in part) == sorted(joined(place / "full"))


def test_a_source_that_has_moved_is_named(place: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(place / "set", tmp_path / "elsewhere")
    (moved / "x/00000.tar").write_bytes(tar_bytes(plain_members(6, 1)))
    pairs = recaption.pairs(place / "run", inputs=f"{moved}/*/*")
    assert found(pairs) == found(recaption.pairs(place / "run"))
    write_tar(moved / "x/00000.tar", plain_members(5, 1))
    with pytest.raises(ShardError, match=r"x/00000.tar: lacks 1 samples .* k00005"):
        found(recaption.pairs(place / "run", inputs=f"{moved}/*/*"))
    with pytest.raises(UserError, match="would become"):
        recaption.pairs(place / "run", inputs=f"{moved}/x/*")


def test_members_that_stand_apart_come_together_and_links_are_said(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    apart = [("c.png", tiny_png(4)), ("d.png", tiny_png(5)), ("c.txt", b"c"), ("d.txt", b"d")]
    write_tar(tmp_path / "set/0.tar", [*apart, *members_of("e", 6)])
    words = ("data.order=any", *FAKE)
    launched("data.shards=set/*.tar", *words, "data.range=0", cwd=tmp_path)
    assert join([str(tmp_path / "run"), "-o", str(tmp_path / "full")]) == 0
    assert found(recaption.pairs(tmp_path / "run")) == joined(tmp_path / "full")

    link = entry("f.png", kind=tarfile.LNKTYPE, linkname="e.png")
    content = b"".join(entry(name, data) for name, data in members_of("e", 6))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/0.tar").write_bytes(content + entry("f.txt", b"f") + link + bytes(10240))
    launched("data.shards=linked/*.tar", *FAKE[:-1], "output.dir=links", cwd=tmp_path)
    with pytest.raises(ShardError, match=r"no picture of f, .* recaption.join"):
        found(recaption.pairs(tmp_path / "links"))


def test_a_run_that_has_pictures_is_refused(made: Made) -> None:
    with pytest.raises(UserError, match="read them as they are"):
        recaption.pairs(made.run)


def test_commands_are_run_only_where_that_is_allowed(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", plain_members(3))
    words = (f"data.shards=pipe:cat {tmp_path}/a.tar", "data.allow_pipe=true")
    assert launch(*words, *FAKE, cwd=tmp_path).returncode == 0
    with pytest.raises(UserError, match="allow"):
        recaption.pairs(tmp_path / "run", inputs=words[0].partition("=")[2])
    command = words[0].partition("=")[2]
    assert len(found(recaption.pairs(tmp_path / "run", inputs=command, allow_pipe=True))) == 3


def test_the_package_imports_webdataset_only_where_it_is_asked() -> None:
    code = "import recaption, sys; assert callable(recaption.pairs); assert 'webdataset' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
