"""A hash of a model folder's content that does not read all of the weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".pth")
TEXTS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
ADAPTER = "adapter_"  # prefix of the names of a LoRA adapter's files
BLOCK = 64 << 10
BLOCKS = 64
LONGEST_HEADER = 100 << 20  # safetensors' own bound
SMALL = 64 << 20  # rules 1: weights up to this many bytes are hashed whole


def hash_model(folder: Path, rules: int) -> str:
    """sha256 over config, tokenizer, templates, weight index and adapters, and over each weight
    file's size, header and 64 blocks spread over it; by the rules of 0.1.0 big weights count by
    name and size alone."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in WEIGHTS and path.suffix not in TEXTS:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        if path.suffix in TEXTS or path.name.startswith(ADAPTER):
            whole = True
        else:
            whole = size <= (SMALL if rules == 1 else BLOCK * BLOCKS)
        if whole:
            digest.update(path.read_bytes())
        elif rules > 1:
            with path.open("rb") as file:
                _update(digest, file, size, path.suffix == ".safetensors")
    return digest.hexdigest()


def _update(digest: hashlib._Hash, file: BinaryIO, size: int, safetensors: bool) -> None:
    header = BLOCK
    if safetensors:
        header = 8 + min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER)
        file.seek(0)
    digest.update(file.read(header))
    for n in range(BLOCKS):
        file.seek((size - BLOCK) * n // (BLOCKS - 1))
        digest.update(file.read(BLOCK))
