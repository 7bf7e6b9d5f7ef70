"""Texts in any encoding, members in any order: what is kept, what is asked, and by which members."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from helpers import Completed, launch, launched, read_shard, refused, rows
from PIL import Image
from tars import ended, entry, tar_bytes, tiny_png

from recaption.engine.fake import caption_of

Refusal = Callable[..., Completed]

FAKE = ("engine=fake", "output.dir=run", "data.workers=1")
ASKED = "prompt.text=Old: {caption|none yet}. Alt: {json.meta.alt|none: at all}."
TEXTS = {
    "latin": "größe".encode("latin-1"),
    "gbk": "画像".encode("gbk"),
    "utf16": "größe 画像".encode("utf-16"),
    "sig": "größe".encode("utf-8-sig"),
    "plain": "größe\n".encode(),
    "empty": b"",
}
READ = {"utf16": "größe 画像", "sig": "größe", "plain": "größe\n", "empty": ""}
FIELDS = {"meta": {"alt": "ein Bild"}, "caption": ["first", "second"]}


def picture(number: int) -> bytes:
    return tiny_png(number, side=32)


def apart(*names: str) -> list[tuple[str, bytes]]:
    """Members one after another, all pictures before all texts."""
    pictures = [(f"{n}.jpg", picture(i)) for i, n in enumerate(names)]
    texts = [(f"{n}.txt", TEXTS[n]) for n in names if n in TEXTS]
    return pictures + texts


def answer(content: bytes, text: str) -> str:
    """What the fake engine says of a picture."""
    rgb = Image.open(io.BytesIO(content)).convert("RGB")
    return caption_of({"pixels": rgb.tobytes(), "size": rgb.size}, f"\n{text}")


def linked(members: list[tuple[str, bytes]], **links: str) -> bytes:
    """A tar of members, and of hard links to some of them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    body = file.getvalue()[: tar.offset - 2 * tarfile.BLOCKSIZE]
    made = (
        entry(name.replace("__", "."), kind=tarfile.LNKTYPE, linkname=target)
        for name, target in links.items()
    )
    return ended(body, *made)


def test_members_apart_links_and_texts_in_any_encoding(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    fields = json.dumps(FIELDS, ensure_ascii=False)
    odd = [
        ("nested.json", fields.encode("utf-16")),
        ("zeros.json", fields.encode() + bytes(90)),
        ("raw.json", b'\xef\xbb\xbf{"meta": {"alt": "a\tb"}, "meta.alt": "flat"}'),
        ("named.input.jpg", picture(99)),
        ("named.outputs.txt", b"x"),
    ]
    members = [*apart(*TEXTS, "nested", "zeros", "raw"), *odd]
    shard = folder / "00000.tar"
    shard.write_bytes(linked(members, again__jpg="latin.jpg", again__txt="utf16.txt"))
    words = (f"data.shards={shard}", *FAKE, ASKED, "prompt.name=asked", "output.text=keep")
    launched(*words, "data.order=any", cwd=tmp_path)

    run = tmp_path / "run"
    made = {row["key"]: row for row in rows(run, "00000.tar")}
    found = read_shard(run / "00000.tar")
    assert list(made) == [*TEXTS, "nested", "zeros", "raw", "named", "again"]
    assert list(found) == [k for k in made if k != "named"]
    assert made["named"]["status"] == "rejected"
    assert "it has input.jpg, outputs.txt" in made["named"]["reason"]
    source = dict(members)
    for key, content in TEXTS.items():
        assert found[key]["txt"] == content, "kept bytes are the source's"
        assert found[key]["jpg"] == source[f"{key}.jpg"]
    for key, text in READ.items():
        assert made[key]["caption_original"] == text
        assert json.loads(found[key]["json"])["caption_original"] == text
    assert made["latin"]["caption_original"] == "gr\ufffd\ufffde"
    assert found["again"]["jpg"] == found["latin"]["jpg"]
    assert found["again"]["txt"] == TEXTS["utf16"]
    assert made["again"]["caption_original"] == READ["utf16"]
    for key in ("nested", "zeros"):
        assert made[key]["caption_original"] == "first"
        assert found[key]["txt"] == b"first"
        assert json.loads(found[key]["json"])["meta"] == FIELDS["meta"]
    assert json.loads(found["raw"]["json"])["meta"] == {"alt": "a\tb"}
    result = launch("run", "--input", cwd=tmp_path, module="verify")
    assert result.returncode == 0
    assert "the source has a .txt that is not UTF-8" in result.stdout

    texts = {
        "latin": "Old: gr\ufffd\ufffde. Alt: none: at all.",
        "nested": "Old: first. Alt: ein Bild.",
        "raw": "Old: none yet. Alt: flat.",
    }
    for key, text in texts.items():
        assert made[key]["caption"] == answer(found[key]["jpg"], text)


def test_text_and_caption_keys_of_ones_own(tmp_path: Path) -> None:
    """Captions mode and a join make what full mode makes."""
    samples = {
        "own": {"jpg": picture(1), "txt": b"not this", "cap.txt": TEXTS["latin"]},
        "json": {"jpg": picture(2), "json": json.dumps({"meta": {"alt": "alt"}}).encode()},
        "none": {"jpg": picture(3), "txt": b"not this"},
    }
    members = [(f"{k}.{e}", c) for k, found in samples.items() for e, c in found.items()]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/00000.tar").write_bytes(tar_bytes(members))
    keys = ("data.text_key=cap.txt", "data.caption_key=meta.alt", "output.text=keep")
    words = ("data.shards=set/00000.tar", "engine=fake", *keys)
    launched(*words, "output.dir=full", cwd=tmp_path)
    launched(*words, "output.dir=captions", "output.mode=captions", cwd=tmp_path)
    found = read_shard(tmp_path / "full/00000.tar")
    wanted = {"own": TEXTS["latin"], "json": b"alt", "none": b""}
    assert {k: m["txt"] for k, m in found.items()} == wanted
    assert found["own"]["cap.txt"] == TEXTS["latin"]
    short = read_shard(tmp_path / "captions/00000.tar")
    assert {k: m["txt"] for k, m in short.items()} == wanted
    originals = [r["caption_original"] for r in rows(tmp_path / "full", "00000.tar")]
    assert originals == ["gr\ufffd\ufffde", "alt", ""]
    assert launch("captions", "-o", "joined", cwd=tmp_path, module="join").returncode == 0
    joined = (tmp_path / "joined/00000.tar").read_bytes()
    assert joined == (tmp_path / "full/00000.tar").read_bytes()
    where = ("--where", "caption_original != 'alt'", "-o", "less")
    assert launch("captions", *where, cwd=tmp_path, module="filter").returncode == 0
    less = read_shard(tmp_path / "less/00000.tar")
    assert {k: m["txt"] for k, m in less.items()} == wanted
    assert launch("less", "--input", cwd=tmp_path, module="verify").returncode == 0


def test_fields_are_cut_to_the_room_there_is(tmp_path: Path) -> None:
    """The longest first; a retry asks for nothing again for that alone."""
    long = " ".join(f"w{i}" for i in range(500))
    members = [
        *(("a.jpg", picture(1)), ("a.txt", long.encode()), ("a.json", b'{"tag": "short one"}')),
        *(("b.jpg", picture(2)), ("b.txt", b"short"), ("b.json", b'{"tag": "short one"}')),
    ]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/00000.tar").write_bytes(tar_bytes(members))
    words = ("data.shards=set/00000.tar", *FAKE, "prompt.text=Say {json.tag} and {caption} !")
    room = ("model.max_model_len=64", "sampling.max_tokens=20", "quality.retries=2")
    launched(*words, "prompt.name=say", *room, cwd=tmp_path)
    a, b = rows(tmp_path / "run", "00000.tar")
    assert (a["status"], a["flags"], a["attempts"]) == ("captioned", "cut", "")
    assert (b["status"], b["flags"]) == ("captioned", "")
    cut = " ".join(long.split()[: 64 - 20 - 5])  # all that is left beside the five other words
    assert a["caption"] == answer(picture(1), f"Say short one and {cut} !")
    assert b["caption"] == answer(picture(2), "Say short one and short !")


def test_a_field_that_no_sample_has_is_refused(
    one_shard: Path, tmp_path: Path, launch_here: Refusal
) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run", "prompt.name=p")
    said = refused(
        launch_here(*words, "prompt.text={json.ids}", cwd=tmp_path), "prompt.text", "{json.ids}"
    )
    assert "none of the first 6 samples" in said
    assert "did you mean json.id?" in said
    assert not (tmp_path / "run").exists()
    dry = (*words, "dry_run=true")
    named = launch_here(*dry, "prompt.text={json.ids|no id} {json.id}", cwd=tmp_path)
    assert named.returncode == 0
    assert "warning: prompt.text: {json.ids|no id}: none of the first 6" in named.stderr
    (tmp_path / "presets/prompt").mkdir(parents=True)
    look = json.dumps({"name": "look", "text": "{captions.short} {json.nothing}"})
    (tmp_path / "presets/prompt/look.yaml").write_text(look)
    several = (*words[:3], "--config-dir=presets", "prompts=[short,look]")
    refused(launch_here(*several, cwd=tmp_path), "prompt look", "{json.nothing}")
    bare = tmp_path / "bare.tar"
    bare.write_bytes(tar_bytes([("a.jpg", picture(1))]))
    of_bare = (f"data.shards={bare}", *words[1:])
    refused(launch_here(*of_bare, "prompt.text={caption}", cwd=tmp_path), "{caption}", ".txt")


def test_keys_that_cannot_be(one_shard: Path, tmp_path: Path, launch_here: Refusal) -> None:
    words = (f"data.shards={one_shard}", "engine=fake", "output.dir=run")
    for key, value in (("data.text_key", "json"), ("data.text_key", "jpg"), ("data.order", "none")):
        refused(launch_here(*words, f"{key}={value}", cwd=tmp_path), key, value)
    refused(launch_here(*words, "quality.bad=[cut]", cwd=tmp_path), "quality.bad", "cut")
