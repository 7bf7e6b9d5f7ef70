"""The typed configuration: every key, its type, default, meaning, and the values it allows.

Hydra merges the YAML files of conf/ and the command line into `Config`; `recaption.config.check`
enforces what is said in each field's metadata, and `--help` prints it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from recaption.config.key import key
from recaption.config.onnx import Watermark

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP")
FLAGS = ("truncated", "empty", "short", "repetition", "refusal", "echo", "script", "cut")
HARMLESS = ("cut",)  # flags that say nothing against a caption
SCRIPTS = tuple(
    "latin cyrillic greek arabic hebrew devanagari thai chinese japanese korean".split()
)


@dataclass(kw_only=True)
class Data:
    """Input shards and how samples are read from them."""

    shards: Any = key(
        MISSING, "brace pattern, glob, folder, list, or .txt/.list file; path or URL", literal=True
    )
    range: Any = key(None, "positions of the shards to do: 0-575, or 0-3,8,10-", literal=True)
    name: str | None = key(None, "names the default output folder; default: the shards' folder")
    max_samples: int | None = key(None, "only the first N samples of each shard", low=1)
    damaged: str = key(
        "fail", "a damaged shard fails, or what is intact is used", choices=("fail", "salvage")
    )
    tries: int = key(2, "times a shard is tried per submission", low=1, high=100)
    outage_seconds: float = key(
        900.0, "a store that has answered may be away so long", was=900.0, low=0.0
    )
    order: str = key(
        "adjacent",
        "any: members of a sample may stand apart in the tar",
        choices=("adjacent", "any"),
        was="adjacent",
    )
    image_keys: list[str] = key(
        "jpg jpeg png webp avif gif bmp".split(), "extensions of image members"
    )
    text_key: str = key("txt", "extension of the member with the original caption", was="txt")
    caption_key: str = key(
        "caption", "JSON field of it where there is no such member; A.B is nested"
    )
    alarm: float = key(
        0.5,
        "share of rejected and failed samples that stops a task and is no success; 1: none is",
        low=0.0,
        high=1.0,
        was=1.0,
    )
    workers: int | None = key(
        None, "preparation processes per task; default: what CPUs allow", low=1, high=512
    )
    spool: str | None = key(None, "node-local folder for remote or compressed shards", path=True)
    spool_gb: float = key(64.0, "bound on all spooled shards of a task", low=0.001)
    buffer_mb: int = key(1024, "bound on prepared pictures that wait for an engine", low=16)
    allow_pipe: bool = key(False, "allow pipe: shards, which run a shell command")


@dataclass(kw_only=True)
class Image:
    """Which pictures are accepted and how they are shown to the model."""

    formats: list[str] = key(
        list(FORMATS),
        "of pictures, by their content: those that are accepted",
        was=["JPEG", "PNG", "WEBP"],
    )
    max_source_pixels: int = key(100_000_000, "larger pictures are rejected before decoding", low=1)
    max_aspect: float = key(50.0, "longer or taller pictures are rejected", low=1.0, high=200.0)
    background: list[int] = key([255, 255, 255], "RGB below transparent parts")
    draft: bool = key(True, "decode JPEGs at a fraction where they exceed model.max_pixels 4-fold")
    decode_seconds: float = key(30.0, "time limit per picture", low=0.1)
    decode_mb: int = key(1024, "memory limit per preparation process", low=128)


@dataclass(kw_only=True)
class Model:
    """A vision-language model as vLLM loads it."""

    name: str = key(MISSING, "names the default output folder; stored with captions")
    path: str | None = key(None, "a local folder in the Hugging Face layout", path=True)
    repo: str | None = key(None, "a repository on the Hugging Face Hub")
    revision: str | None = key(None, "branch, tag or commit; resolved to a commit at launch")
    architectures: list[str] | None = key(
        None, "class names that the files' config.json must have; null: any", was=None
    )
    cache: str | None = key(None, "download folder; default: the Hub library's", path=True)
    max_pixels: int = key(1_048_576, "larger pictures are scaled down to this", low=64)
    min_side: int = key(8, "pictures with a shorter side, after scaling, are rejected", low=1)
    max_model_len: int = key(4096, "context length in tokens", low=64)
    load_format: str = key(
        "auto", "dummy: random weights", choices=("auto", "dummy", "safetensors", "pt")
    )
    dtype: str = key(
        "bfloat16", "of the weights", choices=("auto", "bfloat16", "float16", "float32")
    )
    quantization: str | None = key(None, "vLLM's name of a method, such as fp8")
    trust_remote_code: bool = key(False, "run the repository's own Python code")
    chat_template: str | None = key(
        None, "a Jinja file; default: the model's own template", path=True
    )
    processor: dict[str, Any] = key({}, "vLLM's mm_processor_kwargs")
    engine: dict[str, Any] = key({}, "further arguments of vLLM's AsyncEngineArgs")


@dataclass(kw_only=True)
class Prompt:
    """What is asked about each picture."""

    name: str = key(MISSING, "names the default output folder; stored with captions")
    system: str | None = key(None, "a system message", literal=True)
    text: str = key(
        MISSING, "{caption} and {json.FIELD} are filled in; {{ is a brace", literal=True
    )

    def digest(self) -> str:
        """sha256 of system message and text, as they are before fields are filled in."""
        return hashlib.sha256(f"{self.system or ''}\0{self.text}".encode()).hexdigest()


@dataclass(kw_only=True)
class Sampling:
    """How captions are drawn; greedy by default."""

    max_tokens: int = key(256, "longest caption", low=1)
    temperature: float = key(0.0, "0: greedy", low=0.0, high=2.0)
    top_p: float = key(1.0, "nucleus", low=0.0, high=1.0)
    top_k: int = key(0, "0: all", low=0)
    min_p: float = key(0.0, "relative to the likeliest token", low=0.0, high=1.0)
    repetition_penalty: float = key(1.0, "1: none", low=0.1, high=2.0)
    seed: int | None = key(None, "with a temperature: captions that a rerun repeats, but slower")
    stop: list[str] = key([], "texts that end a caption")
    ignore_eos: bool = key(False, "for measurements: always max_tokens")


@dataclass(kw_only=True)
class Engine:
    """The engines of a task; everything but the kind may change between submissions."""

    kind: str = key("vllm", "set by engine=vllm or engine=fake", choices=("vllm", "fake"))
    tensor_parallel: int = key(1, "GPUs per engine", low=1, high=8)
    replicas: int | None = key(
        None, "engines per task; default: what the GPUs allow", low=1, high=64
    )
    max_num_seqs: int = key(512, "captions generated at once per engine", low=1)
    max_num_batched_tokens: int | None = key(16384, "tokens per step", low=64)
    gpu_memory_utilization: float = key(0.9, "share of each GPU", low=0.05, high=1.0)
    enforce_eager: bool = key(False, "no CUDA graphs: starts faster, runs slower")
    waiting: int = key(32, "samples sent to an engine beyond max_num_seqs", low=0)
    start_seconds: float = key(1800.0, "time an engine may take to start", low=1.0)
    stall_seconds: float = key(300.0, "without a step of a busy engine: counts as death", low=0.1)
    restarts: int = key(3, "of an engine in a row without a caption in between", low=0, high=1000)
    rate: float = key(0.0, "fake: images/s, 0 for no limit", low=0.0)
    record: str | None = key(
        None, "fake: a file that gets a line for every caption made", path=True
    )
    salt: str = key("", "fake: random makes each caption differ", choices=("", "random"))
    poison: dict[str, str] = key(
        {}, "fake: caption, or *, → crash, hang, error, refuse, cut, or say TEXT"
    )


@dataclass(kw_only=True)
class Slurm:
    """Where tasks run."""

    kind: str = key("local", "set by slurm=local or slurm=cluster", choices=("local", "cluster"))
    tasks: int | None = key(None, "tasks to share the shards; local: 1, else up to 64", low=1)
    gpus: Any = key(
        None, "per task, as number or TYPE:N; local: shared by tasks at a time", text=True
    )
    cpus: int | None = key(None, "per task", low=1)
    mem: str | None = key(None, "per task, such as 128G", text=True)
    time: Any = key(None, "minutes, or HH:MM:SS, D-HH, D-HH:MM[:SS]", text=True)
    partition: str | None = key(None, "sbatch --partition", text=True)
    account: str | None = key(None, "sbatch --account", text=True)
    qos: str | None = key(None, "sbatch --qos", text=True)
    constraint: str | None = key(None, "sbatch --constraint", text=True)
    exclude: str | None = key(None, "sbatch --exclude", text=True)
    parallelism: int | None = key(None, "tasks at a time", low=1)
    steal: bool = key(True, "a task that is done takes over shards that nobody holds")
    requeue: bool = key(True, "tasks come back after preemption and time limits")
    attempts: int = key(5, "of a task in a row that finish no shard and no sample", low=1)
    signal_delay: int = key(90, "seconds between USR2 and the end of the time", low=1)
    setup: list[str] = key([], "shell lines before the task, which ends where one fails")
    python: str | None = key(None, "command that starts Python on a node", text=True)
    srun_args: list[str] = key([], "further arguments of srun")
    metrics: str | None = key(
        None, "folder for a Prometheus text file per task, rewritten in a run", path=True
    )
    lease_seconds: float = key(60.0, "a lease unchanged for so long is dead", low=0.5)
    flush_seconds: float = key(3.0, "between journal flushes", low=0.05)
    additional: dict[str, Any] = key({}, "further sbatch options", text=True)


@dataclass(kw_only=True)
class Quality:
    """Which captions are flagged, and what becomes of them."""

    flags: list[str] = key(list(FLAGS), "checks that are made")
    bad: list[str] = key(
        [f for f in FLAGS if f not in HARMLESS], "flags that retries and action act on"
    )
    retries: int = key(0, "times a bad caption is asked for again", low=0, high=10)
    temperature_step: float = key(0.3, "added at each retry", low=0.0, high=2.0)
    action: str = key(
        "publish", "what stays bad: with its flags, or not", choices=("publish", "filter")
    )
    repeats: int = key(4, "repetition: the same words so many times in a row", low=2)
    duplicated: float = key(
        0.5, "repetition: share of words in repeats of earlier five", low=0.01, high=1.0
    )
    min_characters: int = key(0, "short: fewer; 0: any number will do", low=0)
    min_words: int = key(0, "short: fewer; 0: any number will do", low=0)
    echo_words: int = key(6, "echo: so many words of the prompt in a row", low=3)
    script: str | None = key(None, "script: the one that is expected; null: any", choices=SCRIPTS)
    script_share: float = key(0.2, "script: more letters of others", low=0.0, high=1.0)


@dataclass(kw_only=True)
class Output:
    """What is written and where."""

    dir: str = key(MISSING, "the run directory", path=True)
    text: str = key("replace", ".txt becomes the caption, or stays", choices=("replace", "keep"))
    mode: str = key("full", "whole samples, or caption-only shards", choices=("full", "captions"))
    license: str = key("other", "in the data set card: an identifier such as cc-by-4.0")
    group: str | None = key(None, "group that the run's files belong to", was=None)


@dataclass(kw_only=True)
class Config:
    """One run and one submission of it."""

    data: Data = field(default_factory=Data)
    image: Image = field(default_factory=Image)
    model: Model = field(default_factory=Model)
    prompt: Prompt = field(default_factory=Prompt)
    prompts: list[str] | None = key(None, "several presets in one pass; excludes prompt")
    sampling: Sampling = field(default_factory=Sampling)
    engine: Engine = field(default_factory=Engine)
    slurm: Slurm = field(default_factory=Slurm)
    watermark: Watermark = field(default_factory=Watermark)
    scorers: dict[str, Any] = key({}, "NAME.path, NAME.kind, …: further ONNX scorers")
    quality: Quality = field(default_factory=Quality)
    output: Output = field(default_factory=Output)
    wait: bool | None = key(None, "stay until the end; default: with slurm=local only")
    force: bool = key(False, "submit although jobs or tasks of the run are at work", was=False)
    dry_run: bool = key(False, "print the plan and the batch script, submit nothing")
