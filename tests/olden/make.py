"""Run directories as version 0.1.0 left them: killed halfway, queued, derived, finished.

`python tests/olden/make.py`, where recaption 0.1.0 is installed, writes runs-0.1.0.tar.xz beside this file:
inputs, runs, the commands that made them (`commands.json`), and what undisturbed runs of the same
commands come to (`wanted.json`). A fingerprint covers absolute paths, so all of it is made, and
unpacked by the tests, in one fixed folder. Later versions have to go on with these runs, so the
archive is never made again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow.parquet as pq
import zstandard
from drawing import draw
from PIL import Image
from watermarking import write_onnx

ROOT = Path("/tmp/recaption-0.1.0")
ARCHIVE = Path(__file__).with_name("runs-0.1.0.tar.xz")
FREE_COLUMNS = {"attempt", "engine", "tries", "strikes"}  # of a row: how it came about

SLOWLY = ("data.workers=1", "engine.max_num_seqs=1", "engine.waiting=0")
FAKE = ("engine=fake", "engine.rate=8", *SLOWLY, "slurm.flush_seconds=0.1")
PLAIN, ODD, CUT = (f"data.shards={ROOT}/sets/{name}/*" for name in ("plain", "odd", "cut"))
SCORES = (
    "watermark=onnx",
    f"watermark.path={ROOT}/models/watermark.onnx",
    f"scorers.sharp.path={ROOT}/models/sharp.onnx",
    "scorers.sharp.kind=sigmoid",
    "scorers.sharp.action=drop",
    "scorers.sharp.threshold=0.9",
)
KEYS = (
    "slurm.attempts=3",
    "slurm.lease_seconds=5",
    f"slurm.metrics={ROOT}/metrics",
    "sampling.temperature=0.5",
    "sampling.seed=3",
    "quality.retries=1",
    "quality.min_words=3",
    "image.max_aspect=4",
)
SITE = ("--config-dir", f"{ROOT}/presets", "slurm=site", "prompt=mine")
PIPED = (f"data.shards=pipe:cat {ROOT}/sets/plain/{{00000..00003}}.tar", "data.allow_pipe=true")
HALFWAY = {  # name → words; killed with something published, something begun and something not
    "fake": (PLAIN, *FAKE),
    "captions": (PLAIN, *FAKE, "output.mode=captions", "slurm.tasks=2", "slurm.parallelism=1"),
    "scores": (PLAIN, *FAKE, *SCORES),
    "odd": (ODD, *FAKE),
    "kept": (ODD, *FAKE, "output.text=keep"),
    "odd-captions": (ODD, *FAKE, "output.mode=captions"),
    "keys": (PLAIN, *FAKE, *KEYS),
    "site": (PLAIN, *FAKE, *SITE),
    "salvaged": (CUT, *FAKE, "data.damaged=salvage"),
    "listed": (f"data.shards={ROOT}/lists/plain.txt", "data.range=0-2", *FAKE),
    "piped": (*PIPED, *FAKE),
    "outputs/plain/tiny/short+detailed-fake": (PLAIN, *FAKE, "prompts=[short,detailed]"),
    "outputs/plain/tiny/short-pilot5-fake": (PLAIN, *FAKE, "data.max_samples=5"),
    "tiny": (f"data.shards={ROOT}/sets/scenes/*.tar", "slurm.flush_seconds=0.1", *SLOWLY),
}
FINISHED = {
    "done": (ODD, "engine=fake"),
    "failed": (CUT, "engine=fake"),
}
QUEUED = {  # submitted to a Slurm that never starts them
    "queued": (PLAIN, "engine=fake", "slurm.tasks=2", "slurm.setup=['export SITE=1']"),
    "own-model": (PLAIN, f"model.path={ROOT}/models/own", "model.name=own"),
    "no-such-model": (PLAIN, "model.repo=OWNER/NAME", "model.name=x"),
}


def main() -> None:
    assert version("recaption") == "0.1.0", "these are the runs of 0.1.0"
    shutil.rmtree(ROOT, ignore_errors=True)
    write_inputs()
    commands, wanted = {}, {}
    for name, words in {**HALFWAY, **FINISHED, **QUEUED}.items():
        line = list(words)
        if not name.startswith("outputs/"):
            line.append(f"output.dir={ROOT}/{name}")
        if name in QUEUED:
            line.append("slurm=cluster")
        commands[name] = line
    for name in HALFWAY:
        if name != "tiny":
            recaption("launch", *HALFWAY[name], f"output.dir={ROOT}/undisturbed/{name}")
            wanted[name] = content_of(ROOT / "undisturbed" / name)
    shutil.rmtree(ROOT / "undisturbed")
    for name in HALFWAY:
        halfway(name, "launch", *commands[name])
    for name in FINISHED:
        recaption("launch", *commands[name], codes=(0, 1))
    with never_starting():
        for name in QUEUED:
            recaption("launch", *commands[name])
    derive(commands, wanted)
    (ROOT / "commands.json").write_text(json.dumps(commands, indent=1))
    (ROOT / "wanted.json").write_text(json.dumps(wanted, indent=1, ensure_ascii=False))
    pack()


def derive(commands: dict[str, list[str]], wanted: dict[str, Any]) -> None:
    """Runs made from the finished one: a filtered one, and a retry that was killed, too."""
    done = str(ROOT / "done")
    recaption("filter", done, "--where", "tokens > 1 and index != 2", "-o", f"{ROOT}/filtered")
    again = (done, "--status", "captioned", "prompt.text=Say more.", "engine.rate=8", *SLOWLY)
    again = (*again, "slurm.flush_seconds=0.1", "-o")
    recaption("retry", *again, f"{ROOT}/undisturbed")
    wanted["again"] = content_of(ROOT / "undisturbed")
    shutil.rmtree(ROOT / "undisturbed")
    commands["again"] = [*again, f"{ROOT}/again"]
    halfway("again", "retry", *commands["again"])


def write_inputs() -> None:
    for number in range(4):
        members = [m for i in range(8) for m in plain(f"k{number}_{i}", 10 * number + i)]
        write_tar(ROOT / f"sets/plain/{number:05d}.tar", members)
        lines = (f"{ROOT}/sets/plain/{n:05d}.tar" for n in range(4))
    for name in ("lists", "models", "metrics"):
        (ROOT / name).mkdir()
    (ROOT / "lists/plain.txt").write_text("# a list\n" + "\n".join(lines) + "\n")
    rng = random.Random(7)
    for number in range(3):
        scenes = [(f"s{number}_{i}.{draw_kind(rng)}", draw(rng, side=96).content) for i in range(8)]
        write_tar(ROOT / f"sets/scenes/{number:05d}.tar", scenes)
    write_odd(ROOT / "sets/odd")
    write_cut(ROOT / "sets/cut")
    kernels = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)
    for name, outputs in (("watermark", 2), ("sharp", 1)):
        weight = np.linspace(-1, 1, outputs * 4).reshape(outputs, 4)
        write_onnx(
            ROOT / f"models/{name}.onnx", kernels, np.zeros(4, np.float32), weight, [0.1] * outputs
        )
    shutil.copytree(model_folder(), ROOT / "models/own")
    for file, text in {
        "slurm/site.yaml": "defaults: [local]\nattempts: 4\nlease_seconds: 6.0\ntasks: 1\n",
        "prompt/mine.yaml": "name: mine\nsystem: Be brief.\ntext: 'Old: {caption} Id: {json.id}'\n",
    }.items():
        (ROOT / "presets" / file).parent.mkdir(parents=True)
        (ROOT / "presets" / file).write_text(text)


def draw_kind(rng: random.Random) -> str:
    return rng.choice(["jpg", "png", "webp"])


Member = tuple[str, bytes | str]  # name; content, or of which member it is a hard link


def picture(number: int, width: int = 32, height: int = 32) -> bytes:
    """A small picture that is like no other."""
    file = io.BytesIO()
    image = Image.new("RGB", (width, height), (number * 37 % 256, number % 256, 90))
    image.paste((255 - number % 256, 200, 10), (4, 4, 16, 10))
    image.save(file, ("JPEG", "PNG", "WEBP")[number % 3], quality=90)
    return file.getvalue()


def plain(key: str, number: int) -> list[Member]:
    fields = {"caption": f"json {number}", "id": number, "nothing": None}
    text = f"alt text {number}".encode()
    return [(f"{key}.jpg", picture(number)), (f"{key}.txt", text), (f"{key}.json", as_json(fields))]


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def write_odd(folder: Path) -> None:
    """Texts of every encoding, JSON that is not quite, and samples that the contract has a rule for."""
    texts: dict[str, dict[str, bytes]] = {
        "utf8": {"txt": "画像 🙂\n".encode()},
        "latin1": {"txt": "café crème".encode("latin-1"), "json": as_json({"a": 1})},
        "cp1252": {"txt": "“quoted” – 5 €".encode("cp1252")},
        "gbk": {"txt": "一只猫在桌子上".encode("gbk")},
        "utf16": {"txt": "wide café".encode("utf-16")},
        "bom": {
            "txt": "\ufeffwith a mark".encode(),
            "json": b"\xef\xbb\xbf" + as_json({"caption": "b"}),
        },
        "json16": {"json": json.dumps({"caption": "wide", "id": 3}).encode("utf-16")},
        "tab": {"json": b'{"caption": "a\tb", "id": 4}'},
        "nul": {"json": as_json({"caption": "n", "id": 5}) + b"\0\0\0", "txt": b"ends\0\0"},
        "list": {"json": as_json({"caption": ["first", "second"], "id": 6})},
        "array": {"json": b"[1, 2]"},
        "broken": {"json": b'{"caption": '},
        "ours": {"json": as_json({"caption": "c", "caption_original": 1, "recaption_model": []})},
        "empty": {"txt": b"", "json": as_json({"caption": None})},
    }
    members: list[Member] = []
    for number, (key, content) in enumerate(texts.items(), 100):
        members += [(f"odd/{key}.jpg", picture(number))]
        members += [(f"odd/{key}.{extension}", value) for extension, value in content.items()]
    members += [
        ("odd/none.txt", b"no picture"),
        ("odd/html.jpg", b"<html>"),
        ("odd/html.txt", b"t"),
    ]
    members += [("odd/two.png", picture(150)), ("odd/two.jpg", picture(151)), ("odd/two.cls", b"7")]
    half = [m for m in members if m[0].split(".")[0] in {f"odd/{key}" for key in list(texts)[:7]}]
    write_tar(folder / "texts.tar", members)
    packed = folder / "packed.tar.gz"
    packed.write_bytes(gzip.compress(tar_bytes([(f"p{n}", c) for n, c in half]), mtime=0))
    write_tar(folder / "wide.tar", [m for i in range(6) for m in plain(f"w{i}", 200 + i)])


def write_cut(folder: Path) -> None:
    """A shard that is cut, one with a hard link and samples that are not in one piece, and whole ones."""
    whole = [m for i in range(6) for m in plain(f"c{i}", 160 + i)]
    write_tar(folder / "a.tar", [m for i in range(5) for m in plain(f"a{i}", 180 + i)])
    content = tar_bytes(whole)
    (folder / "b.tar").write_bytes(content[: len(content) * 2 // 3])
    linked: list[Member] = [*plain("l0", 170), ("l1.jpg", "l0.jpg"), ("l1.txt", b"same")]
    apart: list[Member] = [("d.jpg", picture(171)), ("e.jpg", picture(172)), ("d.txt", b"d")]
    write_tar(folder / "c.tar", [*linked, *apart, *plain("f", 173)])
    write_tar(folder / "d.tar", [m for i in range(5) for m in plain(f"h{i}", 190 + i)])


def tar_bytes(members: Iterable[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.LNKTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_tar(path: Path, members: Iterable[Member]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))


def recaption(command: str, *words: str, codes: tuple[int, ...] = (0,)) -> None:
    arguments = [sys.executable, "-m", f"recaption.{command}", *words]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode in codes, (words, result)


def halfway(name: str, command: str, *words: str) -> None:
    """Run a command, and kill its tasks when they are where HALFWAY says."""
    run = ROOT / name
    arguments = [sys.executable, "-m", f"recaption.{command}", *words]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not begun(run):
        assert process.poll() is None, f"{name}: ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    for pid in children_of(process.pid):
        os.killpg(pid, signal.SIGKILL)
    process.kill()
    process.wait()
    marked = published(run)
    total = len(json.loads((run / ".recaption/run.json").read_bytes())["shards"])
    print(f"{name}: {len(marked)} of {total} published, journals: {journals(run)}")
    assert marked
    assert begun(run)


def begun(run: Path) -> bool:
    """Whether some shard is published, and of another one there are captions in a journal."""
    marked = published(run)
    return bool(marked) and any(n not in marked and count > 2 for n, count in journals(run).items())


def published(run: Path) -> set[str]:
    return {p.stem for p in (run / ".recaption/shards").glob("*.json")}


def journals(run: Path) -> dict[str, int]:
    """Samples in the journal of each shard."""
    found = {}
    for path in (run / ".recaption/journal").glob("*.zst"):
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(
                path.read_bytes(), read_across_frames=True
            )
            content = reader.read()
        except (OSError, zstandard.ZstdError):
            continue
        found[path.name.split("@")[0]] = content.count(b'"i":')
    return found


def children_of(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def content_of(run: Path) -> dict[str, Any]:
    """Hash of every tar, and every row without how it came about."""
    tars = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(run.glob("*.tar"))}
    rows = {}
    for path in sorted((run / ".recaption/shards").glob("*.parquet")):
        found = pq.read_table(path).to_pylist()
        rows[path.stem] = [{k: v for k, v in row.items() if k not in FREE_COLUMNS} for row in found]
    return {"tars": tars, "rows": rows}


class never_starting:
    """Commands of a Slurm that takes jobs and leaves them pending, on the PATH."""

    def __enter__(self) -> None:
        self.folder = ROOT / "bin"
        self.folder.mkdir()
        for name, text in {"sbatch": 'echo "Submitted batch job 4711"', "srun": "exit 1"}.items():
            (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.folder / name).chmod(0o755)
        self.path = os.environ["PATH"]
        os.environ["PATH"] = f"{self.folder}:{self.path}"

    def __exit__(self, *_: object) -> None:
        os.environ["PATH"] = self.path
        shutil.rmtree(self.folder)


def model_folder() -> Path:
    """The tiny model, as a model of one's own."""
    import recaption.tiny

    return Path(recaption.tiny.__file__).parent / "model"


def pack() -> None:
    shutil.rmtree(ROOT / "models/own")  # the tests copy it from the package
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as tar:
        tar.add(ROOT, ROOT.name)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
