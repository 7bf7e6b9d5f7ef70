"""Keys that would do nothing are refused for a new run, by name."""

from __future__ import annotations

import pytest

from recaption.config.compose import compose_config, to_config
from recaption.config.effects import refusals, remarks
from recaption.config.overrides import prepare

SHARDS = "data.shards=/d/x.tar"


def said(*words: str) -> tuple[list[str], list[str]]:
    prepared = prepare([SHARDS, *words])
    config = to_config(compose_config(prepared))
    named = {word.partition("=")[0].lstrip("+~") for word in prepared}
    return refusals(config, [config.prompt], named), remarks(config, named)


@pytest.mark.parametrize(
    "words",
    [
        "watermark.path=/x.onnx",
        "watermark.class=0",
        "watermark.threshold=0.3 watermark=onnx watermark.path=/x.onnx",
        "scorers.a.threshold=0.3 scorers.a.path=/x.onnx",
        "model.revision=abc",
        "model.revision=abc model=qwen3-vl-4b model.path=/x",
        "sampling.top_p=0.9 quality.retries=0",
        "sampling.top_k=5 quality.retries=0",
        "sampling.min_p=0.1 quality.retries=0",
        "quality.temperature_step=0.1 quality.retries=0",
        "quality.retries=2 quality.bad=[]",
        "quality.action=filter quality.bad=[]",
        "quality.repeats=3 quality.flags=[empty]",
        "quality.duplicated=0.3 quality.flags=[empty]",
        "quality.min_words=3 quality.flags=[empty]",
        "quality.min_characters=3 quality.flags=[empty]",
        "quality.echo_words=3 quality.flags=[empty]",
        "quality.script=latin quality.flags=[empty]",
        "quality.script_share=0.1",
        "quality.bad=[refusal] quality.flags=[empty]",
        "engine.rate=5",
        "engine.record=/tmp/x",
        "engine.salt=random",
        "engine.poison={a: crash}",
        "slurm.partition=gpu",
        "slurm.account=me",
        "slurm.qos=low",
        "slurm.constraint=a100",
        "slurm.exclude=node1",
        "slurm.setup=[module load cuda]",
        "slurm.python=python3",
        "slurm.srun_args=['--mpi=none']",
        "slurm.additional.licenses=a",
        "slurm.additional={licenses: a}",
        "data.image_keys=[JPG]",
        "data.image_keys=[.jpg]",
        "output.dir=/d/100%/run",
        "output.dir='/d/run'",
        "model.path='/d/model' model.name=x",
    ],
)
def test_a_key_without_effect_is_refused(words: str) -> None:
    first, *others = words.split(" ") if "[module" not in words and "{" not in words else [words]
    refused, _ = said(first, *others)
    assert len(refused) == 1, refused
    assert refused[0].startswith(first.partition("=")[0])
    assert "\n" not in refused[0]


@pytest.mark.parametrize(
    "words",
    [
        "watermark=onnx watermark.path=/x.onnx watermark.action=drop watermark.threshold=0.3",
        "scorers.a.path=/x.onnx scorers.a.action=drop_below scorers.a.threshold=0.3",
        "scorers.a.path=/x.onnx scorers.a.class=0",
        "model=qwen3-vl-4b model.revision=abc",
        "model=qwen3-vl-4b model.path=/x model.revision=null",
        "sampling.temperature=0.7 sampling.top_p=0.9 sampling.top_k=5 sampling.min_p=0.1",
        "sampling.top_p=0.9 quality.retries=1",
        "sampling.seed=1",
        "quality.flags=[empty]",
        "quality.script=latin quality.script_share=0.1",
        "engine=fake engine.rate=5 engine.record=/tmp/x model=qwen3-vl-4b",
        "engine.max_num_seqs=4 data.workers=1 data.tries=3 wait=false data.allow_pipe=true",
        "slurm.tasks=2 slurm.gpus=a100:1 slurm.cpus=2 slurm.parallelism=1 task.steal=false",
        "slurm=cluster slurm.partition=gpu slurm.setup=[x] slurm.additional.licenses=a",
        "slurm.partition=null",
        "data.image_keys=[png,jpg]",
        "output.dir=/d/'run' model.path=/d/x'y' model.name=x",
    ],
)
def test_what_has_an_effect_or_says_where_and_how_is_accepted(words: str) -> None:
    assert said(*words.split(" ")) == ([], [])


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("array=0-3", "slurm.tasks"),
        ("requeue=false", "slurm.requeue"),
        ("no_requeue=true", "slurm.requeue"),
        ("output=/x", "logs"),
        ("error=/x", "logs"),
        ("open_mode=truncate", "logs"),
        ("open-mode=truncate", "logs"),
        ("signal=USR1@5", "slurm.signal_delay"),
        ("time=60", "slurm.time"),
        ("part=gpu", "slurm.partition"),
        ("cpus_per_task=4", "slurm.cpus"),
        ("ntasks=4", "one process"),
        ("wait=true", "wait=true"),
        ("gres=gpu:a100:4", "slurm.gpus=null"),
        ("gpus=4", "slurm.gpus=null"),
        ("mem-per-cpu=4G", "slurm.mem=null"),
    ],
)
def test_further_options_cannot_replace_what_is_ours(word: str, named: str) -> None:
    refused, _ = said("slurm=cluster", f"slurm.additional.{word}")
    assert len(refused) == 1
    assert refused[0].startswith(f"slurm.additional.{word.partition('=')[0]}: ")
    assert named in refused[0]


def test_further_options_of_a_sites_own() -> None:
    words = ["gres=gpu:a100:4", "mem_per_cpu=4G", "mail_type=END,FAIL", "exclusive=true", "nice=1"]
    words += ["gpus=false", "array=null", "container-image=/i.sqsh", "reservation=night"]
    given = [f"slurm.additional.{word}" for word in words]
    assert said("slurm=cluster", "slurm.gpus=null", "slurm.mem=null", *given) == ([], [])
    disk = "slurm.additional.gres=lscratch:100"
    assert said("slurm=cluster", disk) == ([], [])


def test_what_is_only_remarked() -> None:
    assert said()[1] == []
    fake = said("engine=fake", "sampling.max_tokens=9", "model.dtype=auto", "model.max_pixels=99")
    assert fake == ([], ["engine=fake reads no model.dtype, sampling.max_tokens"])
    ((longest, *_), (time,)) = (said("sampling.max_tokens=512")[1], said("slurm.time=60")[1])
    assert longest.startswith("sampling.max_tokens=512: model.max_model_len=512")
    assert time == "slurm.time=60: limits nothing without slurm=cluster"
