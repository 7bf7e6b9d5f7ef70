"""What an engine without a GPU is given."""

from __future__ import annotations

from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor

KV_BYTES = 64 << 20
BLOCK = 32  # tokens; a short prompt fills none of vLLM's 128, and only full ones are shared


def cpu_arguments(tensor_parallel: int) -> dict[str, Any]:
    """vLLM's arguments for its CPU build."""
    arguments: dict[str, Any] = {"enforce_eager": True, "kv_cache_memory_bytes": KV_BYTES}
    arguments |= {"block_size": BLOCK, "skip_mm_profiling": True}  # memory is given anyway
    if tensor_parallel == 1:  # vLLM's choice has the core spin, on a CPU that the model needs
        arguments["distributed_executor_backend"] = UniProcExecutor
    return arguments
