"""One engine of a node compiles, the others wait for it; fresh nodes begin with a copy, or without."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.config.schema import Config
from recaption.engine import compile_turns, compiled, parent_death
from recaption.engine.base import Spec
from recaption.engine.compiled import Compiled, compiled_code, with_code
from recaption.errors import TaskError

ENGINE = """
import sys, time
from pathlib import Path
from recaption.engine.compile_turns import turn
code = Path(sys.argv[1])
with turn():
    print("begins", flush=True)
    if not code.exists():
        time.sleep(float(sys.argv[2]))
        with open(f"{code}.log", "a") as file:
            file.write("compiled\\n")
        code.touch()
"""


def engine(folder: Path, seconds: float, patience: float = 60) -> subprocess.Popen[str]:
    """A process that compiles in its turn for so long, where nothing is compiled yet."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(folder / "code"), str(seconds)],
        env={
            **os.environ,
            compile_turns.FOLDER: str(folder),
            compile_turns.PATIENCE: str(patience),
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_one_of_four_engines_compiles(tmp_path: Path) -> None:
    outputs = [p.communicate(timeout=60)[0] for p in [engine(tmp_path, 1.0) for _ in range(4)]]
    assert (tmp_path / "code.log").read_text() == "compiled\n"
    assert sum("compiled code is there; waited" in text for text in outputs) == 3
    assert all("begins" in text for text in outputs)


def test_a_killed_engine_gives_its_turn_to_the_next(tmp_path: Path) -> None:
    with engine(tmp_path, 600) as first:
        assert first_line(first) == "begins"
        with engine(tmp_path, 0) as second:
            time.sleep(1.5)
            assert second.poll() is None, "it waits"
            first.kill()
            assert first_line(second) == "begins"
    assert (tmp_path / "code.log").read_text() == "compiled\n"


def test_patience_has_a_bound(tmp_path: Path) -> None:
    with engine(tmp_path, 600) as first:
        assert first_line(first) == "begins"
        with engine(tmp_path, 0, patience=0.5) as second:
            assert "more than 0.5 s: so does this one" in first_line(second)
            assert first_line(second) == "begins"
        first.kill()


CORE = """
import sys
from pathlib import Path
from recaption.engine.orphan import register
register()
from vllm.v1.executor.uniproc_executor import UniProcExecutor
class Core(UniProcExecutor):
    def __init__(self): pass
    def collective_rpc(self, method, *args, **more):
        assert not Path(sys.argv[1], "ready").exists()
        return [method]
print(Core().determine_available_memory(), Path(sys.argv[1], "ready").exists())
"""


def test_vllms_core_compiles_in_its_turn(tmp_path: Path) -> None:
    """The plug-in hook that vLLM calls in its processes sees to that."""
    environment = {
        compile_turns.FOLDER: str(tmp_path),
        compile_turns.PATIENCE: "5",
        parent_death.VARIABLE: "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", CORE, str(tmp_path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "['determine_available_memory'] True" in ended.stdout, ended.stderr[-2000:]


def code_in(node: Path, shared: Path) -> Compiled:
    return Compiled(node / "k.0", "k", shared)


def fill(code: Compiled) -> None:
    """As a compiler would."""
    made = code.folder / "vllm/torch_compile_cache/abc/rank_0_0"
    made.mkdir(parents=True)
    (made / "artifact").write_bytes(b"\x00machine code")
    (made / compiled.PATHS).write_text(f"{{'graph': '{made}/artifact', 'other': '/x/k.0'}}")
    compile_turns.ready(code.folder).touch()


def test_a_fresh_node_begins_with_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    first, second = (code_in(tmp_path / name, tmp_path / "shared") for name in ("a", "other"))
    fill(first)
    first.keep()
    first.keep()
    (copy,) = (tmp_path / "shared").iterdir()
    assert copy.name == "k.tar"
    second.begin(patience=5)
    assert compile_turns.ready(second.folder).exists()
    assert os.environ["VLLM_CACHE_ROOT"] == f"{second.folder}/vllm"
    made = second.folder / "vllm/torch_compile_cache/abc/rank_0_0"
    assert (made / "artifact").read_bytes() == b"\x00machine code"
    assert (made / compiled.PATHS).read_text() == (
        f"{{'graph': '{made}/artifact', 'other': '/x/k.0'}}"
    )
    with compile_turns.turn():
        assert compile_turns.ready(second.folder).exists()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("cut", "removed: it is not whole"),
        ("empty", "removed: it is not whole"),
        ("other", "removed: it is another user's"),
        ("no tar", "removed: "),
        ("odd", "removed: /elsewhere is neither a file nor a folder"),
        ("link", "is not used: "),
        ("shared folder", "is not used: others may write to "),
    ],
)
def test_a_copy_is_not_trusted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    harm: str,
    said: str,
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    first, second = (code_in(tmp_path / name, tmp_path / "shared") for name in ("a", "b"))
    fill(first)
    first.keep()
    (copy,) = (tmp_path / "shared").iterdir()
    if harm == "cut":
        copy.write_bytes(copy.read_bytes()[:-2000])
    elif harm == "empty":
        copy.write_bytes(b"")
    elif harm == "no tar":
        copy.write_bytes(with_hash(b"no tar at all" * 100))
    elif harm == "odd":
        member = tarfile.TarInfo("/elsewhere")
        member.type = tarfile.SYMTYPE
        copy.write_bytes(with_hash(member.tobuf()))
    elif harm == "link":
        copy.rename(tmp_path / "real")
        copy.symlink_to(tmp_path / "real")
    elif harm == "shared folder":
        copy.parent.chmod(0o777)
    else:
        there = SimpleNamespace(st_uid=os.geteuid() + 1)
        monkeypatch.setattr(
            compiled, "os", SimpleNamespace(**{**vars(os), "fstat": lambda _: there})
        )
    second.begin(patience=5)
    assert not compile_turns.ready(second.folder).exists()
    assert [path.name for path in second.folder.rglob("*") if path.is_file()] == ["lock"]
    text = capfd.readouterr().out
    assert said in text
    assert copy.exists() == ("removed" not in text)


def with_hash(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def test_what_an_odd_copy_began_with_goes(tmp_path: Path) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name in ("/old", "/old/vllm", "/old/../x"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name == "/old" else tarfile.REGTYPE
            tar.addfile(member)
    written.seek(0)
    with pytest.raises(ValueError, match="leads out"):
        compiled._unpack(written, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_two_nodes_keep_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (code_in(tmp_path / name, tmp_path / "shared") for name in ("a", "b"))
    fill(first)
    fill(second)
    packing = compiled._pack

    def pack(folder: Path, copy: Path) -> None:
        monkeypatch.setattr(compiled, "_pack", packing)
        packing(folder, copy)
        second.keep()

    monkeypatch.setattr(compiled, "_pack", pack)
    first.keep()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["k.tar"]


def test_a_file_system_without_exclusive_names_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Path) -> None:
        raise TaskError("this file system refuses both")

    monkeypatch.setattr(compiled, "publish", refuse)
    code = code_in(tmp_path / "a", tmp_path / "shared")
    fill(code)
    code.keep()
    assert "this file system refuses both" in capfd.readouterr().out
    assert not list((tmp_path / "shared").iterdir())


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    code = code_in(tmp_path / "a", tmp_path / "file/below")
    fill(code)
    code.keep()
    assert f"engine.cache={tmp_path}/file/below: " in capfd.readouterr().out


def test_only_what_is_named_so_and_old_is_removed(tmp_path: Path) -> None:
    key, then = "0" * 32, time.time() - compiled.KEPT - 60
    ours = (f"{key}.tar", f"{key}.{'b' * 32}.tmp", f"{key}.3", f"{key}.failed")
    others = ("precious.tar", "x.tmp", f"{key}-1.tar", "1")
    for name in (*ours, *others):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (then, then))
    (tmp_path / f"{key}.4").mkdir()
    cut = tmp_path / f"{key}.{'c' * 32}.tmp"
    cut.touch()
    hours_ago = time.time() - 7000
    os.utime(cut, (hours_ago, hours_ago))
    compiled._prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, f"{key}.4"}
    (tmp_path / f"{key}.4/vllm").mkdir()
    os.utime(tmp_path / f"{key}.4", (then, then))
    compiled._prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others}


def spec_of(tmp_path: Path, **engine: Any) -> Spec:
    config = Config()
    config.engine = dataclasses.replace(config.engine, cache=str(tmp_path / "shared"), **engine)
    return Spec(config, (config.prompt,), None)


def test_what_an_engine_did_not_start_with_is_left_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("RECAPTION_TMPDIR", str(tmp_path))
    spec = spec_of(tmp_path)

    def begin() -> Path:
        """An engine that compiles."""
        folder = Path(os.environ["VLLM_CACHE_ROOT"]).parent
        with compile_turns.turn():
            (folder / "vllm").mkdir(exist_ok=True)
        os.environ.pop("VLLM_CACHE_ROOT")
        return folder

    def fail() -> Path:
        os.environ.pop("VLLM_CACHE_ROOT")
        raise RuntimeError("Engine core initialization failed")

    first = with_code(spec, "GPU", begin)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(10)
    assert len(list((tmp_path / "shared").glob("*.tar"))) == 1
    assert with_code(spec, "GPU", begin) == first
    with pytest.raises(RuntimeError, match="initialization"):
        with_code(spec, "GPU", fail)
    assert not list((tmp_path / "shared").glob("*.tar"))
    assert with_code(spec, "GPU", begin) != first


def test_each_kind_of_engine_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)
    monkeypatch.setenv("RECAPTION_TMPDIR", str(tmp_path))

    def place(gpu: str = "GPU", **engine: Any) -> str:
        found = compiled_code(spec_of(tmp_path, **engine), gpu)
        assert found
        return found.key

    plain = place()
    assert place() == plain
    others = {place("another GPU"), place(max_num_seqs=7), place(tensor_parallel=2)}
    monkeypatch.setattr(compiled, "versions", lambda: {"vllm": "1"})
    others.add(place())
    assert len({plain, *others}) == 5
    with monkeypatch.context() as mounted:
        mounted.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
        assert compiled_code(spec_of(tmp_path), "GPU") is None, "no code is run there"
    (tmp_path / f"recaption-compiled-{os.geteuid()}").chmod(0o777)
    assert compiled_code(spec_of(tmp_path), "GPU") is None, "others could put code there"
    monkeypatch.setattr(
        compiled, "compiled_code", lambda *_: Compiled(Path("/proc/x"), "x", tmp_path)
    )
    assert with_code(spec_of(tmp_path), "GPU", lambda: "starts all the same")
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/elsewhere")
    assert compiled_code(spec_of(tmp_path), "GPU") is None, "the environment says where"
