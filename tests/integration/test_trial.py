"""What vLLM would refuse in every task is found before, with our name for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Completed, refused

from recaption.config.compose import compose_config, to_config
from recaption.config.overrides import prepare
from recaption.engine import death_cause, devices
from recaption.engine.base import Spec
from recaption.engine.trial import Fault
from recaption.launch import preflight
from recaption.model.files import model_folder
from recaption.versions import versions

Launch = Callable[..., Completed]
THOUGHTS = (  # as templates of models that can think are: open thoughts, or empty ones
    "{% for m in messages %}{% for part in m.content %}{{ part.text or '<image>' }}{% endfor %}"
    "{% endfor %}<think>\n{% if enable_thinking is defined and not enable_thinking %}</think>\n"
    "{% endif %}"
)
UNTHINKING = "model.chat_template={thoughts}\nmodel.chat_template_kwargs.enable_thinking=false"
NO_TEXT = "{% for m in messages %}<image>{% endfor %}"
MISTAKES = {  # words → the key at fault, and a part of the reason
    "": ("", ""),
    "sampling.top_p=0": ("sampling.top_p", "(0, 1]"),
    "sampling.stop=['']": ("sampling.stop", "empty string"),
    "model.engine.nosuch=1": ("model.engine.nosuch", "nosuch"),
    "model.engine.compilation_config={nosuch: 1}": ("model.engine.compilation_config", "nosuch"),
    "model.quantization=fp9": ("model.quantization", "fp9"),
    "model.max_model_len=4096": ("model.max_model_len", "2048"),
    "model.processor.nosuch=1": ("model.processor.nosuch", "ignore"),
    "model.chat_template={template}": ("model.chat_template", "chat template"),
    UNTHINKING: ("", ""),
    "model.chat_template_kwargs.nosuch=1": ("model.chat_template_kwargs.nosuch", "template"),
    "model.vllm=>=99": ("model.vllm", "tiny needs vLLM >=99, and vllm"),
    "engine.max_num_batched_tokens=64": ("engine.max_num_batched_tokens", "max_num_seqs"),
    "engine.tensor_parallel=2": ("engine.tensor_parallel", "heads"),
    "prompt.text={long}": ("model.max_model_len", "over model.max_model_len=512"),
}
BARE = [  # what is found without any device, too
    "", "sampling.top_p=0", "model.engine.nosuch=1", "model.quantization=fp9",
    "model.chat_template={template}", "engine.max_num_batched_tokens=64", "engine.tensor_parallel=2",
    "model.max_model_len=4096", UNTHINKING, "model.chat_template_kwargs.nosuch=1", "model.vllm=>=99",
]  # fmt: skip
CHILD = """
import json, sys
from recaption.engine import vllm as adapter
from recaption.engine.base import Spec
from recaption.engine.trial import named_fault
found = []
for line in sys.stdin:
    kind, text = json.loads(line)
    if kind == "template":
        spec = Spec.from_json(text)
        found.append(["", adapter.VllmRenderer(spec).template(adapter.without_device.questions(spec)[0])])
        continue
    fault = named_fault(Spec.from_json(text), getattr(adapter, kind))
    found.append([fault.key, fault.reason] if fault else ["", ""])
print(json.dumps(found))
"""


def spec_of(words: str, folder: Path) -> Spec:
    filled = words.replace("{template}", str(folder / "template.jinja"))
    filled = filled.replace("{thoughts}", str(folder / "thoughts.jinja"))
    filled = filled.replace("{long}", "word " * 600)
    named = ["prompt.name=x"] if "prompt.text" in words else []
    cfg = compose_config(prepare(["data.shards=/x.tar", *filled.splitlines(), *named]))
    config = to_config(cfg)
    return Spec(config, (config.prompt,), str(model_folder(config.model.path or "")))


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    """All mistakes, tried in one child, since importing vLLM takes seconds."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "template.jinja").write_text(NO_TEXT)
    (folder / "thoughts.jinja").write_text(THOUGHTS)
    cases = [("attempt", words) for words in MISTAKES]
    cases += [("template", words) for words in (UNTHINKING, UNTHINKING.splitlines()[0])]
    cases += [("attempt_without_platform", words) for words in BARE]
    lines = [json.dumps([kind, spec_of(words, folder).to_json()]) for kind, words in cases]
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return dict(zip(cases, json.loads(child.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("words", MISTAKES)
def test_the_key_at_fault(faults: dict[tuple[str, str], list[str]], words: str) -> None:
    key, reason = faults["attempt", words]
    assert (key, MISTAKES[words][1] in reason) == (MISTAKES[words][0], True), reason
    assert "\n" not in reason
    assert bool(reason) == bool(key)


@pytest.mark.parametrize("words", BARE)
def test_the_key_at_fault_without_a_device(
    faults: dict[tuple[str, str], list[str]], words: str
) -> None:
    """As for a CUDA build on a machine without a GPU."""
    key, reason = faults["attempt_without_platform", words]
    assert key == MISTAKES[words][0], reason
    assert bool(reason) == bool(key)


def test_arguments_of_the_chat_template_reach_it(faults: dict[tuple[str, str], list[str]]) -> None:
    thoughtful, thoughtless = (
        faults["template", words][1] for words in (UNTHINKING.splitlines()[0], UNTHINKING)
    )
    assert thoughtful.endswith("<think>\n")
    assert thoughtless.endswith("<think>\n</think>\n")


@pytest.mark.parametrize("words", ["model.vllm=>=99", "model.vllm=<0.1"])
def test_a_model_that_needs_another_vllm_is_refused_before_it_is_downloaded(
    launch_here: Launch, one_shard: Path, tmp_path: Path, words: str
) -> None:
    there = next(f"{build} {v}" for build, v in versions().items() if build.startswith("vllm"))
    given = (f"data.shards={one_shard}", "output.dir=run", words)
    asked = (*given, "model=qwen2.5-vl-3b", "model.cache=models")
    refused(launch_here(*asked, cwd=tmp_path), words, "qwen2.5-vl-3b", there)
    assert not (tmp_path / "models").exists()
    assert launch_here(*given, "engine=fake", "dry_run=true", cwd=tmp_path).returncode == 0
    cluster = launch_here(*given, "slurm=cluster", "dry_run=true", cwd=tmp_path)
    assert cluster.returncode == 0, "the nodes may have another"
    assert f"warning: {words}: " in cluster.stderr


def test_a_run_that_exists_is_not_refused_for_the_vllm_here(
    launch_here: Launch, one_shard: Path, tmp_path: Path
) -> None:
    given = (f"data.shards={one_shard}", "output.dir=run", "model.vllm=>=99")
    assert launch_here(*given, "engine=fake", cwd=tmp_path).returncode == 0
    again = launch_here(*given, "engine.kind=vllm", "dry_run=true", cwd=tmp_path)
    assert "needs vLLM" not in again.stderr


def test_launch_tries_once_and_refuses_by_key(
    launch_here: Launch, one_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = (f"data.shards={one_shard}", "output.dir=run", "dry_run=true")
    wrong = launch_here(*words, "sampling.top_p=0", "sampling.temperature=1", cwd=tmp_path)
    assert "sampling.top_p=0.0" in refused(wrong, "top_p must be")
    tried: list[Spec] = []

    def find_fault(spec: Spec) -> Fault | None:
        tried.append(spec)
        return None

    monkeypatch.setattr(preflight, "find_fault", find_fault)
    for more, times in (((), 1), ((), 1), (("sampling.max_tokens=9",), 2), (("engine=fake",), 2)):
        assert launch_here(*words, *more, cwd=tmp_path).returncode == 0
        assert len(tried) == times
    assert not (tmp_path / "run").exists()


def test_launch_says_where_it_cannot_try(
    launch_here: Launch, one_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda _: None)
    words = (f"data.shards={one_shard}", "output.dir=run", "dry_run=true")
    result = launch_here(*words, cwd=tmp_path)
    assert result.returncode == 0
    assert "vLLM is not installed here" in result.stdout
    assert "recaption.doctor" in result.stdout


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["engine.replicas=8"], "engine.replicas=8"),
        (["engine.replicas=3", "engine.tensor_parallel=2"], "engine.replicas=3"),
        (["engine.tensor_parallel=5"], "engine.tensor_parallel=5"),
        (["slurm.gpus=a100:4", "engine.replicas=5"], "engine.replicas=5"),
    ],
)
def test_more_gpus_than_there_are(
    launch_here: Launch,
    one_shard: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    key: str,
) -> None:
    monkeypatch.setattr(devices, "_present_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    result = launch_here(f"data.shards={one_shard}", "output.dir=run", *words, cwd=tmp_path)
    refused(result, key, "4")
    config = to_config(compose_config(prepare(["data.shards=/x.tar", *words])))
    with pytest.raises(Exception, match=key.split("=")[0]):
        devices.engine_devices(config, devices.visible_gpus())


LOG = """\
INFO 11-26 10:00:00 [utils.py:1] starting
(EngineCore pid=7) INFO 11-26 10:00:01 [core.py:9] Initializing
(EngineCore pid=7) ERROR 11-26 10:00:02 [core.py:9] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-26 10:00:02 [core.py:9] Traceback (most recent call last):
(EngineCore pid=8) ValueError: another engine's
(EngineCore pid=7) ERROR 11-26 10:00:02 [core.py:9]   File "core.py", line 1, in run
(EngineCore pid=7) ERROR 11-26 10:00:02 [core.py:9]     raise ValueError("no")
(EngineCore pid=7) ERROR 11-26 10:00:02 [core.py:9] ValueError: No available memory for the cache
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (LOG.splitlines()[-1], "ValueError: No available memory for the cache"),
        ("exit code 1", "exit code 1: ValueError: No available memory for the cache"),
        ("OSError: config.json", "OSError: config.json"),
    ],
)
def test_a_death_says_its_cause(tmp_path: Path, reason: str, said: str) -> None:
    log = tmp_path / "engine.log"
    log.write_text(f"Traceback (most recent call last):\nOSError: of an earlier engine\n{LOG}")
    assert death_cause.with_cause(reason, log, log.stat().st_size - len(LOG)) == said
    assert death_cause.with_cause(reason, tmp_path / "none", 0) == reason
