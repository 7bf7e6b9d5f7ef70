"""The keys of what is asked, of which model, and how: model, prompt, sampling and quality."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from recaption.config.key import key

FLAGS = ("truncated", "empty", "short", "repetition", "refusal", "echo", "script", "cut")
HARMLESS = ("cut",)  # flags that say nothing against a caption
SCRIPTS = tuple(
    "latin cyrillic greek arabic hebrew devanagari thai chinese japanese korean".split()
)


@dataclass(kw_only=True)
class Model:
    """A vision-language model as vLLM loads it."""

    name: str = key(
        MISSING,
        "Name of the model, stored with the captions and part of the default output folder.",
    )
    path: str | None = key(
        None, "Local folder with the model's files in the Hugging Face layout.", path=True
    )
    repo: str | None = key(
        None, "Repository on the Hugging Face Hub, such as Qwen/Qwen3-VL-4B-Instruct."
    )
    revision: str | None = key(
        None,
        "Branch, tag or commit of the repository, resolved to a commit at launch. Default: main.",
    )
    architectures: list[str] | None = key(
        None,
        "Class names of which the model's config.json has to name one. Default: any.",
        was=None,
    )
    cache: str | None = key(
        None, "Folder for downloaded models. Default: the Hub library's own cache.", path=True
    )
    max_pixels: int = key(
        1_048_576,
        "Pictures with more pixels (width times height) are scaled down to this many before the"
        " model sees them.",
        low=64,
    )
    min_side: int = key(
        8,
        "Pictures whose shorter side has fewer pixels than this after scaling are rejected.",
        low=1,
    )
    max_model_len: int = key(
        4096, "Context length in tokens, which has to hold picture, prompt and caption.", low=64
    )
    load_format: str = key(
        "auto",
        "Format of the weights, as vLLM names it; dummy gives random weights, for measurements.",
        choices=("auto", "dummy", "safetensors", "pt"),
    )
    dtype: str = key(
        "bfloat16",
        "Number format that the model computes in; auto takes the one its files name.",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    quantization: str | None = key(
        None,
        "Quantization method, as vLLM names it, such as fp8. Default: what the model's files say.",
    )
    trust_remote_code: bool = key(False, "Run Python code that comes with the model's files.")
    chat_template: str | None = key(
        None, "Jinja file with a chat template. Default: the model's own.", path=True
    )
    chat_template_kwargs: dict[str, Any] = key(
        {},
        "Arguments of the chat template by name, such as "
        "model.chat_template_kwargs.enable_thinking=false.",
        was={},
    )
    vllm: str | None = key(
        None,
        "Versions of vLLM that know the model, such as >=0.33; another one is refused. Default: any.",
        literal=True,
        was=None,
    )
    processor: dict[str, Any] = key(
        {}, "Options of the model's image processor by name, as in vLLM's mm_processor_kwargs."
    )
    engine: dict[str, Any] = key(
        {},
        "Further arguments of vLLM's AsyncEngineArgs by name, such as "
        "model.engine.kv_cache_dtype=fp8.",
    )


@dataclass(kw_only=True)
class Prompt:
    """What is asked about each picture."""

    name: str = key(
        MISSING,
        "Name of the prompt, stored with the captions and part of the default output folder.",
    )
    system: str | None = key(
        None, "System message that precedes the prompt. Default: none.", literal=True
    )
    text: str = key(
        MISSING,
        "The prompt. {caption} is replaced by the original caption, {json.FIELD} by a field of "
        "the sample's JSON; {{ stands for one brace.",
        literal=True,
    )

    def digest(self) -> str:
        """sha256 of system message and text, as they are before fields are filled in."""
        return hashlib.sha256(f"{self.system or ''}\0{self.text}".encode()).hexdigest()


@dataclass(kw_only=True)
class Sampling:
    """How captions are drawn; greedy by default."""

    max_tokens: int = key(256, "Tokens after which a caption is cut off.", low=1)
    temperature: float = key(
        0.0,
        "Randomness of the choice of each token; 0 always takes the likeliest one.",
        low=0.0,
        high=2.0,
    )
    top_p: float = key(
        1.0,
        "Choose among the likeliest tokens that together have this probability; 1 means all.",
        low=0.0,
        high=1.0,
    )
    top_k: int = key(0, "Choose among this many likeliest tokens; 0 means all.", low=0)
    min_p: float = key(
        0.0,
        "Choose among tokens that have at least this fraction of the likeliest token's "
        "probability; 0 means all.",
        low=0.0,
        high=1.0,
    )
    repetition_penalty: float = key(
        1.0,
        "How much tokens that occurred already are held back: above 1 makes them less likely, 1"
        " does nothing.",
        low=0.1,
        high=2.0,
    )
    seed: int | None = key(
        None,
        "Seed of the random choice, so that another run gives the same captions; generation is "
        "slower with it. Default: none.",
    )
    stop: list[str] = key([], "Texts at which a caption ends; they are not part of it.")
    ignore_eos: bool = key(
        False, "Generate max_tokens tokens even if the model would end earlier, for measurements."
    )


@dataclass(kw_only=True)
class Quality:
    """Which captions are flagged, and what becomes of them."""

    flags: list[str] = key(
        list(FLAGS),
        "Checks that are made on captions; each caption is stored with the flags that it gets.",
    )
    bad: list[str] = key(
        [f for f in FLAGS if f not in HARMLESS],
        "Flags that make a caption bad; quality.retries and quality.action act on bad captions.",
    )
    retries: int = key(
        0,
        "How many times a bad caption is asked for again; the caption with the fewest bad flags"
        " is kept.",
        low=0,
        high=10,
    )
    temperature_step: float = key(
        0.3, "Temperature added at each retry, so that it gives another caption.", low=0.0, high=2.0
    )
    action: str = key(
        "publish",
        "What becomes of a caption that stays bad: publish keeps it with its flags, filter "
        "leaves the sample out.",
        choices=("publish", "filter"),
    )
    repeats: int = key(
        4, "Flag repetition: how many times in a row the same words have to occur.", low=2
    )
    duplicated: float = key(
        0.5,
        "Flag repetition: share (0 to 1) of a caption's words that may belong to sequences of "
        "five words that occurred before.",
        low=0.01,
        high=1.0,
    )
    min_characters: int = key(
        0, "Flag short: captions with fewer characters get it; 0 means none.", low=0
    )
    min_words: int = key(0, "Flag short: captions with fewer words get it; 0 means none.", low=0)
    echo_words: int = key(
        6, "Flag echo: how many successive words of the prompt a caption has to repeat.", low=3
    )
    script: str | None = key(
        None,
        "Flag script: the writing system that captions should be in. Default: any.",
        choices=SCRIPTS,
    )
    script_share: float = key(
        0.2,
        "Flag script: share (0 to 1) of a caption's letters that may be of other writing systems.",
        low=0.0,
        high=1.0,
    )
