"""What recaption uses of vLLM, and what of it an unpacked vLLM of another version lacks, by its text.

Nothing is imported, so that a wheel for GPUs can be looked at on any machine:

    python -m zipfile -e vllm-*.whl UNPACKED && python tests/vllm_uses.py UNPACKED/vllm
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# By file: what is called, with the arguments given by place, then `*` and those given by name.
CALLED = {
    "engine/arg_utils.py": {
        "EngineArgs": "* model dtype quantization load_format trust_remote_code max_model_len "
        "max_num_seqs max_num_batched_tokens gpu_memory_utilization enforce_eager "
        "tensor_parallel_size limit_mm_per_prompt mm_processor_kwargs mm_processor_cache_gb "
        "disable_log_stats generation_config seed enable_prefix_caching kv_cache_memory_bytes "
        "block_size skip_mm_profiling distributed_executor_backend compilation_config "
        "additional_config",
        "EngineArgs.create_engine_config": "self",
    },
    "sampling_params.py": {
        "SamplingParams": "* max_tokens temperature top_p top_k min_p repetition_penalty stop "
        "ignore_eos output_kind seed"
    },
    "renderers/registry.py": {"renderer_from_config": "config"},
    "renderers/params.py": {"ChatParams": "* chat_template chat_template_kwargs"},
    "renderers/base.py": {
        "BaseRenderer.render_cmpl": "self prompts tok_params",
        "BaseRenderer.render_messages": "self messages params",
        "BaseRenderer.get_tokenizer": "self",
    },
    "renderers/inputs/preprocess.py": {"parse_model_prompt": "model_config prompt"},
    "v1/engine/async_llm.py": {
        "AsyncLLM.from_engine_args": "cls engine_args",
        "AsyncLLM.generate": "self prompt sampling_params request_id",
        "AsyncLLM.shutdown": "self",
    },
    "v1/engine/output_processor.py": {
        "OutputProcessor.process_outputs": "self engine_core_outputs"
    },
    "model_executor/models/idefics3.py": {
        "Idefics3ProcessingInfo.get_num_patches": "self * image_width image_height processor "
        "mm_kwargs"
    },
    "model_executor/models/qwen2_5_vl.py": {
        "Qwen2_5_VisionMLP.__init__": "self in_features hidden_features",
        "Qwen2_5_VisionMLP.forward": "self x",
    },
    "plugins/__init__.py": {"load_general_plugins": ""},
    "v1/executor/abstract.py": {"Executor.determine_available_memory": "self"},
}
# What is looked at or set, or has only to be there.
THERE = {
    "engine/arg_utils.py": {"AsyncEngineArgs": ""},
    "entrypoints/llm.py": {"LLM": ""},
    "exceptions.py": {"VLLMValidationError": ""},
    "multimodal/inputs.py": {"PlaceholderRange": "offset length"},
    "outputs.py": {"RequestOutput": "outputs", "CompletionOutput": "text token_ids finish_reason"},
    "platforms/interface.py": {"Platform": "is_cpu is_unspecified get_device_name"},
    "renderers/base.py": {"BaseRenderer": "default_chat_tok_params"},
    "renderers/params.py": {"TokenizeParams": "add_special_tokens max_total_tokens"},
    "sampling_params.py": {"RequestOutputKind": "FINAL_ONLY"},
    "v1/engine/async_llm.py": {"AsyncLLM": "errored renderer output_processor"},
    "v1/engine/exceptions.py": {"EngineDeadError": ""},
    "v1/executor/uniproc_executor.py": {"UniProcExecutor": ""},
    "model_executor/models/qwen2_5_vl.py": {"Qwen2_5_VisionMLP": "gate_up_proj down_proj act_fn"},
}
TEXTS = {
    "plugins/__init__.py": ('"vllm.general_plugins"',),
    "distributed/device_communicators/shm_broadcast.py": ("shared_memory.SharedMemory(",),
    "model_executor/layers/quantization/__init__.py": ("QUANTIZATION_METHODS",),
    "envs.py": (
        *("VLLM_CACHE_ROOT", "VLLM_HOST_IP", "VLLM_PORT", "VLLM_RPC_BASE_PATH"),
        *("VLLM_NO_USAGE_STATS", "VLLM_WORKER_MULTIPROC_METHOD", "VLLM_CPU_OMP_THREADS_BIND"),
    ),
}


def changes(package: Path) -> list[str]:
    """What the vLLM in this folder lacks of what is used, each as one line; empty where all is there."""
    found: list[str] = []
    for file in sorted({*CALLED, *THERE, *TEXTS}):
        try:
            text = (package / file).read_text(encoding="utf-8")
        except OSError:
            found.append(f"{file}: is not there")
            continue
        known = dict(_definitions(ast.parse(text)))
        for name, arguments in CALLED.get(file, {}).items():
            found += [f"{file}: {name}: {why}" for why in _uncallable(known, name, arguments)]
        for name, members in THERE.get(file, {}).items():
            there = _members(known, name)
            if name not in known:
                found.append(f"{file}: {name}: is not there")
            found += [f"{file}: {name}: has no {m}" for m in members.split() if m not in there]
        found += [f"{file}: has no {part}" for part in TEXTS.get(file, ()) if part not in text]
    return found


def _definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, f"{prefix}{node.name}.")


def _uncallable(known: dict[str, Definition], name: str, arguments: str) -> Iterator[str]:
    """Why this cannot be called so any longer."""
    by_place, _, by_name = (part.split() for part in arguments.partition("*"))
    node = known.get(name)
    if node is None:
        yield "is not there"
    elif isinstance(node, ast.ClassDef):
        fields = {f.target.id: f.value is not None for f in _fields(node)}
        yield from (f"takes no {n}" for n in by_name if n not in fields)
        yield from (
            f"needs {n}" for n, default in fields.items() if not default and n not in by_name
        )
    else:
        given = node.args
        places = [a.arg for a in (*given.posonlyargs, *given.args)]
        names = {*places, *(a.arg for a in given.kwonlyargs)}
        if places[: len(by_place)] != by_place:
            yield f"takes ({', '.join(places)})"
        if not given.kwarg:
            yield from (f"takes no {n}" for n in by_name if n not in names)
        needed = places[: len(places) - len(given.defaults)]
        needed += [
            a.arg for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is None
        ]
        yield from (f"needs {n}" for n in needed if n not in {*by_place, *by_name})


def _fields(node: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield field


def _members(known: dict[str, Definition], name: str) -> set[str]:
    """All that is defined or set in a class."""
    node = known.get(name)
    found = {other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == name}
    for part in ast.walk(node) if node else ():
        targets = part.targets if isinstance(part, ast.Assign) else []
        if isinstance(part, ast.AnnAssign):
            targets = [part.target]
        for target in targets:
            found.add(target.id if isinstance(target, ast.Name) else getattr(target, "attr", ""))
    return found


if __name__ == "__main__":
    print("\n".join(changes(Path(sys.argv[1]))) or "nothing that is used has changed")
