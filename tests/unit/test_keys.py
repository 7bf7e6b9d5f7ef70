"""How values of keys are taken: as they are, with references, by sweeps, from presets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from recaption.config.check import minutes
from recaption.config.compose import compose_config, sweep_points, to_config
from recaption.config.overrides import WHOLE, check_key, prepare
from recaption.config.schema import Config
from recaption.config.schema_walk import documented
from recaption.errors import UserError

SHARDS = "data.shards=/d/x.tar"
LITERAL = {"data.shards", "data.range", "model.vllm", "prompt.text", "prompt.system"}
PATHS = {
    "data.spool",
    "engine.cache",
    "engine.record",
    "model.cache",
    "model.chat_template",
    "model.path",
    "output.dir",
    "scorers.a.path",
    "task.metrics",
    "watermark.path",
}
TEXTS = {f"slurm.{n}" for n in ("account", "constraint", "exclude", "mem", "partition", "python")}
TEXTS |= {"slurm.qos", "slurm.additional.comment", "slurm.additional.a.b"}
NASTY = st.sampled_from([*"{}[](),:=#'\"\\$ \t\n%~+*?!@&|;<>ü", "\\'", "null", "true"])
anything = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.lists(NASTY | st.text("ab0", max_size=2), max_size=8).map("".join),
).filter(lambda v: "${" not in v and v not in ("null", "???", "true", "false"))


def config_of(*words: str, config_dir: Path | None = None) -> Config:
    folder = str(config_dir) if config_dir else None
    return to_config(compose_config(prepare([SHARDS, *words]), config_dir=folder))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for presets of a user's own."""
    for group in ("slurm", "model"):
        (tmp_path / group).mkdir()
    return tmp_path


@settings(max_examples=20)
@given(value=anything)
@example(value="/d/a=b[1]#ü\"x'")
@example(value="gpu,long")
@example(value="node[1-3]")
@example(value="a100|h100")
@example(value="1e3")
@example(value="'")
def test_any_path_and_any_text_arrives_as_it_is(value: str) -> None:
    names = PATHS | TEXTS
    cfg = compose_config(prepare([SHARDS, *(f"{name}={value}" for name in names)]))
    for name in names:
        wanted = value[1:-1] if name in TEXTS and WHOLE.fullmatch(value) else value
        assert OmegaConf.select(cfg, name) == wanted, name


def test_every_path_of_the_schema_is_among_those() -> None:
    marked = {k.name for k in documented() if check_key(k.name).metadata.get("path")}
    assert marked == {n for n in PATHS if not n.startswith("scorers.")}
    assert {k.name for k in documented() if check_key(k.name).metadata.get("literal")} == LITERAL


def test_references_are_filled_in_and_null_unsets() -> None:
    words = ["output.dir=/out/${data.name}/[${model.name}]", "data.name=a", "slurm=cluster"]
    config = config_of(*words, "slurm.mem=null", "slurm.qos=x-${data.name}")
    assert (config.output.dir, config.slurm.mem) == ("/out/a/[tiny]", None)
    assert config.slurm.qos == "x-a"
    assert config_of(r"slurm.qos=\${data.name}").slurm.qos == "${data.name}"


def test_switches_and_null_of_further_options() -> None:
    words = [f"slurm.additional.{w}" for w in ("hold=true", "exclusive=false", "nice=null", "x=1")]
    additional = config_of(*words, "slurm.additional.licenses=a:1,b").slurm.additional
    wanted = {"hold": True, "exclusive": False, "nice": None, "x": "1", "licenses": "a:1,b"}
    assert additional == wanted


def test_lists_stay_hydras() -> None:
    config = config_of("slurm.setup=['a b',c]", "slurm.additional={a: b,c: 1}")
    assert config.slurm.setup == ["a b", "c"]
    assert config.slurm.additional == {"a": "b", "c": 1}


def test_commas_outside_of_brackets_sweep() -> None:
    words = ["slurm.partition=gpu,long", "slurm.exclude=node[1,3]", "output.dir=/x/{a,b},/y='z'"]
    points = sweep_points([SHARDS, *words, "slurm.constraint='a,b'", "slurm.gpus=1,a100:2"])
    made = [to_config(compose_config(point)) for point in points]
    assert {(c.slurm.exclude, c.slurm.constraint) for c in made} == {("node[1,3]", "a,b")}
    assert [(c.slurm.partition, c.output.dir, c.slurm.gpus) for c in made] == [
        (partition, folder, gpus)
        for partition in ("gpu", "long")
        for folder in ("/x/{a,b}", "/y='z'")
        for gpus in (1, "a100:2")
    ]


def test_home_folders(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (site / "model/own.yaml").write_text("defaults: [tiny]\nchat_template: ~/chat.jinja\n")
    (site / "slurm/own.yaml").write_text("kind: cluster\nmetrics: ~/metrics\n")
    config = config_of(
        "model=own", "slurm=own", "data.spool=~/s", "scorers.a.path=~/a.onnx", config_dir=site
    )
    assert config.model.chat_template == "/home/me/chat.jinja"
    assert config.task.metrics == "/home/me/metrics"
    assert config.data.spool == "/home/me/s"
    assert config.scorers["a"].path == "/home/me/a.onnx"
    with pytest.raises(UserError, match=r"data\.spool=~nobody-of-this-name/x: .*no such user"):
        config_of("data.spool=~nobody-of-this-name/x")


@pytest.mark.parametrize("word", ["data.spool=", "output.dir=s3://bucket/run", "output.dir="])
def test_a_path_that_is_none(word: str) -> None:
    with pytest.raises(UserError, match=f"^{word.partition('=')[0]}="):
        config_of(word)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("90", 90),
        ("24:00:00", 1440),
        ("4:00:00", 240),
        ("00:00:30", 1),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("2-12:30:00", 3630),
        ("'1-00:00:00'", 1440),
    ],
)
def test_times_mean_what_sbatch_reads(value: str, expected: int, site: Path) -> None:
    assert config_of(f"slurm.time={value}").slurm.time == expected
    (site / "slurm/site.yaml").write_text(f"kind: cluster\ntime: {value}\n")
    assert config_of("slurm=site", config_dir=site).slurm.time == expected


def test_a_time_of_two_parts_is_refused_with_both_readings(site: Path) -> None:
    (site / "slurm/site.yaml").write_text("kind: cluster\ntime: 30:00\n")
    for words in (["slurm.time=30:00"], ["slurm=site"]):
        with pytest.raises(UserError, match=r"slurm\.time=30:00: .*30 minutes.*30 hours"):
            config_of(*words, config_dir=site)


@pytest.mark.parametrize("value", ["1:2:3:4", "1-", "-5", "1h", "1-1:2:", "31-00", "1e3", True])
def test_a_time_that_is_none(value: object) -> None:
    with pytest.raises(UserError, match=r"slurm\.time="):
        minutes(value)


@pytest.mark.parametrize("value", [4, 0, "a100:4", "1g.10gb:2"])
def test_gpus(value: object) -> None:
    assert config_of(f"slurm.gpus={value}").slurm.gpus == value


@pytest.mark.parametrize("value", ["a100", "65", "a100:65", "-1", "1.5", "a:b:1"])
def test_gpus_that_are_none(value: str) -> None:
    with pytest.raises(UserError, match=rf"slurm\.gpus={value}: .*TYPE:N"):
        config_of(f"slurm.gpus={value}")


def test_an_empty_mapping_clears_a_presets(site: Path) -> None:
    preset = "defaults: [tiny]\nengine: {a: {b: 1}, c: 2}\nprocessor: {d: 3}\n"
    (site / "model/own.yaml").write_text(preset)
    words = ["model=own", "model.engine={}", "model.engine.a.b=4", "model.processor={}"]
    model = config_of(*words, config_dir=site).model
    assert (model.engine, model.processor) == ({"a": {"b": 4}}, {})


def test_a_preset_of_a_site_says_where_tasks_run(site: Path) -> None:
    (site / "slurm/site.yaml").write_text("partition: gpu\n")
    with pytest.raises(UserError, match=r"slurm\.kind: .*kind: cluster"):
        config_of("slurm=site", config_dir=site)
    assert config_of("slurm=site", "slurm.kind=cluster", config_dir=site).slurm.kind == "cluster"
