"""What engines are started with: vLLM's arguments, seeds, and environment variables."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from recaption.config.schema import Sampling
from recaption.engine.base import Device, Question, Spec


def arguments_of(spec: Spec, tensor_parallel: int) -> dict[str, Any]:
    """vLLM's arguments for a run, without those that depend on the machine or are in model.engine."""
    model, engine = spec.config.model, spec.config.engine
    return {
        "model": spec.model_path,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "load_format": model.load_format,
        "trust_remote_code": model.trust_remote_code,
        "max_model_len": model.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enforce_eager": engine.enforce_eager,
        "tensor_parallel_size": tensor_parallel,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "mm_processor_kwargs": dict(model.processor) or None,
        "mm_processor_cache_gb": 0,
        "disable_log_stats": True,
        "generation_config": "vllm",
        "seed": 0,
    }


def request_seed(sampling: Sampling, picture: str, question: Question) -> int | None:
    """A separate seed per picture, prompt and try, if sampling is random and has a seed.

    Retries of captions always have a seed; there are few, so that its cost does not matter.
    """
    if question.temperature is None:
        if sampling.seed is None or sampling.temperature == 0:
            return None
    elif question.temperature == 0:
        return None
    text = f"{sampling.seed or 0}/{picture}/{question.name}/{question.attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def environment(device: Device) -> dict[str, str]:
    """Environment of an engine's process: one thread per library, no clashes between engines."""
    port = 20_000 + (os.getppid() * 7 + device.number * 100) % 30_000
    return {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_PORT": str(port),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        **device.environment,
    }
