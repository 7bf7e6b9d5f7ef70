"""Arguments of vLLM that recaption has keys for; they cannot be given in model.engine."""

from __future__ import annotations

KEYS = {  # argument of vLLM → the key to use instead
    "model": "model.path or model.repo",
    "tokenizer": "model.path or model.repo",
    "hf_config_path": "model.path or model.repo",
    "revision": "model.revision",
    "tokenizer_revision": "model.revision",
    "code_revision": "model.revision",
    "download_dir": "model.cache",
    "hf_token": "HF_TOKEN in launch's environment",
    "load_format": "model.load_format",
    "dtype": "model.dtype",
    "quantization": "model.quantization",
    "trust_remote_code": "model.trust_remote_code",
    "max_model_len": "model.max_model_len",
    "mm_processor_kwargs": "model.processor",
    "max_num_seqs": "engine.max_num_seqs",
    "max_num_batched_tokens": "engine.max_num_batched_tokens",
    "gpu_memory_utilization": "engine.gpu_memory_utilization",
    "enforce_eager": "engine.enforce_eager",
    "tensor_parallel_size": "engine.tensor_parallel",
    "data_parallel_size": "engine.replicas",
    "seed": "sampling.seed",
    "generation_config": "sampling",
    "override_generation_config": "sampling",
}
