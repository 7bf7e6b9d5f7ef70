"""Where vLLM (0.25 to 0.33) is met: rendering in workers, AsyncLLM in engines.

Rendering uses vLLM's internals, since its public entry points render on the engine's event loop,
which starves the GPU. Each picture's id is set as its multimodal hash: without it several
renderer processes number their inputs alike, and the encoder cache answers with another picture.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import vllm
from vllm import SamplingParams, exceptions
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.platforms import current_platform
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.renderers.params import ChatParams
from vllm.renderers.registry import renderer_from_config
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from recaption.engine import encoder_width, families, without_device
from recaption.engine.arguments import arguments_of, request_seed
from recaption.engine.base import Caption, Device, Question, Spec
from recaption.engine.compiled import with_code
from recaption.engine.needs import unmet
from recaption.engine.without_device import MARK
from recaption.errors import SampleError, TooLong

# What is wrong with a request; since 0.32 it need not be a ValueError, and 0.25 lacks the base class.
REQUEST_ERRORS = (
    ValueError,
    getattr(exceptions, "VLLMClientError", exceptions.VLLMValidationError),
)

TEXTS = 64  # rendered texts that are kept


def engine_arguments(spec: Spec, tensor_parallel: int, **more: Any) -> AsyncEngineArgs:
    """vLLM's arguments for a run; renderers take one of their own with no parallelism."""
    if reason := unmet(spec.config.model):
        raise without_device.KeyFault("model.vllm", reason)
    families.mend(spec.model_path)
    arguments = arguments_of(spec, tensor_parallel)
    if current_platform.is_cpu():
        from recaption.engine.cpu import cpu_arguments

        arguments |= cpu_arguments(tensor_parallel)
    arguments |= more | spec.config.model.engine
    if not current_platform.is_cpu():
        arguments = families.with_compiled_encoder(spec.model_path, arguments)
    return AsyncEngineArgs(**encoder_width.with_width(spec.model_path, arguments))


def sampling_parameters(spec: Spec, temperature: float) -> SamplingParams:
    """The sampling parameters; each request sets its own seed."""
    s = spec.config.sampling
    return SamplingParams(
        max_tokens=s.max_tokens,
        temperature=temperature,
        top_p=s.top_p,
        top_k=s.top_k,
        min_p=s.min_p,
        repetition_penalty=s.repetition_penalty,
        stop=list(s.stop),
        ignore_eos=s.ignore_eos,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


class VllmRenderer:
    """Applies the chat template once per prompt, and tokenizer and image processor per picture."""

    def __init__(self, spec: Spec) -> None:
        config = engine_arguments(spec, 1).create_engine_config()
        self.model_config = config.model_config
        self.renderer = renderer_from_config(config)
        parameters = self.renderer.default_chat_tok_params
        # Its length is looked at below, with the picture.
        self.tokenize = dataclasses.replace(
            parameters, add_special_tokens=False, max_total_tokens=None
        )
        tokenizer = self.renderer.get_tokenizer()
        special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        self.special = sorted((t for t in special if t.strip()), key=len, reverse=True)
        self.sampling = spec.config.sampling
        self.room = spec.config.model.max_model_len
        self.chat = ChatParams(
            chat_template=without_device.chat_template(spec),
            chat_template_kwargs=without_device.template_arguments(spec),
        )
        self.templates: dict[tuple[str, str | None], str] = {}
        self.tokens: dict[str, list[int]] = {}
        questions = [Question(p.name, p.system, p.text) for p in spec.prompts]
        for question in questions:
            self.template(question)
        self.shares = len(questions) == 1 or self._may_share(questions)

    def clean(self, value: str) -> str:
        """A text without anything that the tokenizer would read as a special token."""
        return without_device.without(value, self.special)

    def render(self, rgb: PIL.Image.Image, picture: str, questions: Sequence[Question]) -> Any:
        inputs: list[tuple[Any, int | None, float | None]] = []
        for question in questions:
            try:
                text = self.template(question).replace(MARK, question.text.strip())
                rendered = None
                if inputs and self.shares:
                    rendered = self._with_text(inputs[0][0], text)
                if rendered is None:
                    rendered = self._rendered(text, rgb)
            except REQUEST_ERRORS as e:
                raise SampleError(f"prompt {question.name} cannot be rendered: {e}") from None
            length = len(rendered["prompt_token_ids"])
            over = length - (self.room - (question.reserve or 1))
            if over > 0:
                limit = f"model.max_model_len={self.room}"
                reason = f"prompt {question.name} has {length} tokens, over {limit}"
                raise TooLong(reason, question.name, over)
            rendered["mm_hashes"] = {"image": [picture]}
            inputs.append(
                (rendered, request_seed(self.sampling, picture, question), question.temperature)
            )
        return inputs

    def length(self, question: Question) -> int:
        text = self.template(question).replace(MARK, question.text.strip())
        return len(self._rendered(text, None)["prompt_token_ids"])

    def _rendered(self, text: str, rgb: PIL.Image.Image | None) -> Any:
        content: Any = {"prompt": text}
        if rgb is not None:
            content["multi_modal_data"] = {"image": rgb}
        prompt = parse_model_prompt(self.model_config, content)
        (rendered,) = self.renderer.render_cmpl([prompt], self.tokenize)
        if rgb is not None:
            rendered["prompt"] = text
        return rendered

    def _with_text(self, done: Any, text: str) -> Any:
        """The input for a picture that was rendered with another text; None if that is not safe.

        The picture's tokens must stand between the same tokens of text as its placeholder does.
        """
        ids, places = done["prompt_token_ids"], done["mm_placeholders"].get("image", [])
        if len(places) != 1:
            return None
        start, end = places[0].offset, places[0].offset + places[0].length
        before = self._tokens(done["prompt"])
        rest = len(before) - (len(ids) - end)
        mark = before[start:rest]
        if not mark or before[:start] != ids[:start] or before[rest:] != ids[end:]:
            return None
        after = self._tokens(text)
        at, size = without_device.only_place(mark, after), len(mark)
        if at is None:
            return None
        return {
            **done,
            "prompt": text,
            "prompt_token_ids": after[:at] + ids[start:end] + after[at + size :],
            "mm_placeholders": {"image": [dataclasses.replace(places[0], offset=at)]},
        }

    def _tokens(self, text: str) -> list[int]:
        """The tokens of a text without its picture; kept, since most pictures have the same few texts."""
        if text not in self.tokens:
            if len(self.tokens) >= TEXTS:
                self.tokens.clear()
            self.tokens[text] = list(self._rendered(text, None)["prompt_token_ids"])
        return self.tokens[text]

    def _may_share(self, questions: Sequence[Question]) -> bool:
        """Whether _with_text gives the same inputs as vLLM; tried on one picture."""
        picture = PIL.Image.new("RGB", (96, 64))
        first, *others = (self.template(q).replace(MARK, q.text.strip()) for q in questions)
        keys = ("prompt_token_ids", "mm_placeholders")
        try:
            done = self._rendered(first, picture)
            pairs = [(self._with_text(done, t), self._rendered(t, picture)) for t in others]
        except (*REQUEST_ERRORS, KeyError, TypeError, AttributeError, RuntimeError):
            return False  # another kind of processor, or a text that cannot be rendered alone
        return all(a is not None and all(a[k] == b[k] for k in keys) for a, b in pairs)

    def template(self, question: Question) -> str:
        """The chat around a prompt's text; only the system message can differ between samples."""
        key = (question.name, question.system)
        if key not in self.templates:
            if len(self.templates) >= TEXTS:
                self.templates.clear()
            _, prompt = self.renderer.render_messages(
                without_device.chat(question.system), self.chat
            )
            text = prompt.get("prompt")
            if not isinstance(text, str) or text.count(MARK) != 1:
                raise ValueError(f"the model's chat template makes {prompt!r} of the prompt {MARK}")
            self.templates[key] = text
        return self.templates[key]


class VllmEngine:
    """AsyncLLM on the devices it was given."""

    def __init__(self, spec: Spec, device: Device) -> None:
        self.spec = spec
        self.device = device
        self.done_steps = 0
        self.sampling = sampling_parameters(spec, spec.config.sampling.temperature)

    async def start(self) -> dict[str, Any]:
        encoder_width.set_up(self.spec.model_path)
        arguments = engine_arguments(self.spec, self.spec.config.engine.tensor_parallel)
        name = "cpu" if current_platform.is_cpu() else current_platform.get_device_name()
        start = functools.partial(AsyncLLM.from_engine_args, arguments)
        self.engine = start() if arguments.enforce_eager else with_code(self.spec, name, start)
        self._count_steps()
        return {"gpu": name, "vllm": vllm.__version__}

    async def generate(self, payload: Any, request: str) -> list[Caption]:
        asked = (
            self._one(rendered, seed, temperature, f"{request}-{n}")
            for n, (rendered, seed, temperature) in enumerate(payload)
        )
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                if self.engine.errored or not isinstance(answer, Exception):
                    raise answer
                raise SampleError(without_device.said(answer)) from answer
        return [answer for answer in answers if isinstance(answer, Caption)]

    def steps(self) -> int:
        return self.done_steps

    def _count_steps(self) -> None:
        """vLLM's core reports each step's tokens here, whether or not a request ends with them.

        Its own statistics would say as much, but they cost something at every step.
        """
        processor = self.engine.output_processor
        process = processor.process_outputs

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.done_steps += 1
            return process(*args, **kwargs)

        processor.process_outputs = counted

    def as_another(self, payload: Any, picture: str, seeded: bool) -> Any:
        return [
            (
                {**rendered, "mm_hashes": {"image": [picture]}},
                seed if seeded else None,
                temperature,
            )
            for rendered, seed, temperature in payload
        ]

    async def stop(self) -> None:
        for core in multiprocessing.active_children():
            core.kill()  # it ignores TERM, as all children of a task do; shutdown() would wait 5 s
        self.engine.shutdown()

    async def _one(
        self, rendered: Any, seed: int | None, temperature: float | None, request: str
    ) -> Caption:
        sampling = self.sampling
        if temperature is not None:
            sampling = sampling_parameters(self.spec, temperature)
        if seed is not None:
            sampling = copy.copy(sampling)
            sampling.seed = seed
        final = None
        async for output in self.engine.generate(rendered, sampling, request):
            final = output
        assert final is not None
        answer = final.outputs[0]
        return Caption(answer.text.strip(), answer.finish_reason or "", len(answer.token_ids))


def whole_model(spec: Spec, tensor_parallel: int) -> Callable[[str, list[PIL.Image.Image]], Any]:
    """vLLM's synchronous `LLM` over all GPUs, as one function; only the baseline uses it."""
    arguments = engine_arguments(spec, tensor_parallel)
    chosen = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(EngineArgs)}
    model = vllm.LLM(**chosen)
    sampling = VllmEngine(spec, Device(0)).sampling

    def generate(prompt: str, pictures: list[PIL.Image.Image]) -> list[tuple[str, int]]:
        requests = [{"prompt": prompt, "multi_modal_data": {"image": p}} for p in pictures]
        answers = model.generate(requests, sampling, use_tqdm=False)
        return [(a.outputs[0].text, len(a.outputs[0].token_ids)) for a in answers]

    return generate


def has_platform() -> bool:
    """False for a CUDA build on a machine without a GPU, where vLLM can build no configuration."""
    return not current_platform.is_unspecified()


def attempt(spec: Spec) -> None:
    """Build all that an engine is given, and render a picture; raises whatever does not fit."""
    VllmEngine(spec, Device(0))
    size = spec.config.engine.tensor_parallel
    several = {"distributed_executor_backend": "mp"} if size > 1 else {}  # or it counts GPUs here
    engine_arguments(spec, size, **several).create_engine_config()
    without_device.check_template_arguments(spec)
    with without_device.ProcessorWarnings() as warnings:
        VllmRenderer(spec).render(without_device.drawn(), "trial", without_device.questions(spec))
    warnings.check(spec.config.model.processor)


def attempt_without_platform(spec: Spec) -> None:
    """As `attempt`, as far as vLLM and transformers go without a device."""
    sampling_parameters(spec, spec.config.sampling.temperature)
    engine_arguments(spec, spec.config.engine.tensor_parallel)
    without_device.check(spec, QUANTIZATION_METHODS)
