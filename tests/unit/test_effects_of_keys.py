"""Effects of keys that no larger test shows: what is read, asked, shown, and given to engines."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from helpers import launch, markers, read_shard, rows, task_logs
from PIL import Image
from tars import tiny_png, write_tar

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.config.schema import Config, Quality
from recaption.config.schema import Image as Rules
from recaption.engine.base import Caption, Device, Question, Spec
from recaption.engine.fake import FakeEngine, FakeRenderer, caption_of
from recaption.engine.payload import pack, unpack
from recaption.errors import SampleError, TaskError
from recaption.launch.help import presets
from recaption.model.files import model_folder
from recaption.model.hub import snapshot
from recaption.model.prompt import Values, fill
from recaption.model.quality import Checks
from recaption.pipeline import preparation
from recaption.pipeline.engines import EngineHandle, Engines
from recaption.prepare import jpeg
from recaption.prepare.picture import capped, decode


def config_of(*words: str) -> Config:
    return to_config(compose_config(prepare(["data.shards=/x.tar", *words])))


def spec_of(*words: str, model: str = "x") -> Spec:
    config = config_of(*words)
    return Spec(config, (config.prompt,), model)


ENGINE = {  # our key, its value → vLLM's argument, its value
    ("model.dtype", "float32"): ("dtype", "float32"),
    ("model.quantization", "fp8"): ("quantization", "fp8"),
    ("model.load_format", "dummy"): ("load_format", "dummy"),
    ("model.trust_remote_code", "true"): ("trust_remote_code", True),
    ("model.max_model_len", "333"): ("max_model_len", 333),
    ("model.processor", "{size: 7}"): ("mm_processor_kwargs", {"size": 7}),
    ("model.engine", "{block_size: 48}"): ("block_size", 48),
    ("engine.max_num_seqs", "77"): ("max_num_seqs", 77),
    ("engine.max_num_batched_tokens", "4567"): ("max_num_batched_tokens", 4567),
    ("engine.gpu_memory_utilization", "0.6"): ("gpu_memory_utilization", 0.6),
    ("engine.enforce_eager", "true"): ("enforce_eager", True),
}


def test_every_key_of_model_and_engine_reaches_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: on a CPU some are vLLM's or ours to choose."""
    from recaption.engine import vllm as adapter

    monkeypatch.setattr(adapter, "current_platform", SimpleNamespace(is_cpu=lambda: False))
    folder = str(model_folder("builtin:tiny"))
    words = [f"{key}={value}" for key, value in ENGINE]
    given = adapter.engine_arguments(
        spec_of(*words, "model.processor.backend=null", model=folder), 3
    )
    plain = adapter.engine_arguments(spec_of(model=folder), 1)
    assert given.tensor_parallel_size == 3
    for argument, value in ENGINE.values():
        found = getattr(given, argument)
        if argument == "mm_processor_kwargs":
            found = {k: v for k, v in found.items() if k != "backend"}
        assert found == value, argument
        assert getattr(plain, argument) != value, argument


@pytest.mark.parametrize(
    ("key", "most", "less"), [("max_source_pixels", 2700, 2699), ("max_aspect", 3.0, 2.9)]
)
def test_limits_of_pictures(key: str, most: float, less: float) -> None:
    assert decode(jpeg_of(90, 30), Rules(**{key: most}), 1 << 20, 8).width == 90
    with pytest.raises(SampleError, match=f"image.{key}={less}"):
        decode(jpeg_of(90, 30), Rules(**{key: less}), 1 << 20, 8)


def jpeg_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(("draft", "step"), [(True, 4), (False, 1)])
def test_draft_decodes_at_a_fraction(
    draft: bool, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    read = jpeg.read

    def noted(content: bytes, image: Any, step: int) -> Any:
        steps.append(step)
        return read(content, image, step)

    monkeypatch.setattr(jpeg, "read", noted)
    decode(jpeg_of(400, 400), Rules(draft=draft), 100 * 100, 8)
    assert steps == [step]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with several keys at other values than their defaults, and a shard that is none."""
    cwd = tmp_path_factory.mktemp("asked")
    members = {f"k{i}.{e}": tiny_png(i, side=40) for i in range(4) for e in ("png", "shown")}
    members |= {f"k{i}.shown": tiny_png(10 + i, side=40) for i in range(4)}
    write_tar(cwd / "in/00000.tar", members)
    (cwd / "in/00001.tar").write_bytes(b"no tar" * 500)
    words = ["data.shards=in/*.tar", "engine=fake", "output.dir=run", "data.image_keys=[shown]"]
    words += ["data.tries=3", "data.workers=3", "model.max_pixels=400", "prompt.system=Be brief."]
    result = launch(*words, "prompt.text=What?", "prompt.name=asked", cwd=cwd)
    assert result.returncode == 1, result
    assert list(markers(cwd / "run")) == ["00000.tar"], task_logs(cwd)
    return cwd / "run"


def test_which_picture_at_which_size_is_asked_about_with_which_words(asked: Path) -> None:
    for i, row in enumerate(rows(asked, "00000.tar")):
        shown = capped(Image.open(io.BytesIO(tiny_png(10 + i, side=40))).convert("RGB"), 400)
        assert shown.size == (20, 20)
        payload = {"pixels": shown.tobytes(), "size": shown.size}
        assert row["caption"] == caption_of(payload, "Be brief.\nWhat?")
    fields = json.loads(read_shard(asked / "00000.tar")["k0"]["json"])
    assert fields["recaption_prompt"] == "asked"


def test_watermark_off_scores_nothing(asked: Path) -> None:
    fields = json.loads(read_shard(asked / "00000.tar")["k0"]["json"])
    assert not [name for name in fields if "score" in name]
    assert not any(row.get("watermark_score") for row in rows(asked, "00000.tar"))


def test_how_often_a_shard_is_tried_and_by_how_many_processes(asked: Path) -> None:
    (log,) = (asked / ".recaption/tasks").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    tried = Counter(e["shard"] for e in events if e["event"] == "failed")
    assert list(tried.values()) == [3]
    assert next(e for e in events if e["event"] == "start")["workers"] == 3


class Pool:
    """No processes."""

    def __init__(self, *_: Any) -> None:
        self.workers: list[Any] = []

    def vacancies(self) -> int:
        return 1


def test_prepared_pictures_have_data_buffer_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation.children, "Pool", Pool)
    work = SimpleNamespace(strikes=0, alone=False, offset=None)
    made = preparation.Preparation(spec_of("data.buffer_mb=17"), 1)
    assert made.memory.size == 17 << 20
    made.guess = (17 << 20) + 1
    with pytest.raises(TaskError, match=r"data\.buffer_mb=17"):
        made._allot(work)  # type: ignore[arg-type]


def test_when_an_engine_is_given_no_more_and_when_no_longer_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handles: list[Any] = []

    def start(engines: Engines, device: Device) -> EngineHandle:
        handles.append(EngineHandle(device, SimpleNamespace(), SimpleNamespace()))  # type: ignore[arg-type]
        return handles[-1]

    monkeypatch.setattr(Engines, "_start", start)
    monkeypatch.setattr(Engines, "_died", lambda engines, handle, reason: reason)
    words = ["engine.max_num_seqs=3", "engine.waiting=2", "engine.start_seconds=50"]
    spec = spec_of(*words, "engine.stall_seconds=20")
    engines = Engines(spec, [Device(0)], "memory", tmp_path / "log")
    (handle,) = handles
    handle.since = time.monotonic() - 40
    assert engines.stalled() == []
    handle.since -= 20
    assert engines.stalled() == ["not started for 50 s"]
    handle.ready, handle.since = True, time.monotonic() - 40
    for number in range(3 + 2):
        assert engines.room(suspects=False) is handle
        handle.in_flight[number] = SimpleNamespace()
    assert engines.room(suspects=False) is None
    assert engines.stalled() == ["no output for 20 s"]


def test_the_fake_engine_answers_at_its_rate() -> None:
    payload = {"pixels": b"", "size": (0, 0), "texts": ["a"]}

    async def ask(*words: str) -> float:
        engine = FakeEngine(spec_of("engine=fake", *words), Device(0))
        began = time.monotonic()
        await asyncio.gather(*(engine.generate(payload, str(n)) for n in range(5)))
        return time.monotonic() - began

    assert asyncio.run(ask("engine.rate=10")) >= 0.5
    assert asyncio.run(ask()) < 0.4


def test_the_fake_engines_inputs_are_filled_up(tmp_path: Path) -> None:
    """To the size that a model's have, and captions stay the same."""
    picture = Image.new("RGB", (64, 48), "red")
    with (tmp_path / "memory").open("w+b") as file:
        captions = []
        for words, least, most in (([], 9_216, 10_000), (["engine.input_mb=0.5"], 5e5, 5.01e5)):
            renderer = FakeRenderer(spec_of("engine=fake", *words))
            payload = renderer.render(picture, "x", [Question("short", None, "What?")])
            length = pack(payload, file.fileno(), 0, 1 << 20)
            assert least <= length <= most
            file.seek(0)
            captions.append(caption_of(unpack(memoryview(file.read(length))), "What?"))
    assert captions[0] == captions[1]


def test_a_model_is_downloaded_where_and_at_what_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def download(repo: str, **more: Any) -> str:
        given.update(more, repo=repo)
        (tmp_path / "commit").mkdir()
        (tmp_path / "commit/config.json").write_text("{}")
        (tmp_path / "commit/model.safetensors").write_bytes(b"x")
        return str(tmp_path / "commit")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    words = ["model.repo=owner/name", "model.name=x", "model.revision=v1"]
    model = config_of(*words, f"model.cache={tmp_path}/cache").model
    assert snapshot(model) == (tmp_path / "commit", "commit")
    assert (given["repo"], given["revision"]) == ("owner/name", "v1")
    assert given["cache_dir"] == f"{tmp_path}/cache"


@pytest.mark.parametrize(
    ("text", "rules", "flag"),
    [
        ("a red dog", {"min_characters": 10}, "short"),
        ("a red dog", {"min_words": 4}, "short"),
        ("one two three four five six one two three four five", {"duplicated": 0.4}, "repetition"),
    ],
)
def test_a_check_has_the_line_that_is_drawn(text: str, rules: dict[str, Any], flag: str) -> None:
    def flags(**more: Any) -> list[str]:
        prompt = config_of().prompt
        return Checks(Quality(**more), [prompt]).flags(Caption(text, "stop", 9), prompt.name)

    assert flags() == []
    assert flags(**rules) == [flag]


def test_what_the_presets_of_prompts_ask() -> None:
    said = {
        name: fill(config_of(f"prompt={name}").prompt.text, Values("A CAT", {}, {}), str)
        for name in presets("prompt")
    }
    assert [name for name, text in said.items() if "A CAT" in text] == ["refine"]
    asks = {
        "short": "one short",
        "detailed": "in detail",
        "tags": "twenty tags",
        "refine": "Rewrite",
    }
    for name, words in asks.items():
        assert [n for n, text in said.items() if words in text] == [name]
