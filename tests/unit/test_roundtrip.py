"""Reader and writer together: any set of samples in, the same out."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from tars import tar_bytes

from recaption.errors import InputChanged
from recaption.run.columns import Columns
from recaption.shard.index import Index, index_shard
from recaption.shard.settings import Settings
from recaption.shard.write import Reader, write_tar

IMAGES = ("jpg", "jpeg", "png", "webp")
OTHERS = ("cls", "npy", "seg.png", "pyd", "pickle", "JPG.bak", "", "txt2", "é", "mp3.txt")
Samples = dict[str, dict[str, bytes]]

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/."), min_size=1, max_size=40
)
folders = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1).filter(
        lambda f: f not in (".", "..")
    ),
    max_size=3,
)
keys = st.builds(lambda folder, name: "/".join([*folder, name]), folders, names)
contents = st.one_of(st.binary(max_size=40), st.sampled_from([bytes(512), b"x" * 1025, b"\0" * 9]))
members = st.builds(
    lambda image, content, rest: {image: content, **rest},
    st.sampled_from(IMAGES),
    contents,
    st.dictionaries(st.sampled_from([*OTHERS, "txt", "json"]), contents, max_size=4),
)
sets = st.dictionaries(keys, members, max_size=8)
forms = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "model": "m",
        "columns": Columns(("short",)),
        "image_keys": IMAGES,
        "caption_key": "caption",
        "keep_text": False,
        "captions_only": False,
    }
    return Settings(**(values | changes))


def rows_of(source: Samples, statuses: list[str] | None = None) -> list[dict[str, Any]]:
    rows = []
    for i, (key, found) in enumerate(source.items()):
        image = next(found[e] for e in IMAGES if e in found)
        rows.append(
            {
                "key": key,
                "index": i,
                "status": statuses[i] if statuses else "captioned",
                "caption": f"caption {i}",
                "finish_reason": "stop",
                "flags": "",
                "image_hash": hashlib.sha256(image).hexdigest(),
            }
        )
    return rows


def indexed(content: bytes) -> tuple[Any, Index]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by its last reference
    file.write(content)
    file.flush()
    return file, index_shard(file)


def written(content: bytes, rows: list[dict[str, Any]], **changes: Any) -> bytes:
    file, index = indexed(content)
    with file:
        out = io.BytesIO()
        digest = write_tar(out, file, index, rows, settings(**changes))
    assert digest == hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


def read_back(content: bytes) -> Samples:
    file, index = indexed(content)
    with file:
        reader = Reader(file)
        return {
            s.key: {m.extension: reader.read(m) or b"" for m in s.members} for s in index.samples
        }


def flat(source: Samples) -> list[tuple[str, bytes]]:
    return [(f"{k}.{e}", content) for k, found in source.items() for e, content in found.items()]


def others(source: Samples) -> list[tuple[str, list[tuple[str, bytes]]]]:
    """Everything but .txt and .json, in order."""
    return [
        (key, [(e, c) for e, c in found.items() if e not in ("txt", "json")])
        for key, found in source.items()
    ]


@given(sets, forms)
def test_any_samples_in_the_same_out(source: Samples, form: int) -> None:
    content = written(tar_bytes(flat(source), form), rows_of(source))
    made = read_back(content)
    assert others(made) == others(source)
    for i, found in enumerate(made.values()):
        assert found["txt"] == f"caption {i}".encode()
        assert json.loads(found["json"])["caption"] == f"caption {i}"
    assert len(content) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        listed = [(i.name, i.size, i.mode, i.mtime, i.uid, i.gname) for i in tar]
    assert [n for n, *_ in listed] == [n for n, _ in flat(made)]
    assert {tuple(rest) for _, _, *rest in listed} <= {(0o444, 0, 0, "")}


@given(sets, forms)
def test_the_same_captions_make_the_same_bytes(source: Samples, form: int) -> None:
    rows = rows_of(source)
    assert written(tar_bytes(flat(source), form), rows) == written(
        tar_bytes(flat(source), form, mtime=77, uid=5, uname="somebody"), rows
    )


@given(sets, st.data())
def test_only_captioned_samples_are_in_a_full_shard(source: Samples, data: st.DataObject) -> None:
    states = st.sampled_from(["captioned", "filtered", "rejected", "failed"])
    statuses = data.draw(st.lists(states, min_size=len(source), max_size=len(source)))
    rows = rows_of(source, statuses)
    content = tar_bytes(flat(source), tarfile.PAX_FORMAT)
    full = read_back(written(content, rows))
    assert list(full) == [k for k, s in zip(source, statuses, strict=True) if s == "captioned"]
    captions = read_back(written(content, rows, captions_only=True))
    assert list(captions) == list(source)
    for found, status in zip(captions.values(), statuses, strict=True):
        assert sorted(found) == ["json", "txt"]
        assert json.loads(found["json"])["recaption_status"] == status


def test_webdataset_reads_what_was_written(tmp_path: Path) -> None:
    source: Samples = {
        f"deep/folder/k{i}": {"jpg": b"%d" % i, "txt": b"old", "cls": b"1", "pyd": b"\x80\x04."}
        for i in range(20)
    }
    path = tmp_path / "00000.tar"
    path.write_bytes(written(tar_bytes(flat(source)), rows_of(source)))
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [s["__key__"] for s in found] == list(source)
    for i, sample in enumerate(found):
        assert sample["txt"] == f"caption {i}".encode()
        assert (sample["jpg"], sample["cls"], sample["pyd"]) == (b"%d" % i, b"1", b"\x80\x04.")


@pytest.mark.parametrize("change", ["fewer", "more", "renamed", "image"])
def test_a_source_that_is_not_the_rows_source_is_refused(change: str) -> None:
    source: Samples = {f"k{i}": {"jpg": b"image %d" % i} for i in range(3)}
    rows = rows_of(source)
    match change:
        case "fewer":
            del source["k2"]
        case "more":
            source["k3"] = {"jpg": b"image 3"}
        case "renamed":
            source["k9"] = source.pop("k2")
        case _:
            source["k1"] = {"jpg": b"another"}
    with pytest.raises(InputChanged, match="input changed"):
        written(tar_bytes(flat(source)), rows)


@given(sets, forms)
def test_kept_texts_are_the_sources_bytes(source: Samples, form: int) -> None:
    content = tar_bytes(flat(source), form)
    made = read_back(written(content, rows_of(source), keep_text=True))
    texts = {key: found["txt"] for key, found in source.items() if "txt" in found}
    assert {key: made[key]["txt"] for key in texts} == texts
    assert others(made) == others(source)


ODD_TEXTS = {  # that the rules after 0.1.0's read in another way
    "plain": {"jpg": b"0", "txt": b"alt", "json": b'{"caption": "c", "n": NaN}'},
    "latin": {"jpg": b"1", "TXT": b"gr\xf6\xdfe", "json": b'{"caption": "gr\xf6\xdfe"}'},
    "utf16": {"jpg": b"2", "txt": "größe".encode("utf-16"), "json": '{"a": 1}'.encode("utf-16")},
    "marks": {"jpg": b"3", "txt": b"\xef\xbb\xbfx", "json": b'\xef\xbb\xbf{"a": "b"}'},
    "raw": {"jpg": b"4", "json": b'{"caption": "a\tb"}'},
    "zeros": {"jpg": b"5", "json": b'{"caption": "a"}' + bytes(7)},
    "list": {"jpg": b"6", "json": b'{"caption": ["a", "b"], "caption_original": 1}'},
    "pair": {"jpg": b"7", "json": b'{"caption": "\\ud800"}', "npy": b"\0"},
    "bare": {"jpg": b"8", "cap.txt": b"x"},
}
BY_0_1_0 = {  # sha256 of what 0.1.0 wrote: output.text, output.mode
    (False, False): "449781293b6cc1e0cdf990d706a46e9d04ab3b987b5a056f037d6495c3ddde4a",
    (True, False): "b16858139f45ade2034cc042469847c23407c0c9ef591d80fbf3ad97e1000926",
    (False, True): "cf1a070983d2474645cf0979b701c276935eee270ad722fc54144acbf5e92cd5",
    (True, True): "0f6ba9410be2265e1f1852af60fc4d6d4ce019447f7d3fd96d9bf58373c3cad0",
}


@pytest.mark.parametrize(("keep", "short"), BY_0_1_0)
def test_runs_of_0_1_0_go_on_byte_for_byte(keep: bool, short: bool) -> None:
    content = tar_bytes(flat(ODD_TEXTS))
    states = ["captioned"] * len(ODD_TEXTS)
    states[3] = "filtered"
    rows = rows_of(ODD_TEXTS, states)
    shape = {"keep_text": keep, "captions_only": short}
    made = written(content, rows, rules=1, **shape)
    assert hashlib.sha256(made).hexdigest() == BY_0_1_0[keep, short]
    assert written(content, rows, **shape) != made
