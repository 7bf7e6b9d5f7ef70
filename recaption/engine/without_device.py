"""Tries a model and its engine's arguments without a GPU.

It renders a picture, collects transformers' warnings about the processor's arguments, and, where vLLM
itself needs a device, checks what transformers alone can tell.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw

from recaption.engine.base import Question, Spec

MARK = "RECAPTION-PROMPT-TEXT"
IGNORED = re.compile(r"Keyword argument `(\w+)` is not a valid argument for this processor")
# take effect when a processor is loaded, and are ignored later
AT_LOADING = {"backend", "use_fast"}


def drawn() -> PIL.Image.Image:
    """A drawn picture of 640×480 pixels."""
    picture = PIL.Image.new("RGB", (640, 480), (70, 110, 180))
    PIL.ImageDraw.Draw(picture).ellipse((200, 120, 440, 360), fill=(220, 180, 40))
    return picture


def questions(spec: Spec) -> list[Question]:
    return [Question(p.name, p.system, p.text) for p in spec.prompts]


class KeyFault(Exception):
    """One key that is certain to be at fault."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class ProcessorWarnings(logging.Handler):
    """Collects the names that transformers says a processor will ignore."""

    def __init__(self) -> None:
        super().__init__()
        self.ignored: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.ignored |= set(IGNORED.findall(record.getMessage())) - AT_LOADING

    def __enter__(self) -> ProcessorWarnings:
        logging.getLogger("transformers").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("transformers").removeHandler(self)

    def check(self, processor: dict[str, Any]) -> None:
        for name in sorted(self.ignored & set(processor)):
            reason = "is no argument of the model's processor, which would ignore it"
            raise KeyFault(f"model.processor.{name}", reason)


def chat(system: str | None) -> list[Any]:
    """A chat for vLLM, with a picture and a placeholder for the prompt's text."""
    picture = {"type": "image_pil", "image_pil": PIL.Image.new("RGB", (64, 64))}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": MARK}]}]
    return [*([{"role": "system", "content": system}] if system else []), *messages]


def said(error: BaseException) -> str:
    """An error as one line; the cause of an error that vLLM wrapped."""
    reason = error.__cause__ or error
    return f"{type(reason).__name__}: {reason}"


def without(value: str, tokens: Sequence[str]) -> str:
    """A text without these tokens, even ones that form when another is removed."""
    before = None
    while before != value:
        before = value
        for token in tokens:
            value = value.replace(token, "")
    return value


def only_place(part: list[int], whole: list[int]) -> int | None:
    """The position of a list in another one; None unless it occurs there exactly once."""
    size = len(part)
    found = [i for i in range(len(whole) - size + 1) if whole[i : i + size] == part]
    return found[0] if len(found) == 1 else None


def chat_template(spec: Spec) -> str | None:
    """The run's own template; None for the model's."""
    path = spec.config.model.chat_template
    return Path(path).read_text(encoding="utf-8") if path else None


def template_arguments(spec: Spec) -> dict[str, Any]:
    """What the chat template is given beside the messages."""
    own = spec.config.model.chat_template_kwargs
    return {**own, "add_generation_prompt": True, "tokenize": False}


def check_template_arguments(spec: Spec) -> None:
    """Raise KeyFault for an argument that the chat template does not read; vLLM would drop it."""
    given = spec.config.model.chat_template_kwargs
    if not given:
        return
    from jinja2.meta import find_undeclared_variables
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template = chat_template(spec)
    if template is None:
        processor = _processor(spec)
        template = processor.chat_template or processor.tokenizer.chat_template
    named = template.get("default", "") if isinstance(template, dict) else template or ""
    environment = _compile_jinja_template(named).environment
    read = find_undeclared_variables(environment.parse(named))
    for name in sorted(set(given) - read):
        reason = f"is not read by the model's chat template, which reads {', '.join(sorted(read))}"
        raise KeyFault(f"model.chat_template_kwargs.{name}", reason)


def _processor(spec: Spec) -> Any:
    from transformers import AutoProcessor

    model = spec.config.model
    return AutoProcessor.from_pretrained(
        spec.model_path, trust_remote_code=model.trust_remote_code, **model.processor
    )


def check(spec: Spec, methods: Collection[str]) -> None:
    """Raise ValueError for settings that vLLM would refuse; `methods` are its quantizations."""
    model, engine = spec.config.model, spec.config.engine
    if model.quantization is not None and model.quantization not in methods:
        known = ", ".join(sorted(methods))
        raise ValueError(f"unknown quantization method {model.quantization}; there are {known}")
    batched = engine.max_num_batched_tokens
    if batched is not None and batched < engine.max_num_seqs:
        raise ValueError(f"max_num_batched_tokens ({batched}) is below {engine.max_num_seqs}")
    _check_shape(spec)
    _check_template(spec)


def _check_shape(spec: Spec) -> None:
    from transformers import AutoConfig

    remote = spec.config.model.trust_remote_code
    config: Any = AutoConfig.from_pretrained(spec.model_path, trust_remote_code=remote)
    text = config.get_text_config()
    heads, size = text.num_attention_heads, spec.config.engine.tensor_parallel
    if heads % size:
        raise ValueError(f"{heads} attention heads cannot be divided by tensor_parallel={size}")
    longest, room = getattr(text, "max_position_embeddings", None), spec.config.model.max_model_len
    if longest is not None and room > longest:
        raise ValueError(f"max_model_len={room} is over the model's {longest} positions")


def _check_template(spec: Spec) -> None:
    """Raise ValueError unless the chat template contains the prompt's text once."""
    check_template_arguments(spec)
    content = [{"type": "image"}, {"type": "text", "text": MARK}]
    options = template_arguments(spec)
    if template := chat_template(spec):
        options["chat_template"] = template
    text = _processor(spec).apply_chat_template([{"role": "user", "content": content}], **options)
    if text.count(MARK) != 1:
        raise ValueError(f"the model's chat template makes {text!r} of the prompt {MARK}")
