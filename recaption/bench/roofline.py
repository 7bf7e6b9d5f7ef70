"""The arithmetic that a caption costs, and so the upper bound of images/s for one GPU.

Supports Qwen2.5-VL, Qwen3-VL and LLaVA-NeXT, by their config.json and preprocessor_config.json. Counts
matrix products and attention in bf16, but not norms, activations, sampling, or decoding of pictures.
Vision encoder and prefill are bound by their FLOPs; a decode step by its FLOPs or by the bytes it reads
(the weights once per step, the KV cache of every sequence), whichever takes longer.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# by device name: bf16 matrix products per second, and bytes/s of its memory, both as measured
RATES = {"NVIDIA H200": (790e12, 4.3e12)}
FLOPS, BANDWIDTH = RATES["NVIDIA H200"]
KNOWN = ("qwen2_5_vl", "qwen3_vl", "llava_next")
BYTES = 2  # of a weight, key or value in bf16


@dataclass(frozen=True)
class Cost:
    """One picture: tokens, FLOPs of each phase, and the bytes read while its caption is decoded."""

    image_tokens: int
    vision_flops: float
    prefill_flops: float
    decode_flops: float
    decode_bytes: float

    def images_per_second(self, flops: float = FLOPS, bandwidth: float = BANDWIDTH) -> float:
        """The ceiling of one GPU that does `flops` per second and reads `bandwidth` bytes per second."""
        decode = max(self.decode_flops / flops, self.decode_bytes / bandwidth)
        return 1 / ((self.vision_flops + self.prefill_flops) / flops + decode)

    def line(self) -> str:
        return (
            f"{self.image_tokens} image tokens; vision {self.vision_flops / 1e12:.2f}, "
            f"prefill {self.prefill_flops / 1e12:.2f}, decode {self.decode_flops / 1e12:.2f} TFLOP "
            f"and {self.decode_bytes / 1e9:.2f} GB per image: "
            f"at most {self.images_per_second():.1f} images/s"
        )


@dataclass(frozen=True)
class Model:
    """A model as config.json and preprocessor_config.json describe it."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]

    def text(self, key: str) -> int:
        return int(self.config.get("text_config", self.config)[key])

    def vision(self, key: str, default: int = 0) -> int:
        return int(self.config["vision_config"].get(key, default))

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.text("num_attention_heads") * self.head_dim

    @property
    def head_dim(self) -> int:
        if "head_dim" in self.config.get("text_config", {}):
            return self.text("head_dim")
        return self.text("hidden_size") // self.text("num_attention_heads")

    @property
    def text_weights(self) -> int:
        """Weights of the language model's layers."""
        hidden, kv_width = (
            self.text("hidden_size"),
            self.text("num_key_value_heads") * self.head_dim,
        )
        attention = 2 * hidden * (self.query_width + kv_width)
        return self.text("num_hidden_layers") * (
            attention + 3 * hidden * self.text("intermediate_size")
        )

    @property
    def head_weights(self) -> int:
        return self.text("vocab_size") * self.text("hidden_size")

    @property
    def kv_bytes(self) -> int:
        """Bytes that one token takes in the KV cache."""
        heads = self.text("num_key_value_heads")
        return self.text("num_hidden_layers") * 2 * heads * self.head_dim * BYTES

    @property
    def block_weights(self) -> int:
        """Weights of one block of the vision encoder."""
        hidden, inner = self.vision("hidden_size"), self.vision("intermediate_size")
        gated = self.config["model_type"] == "qwen2_5_vl"
        return 4 * hidden * hidden + (3 if gated else 2) * hidden * inner

    @property
    def patch_weights(self) -> int:
        return (
            3
            * self.vision("temporal_patch_size", 1)
            * self.vision("patch_size") ** 2
            * self.vision("hidden_size")
        )

    @property
    def merger_weights(self) -> int:
        """Weights between the vision encoder and the language model, for one image token."""
        if self.config["model_type"] == "llava_next":
            hidden = self.text("hidden_size")
            return (self.vision("hidden_size") + hidden) * hidden
        wide = self.vision("hidden_size") * self.vision("spatial_merge_size") ** 2
        mergers = 1 + len(self.config["vision_config"].get("deepstack_visual_indexes", ()))
        return mergers * wide * (wide + self.vision("out_hidden_size"))

    @property
    def parameters(self) -> int:
        """All parameters but biases, norms and position embeddings: within 0.2% of the whole."""
        embeddings = self.head_weights * (1 if self.config["tie_word_embeddings"] else 2)
        depth = self.vision("depth") or self.vision("num_hidden_layers")
        vision = depth * self.block_weights + self.patch_weights + self.merger_weights
        return self.text_weights + embeddings + vision

    def cost(
        self,
        width: int,
        height: int,
        *,
        text_tokens: int,
        new_tokens: int,
        sequences: int = 512,
        max_pixels: int | None = None,
    ) -> Cost:
        """The cost of a picture of `width` × `height` pixels, with `sequences` decoded together.

        `text_tokens` are those of the prompt around the picture; `max_pixels`, as given to the
        processor, replaces the model's own limit (LLaVA-NeXT has none).
        """
        if self.config["model_type"] == "llava_next":
            image_tokens, vision_flops = self._tiles(width, height)
        else:
            image_tokens, vision_flops = self._patches(width, height, max_pixels)
        prompt = image_tokens + text_tokens
        context = prompt + new_tokens / 2
        layers = self.text("num_hidden_layers")
        read = (self.text_weights + self.head_weights) * BYTES / sequences + context * self.kv_bytes
        return Cost(
            image_tokens=image_tokens,
            vision_flops=vision_flops,
            prefill_flops=2 * prompt * self.text_weights
            + 2 * layers * prompt**2 * self.query_width,
            decode_flops=new_tokens
            * (
                2 * (self.text_weights + self.head_weights)
                + 4 * layers * context * self.query_width
            ),
            decode_bytes=new_tokens * read,
        )

    def _patches(self, width: int, height: int, max_pixels: int | None) -> tuple[int, float]:
        """Image tokens and vision encoder FLOPs for a model that splits the picture into patches."""
        limits = self.preprocessor.get("size", {})
        least = self.preprocessor.get("min_pixels") or limits["shortest_edge"]
        most = max_pixels or self.preprocessor.get("max_pixels") or limits["longest_edge"]
        unit = self.vision("patch_size") * self.vision("spatial_merge_size")
        tall, wide = round(height / unit), round(width / unit)
        pixels = tall * wide * unit**2
        if pixels > most:
            scale = math.sqrt(most / (width * height)) / unit
            tall, wide = max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
        elif pixels < least:
            scale = math.sqrt(least / (width * height)) / unit
            tall, wide = math.ceil(height * scale), math.ceil(width * scale)
        tokens = tall * wide
        depth, rows = self.vision("depth"), tokens * self.vision("spatial_merge_size") ** 2
        full = len(self.config["vision_config"].get("fullatt_block_indexes", range(depth)))
        window = (self.vision("window_size") // self.vision("patch_size")) ** 2
        attended = full * rows + (depth - full) * min(window, rows)
        products = rows * (depth * self.block_weights + self.patch_weights)
        attention = 4 * rows * attended * self.vision("hidden_size")
        return tokens, 2 * (products + tokens * self.merger_weights) + attention

    def _tiles(self, width: int, height: int) -> tuple[int, float]:
        """Image tokens and vision encoder FLOPs for a model that sees the whole picture and tiles."""
        side, grid = (
            self.vision("image_size"),
            self.vision("image_size") // self.vision("patch_size"),
        )

        def fit(point: list[int]) -> tuple[int, int]:
            scale = min(point[1] / width, point[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - point[0] * point[1]

        rows, columns = (
            edge // side * grid for edge in max(self.config["image_grid_pinpoints"], key=fit)
        )
        tiles = 1 + rows * columns // grid**2
        if width / height > columns / rows:
            rows -= (rows - int(round(height * columns / width, 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * rows / height, 7))) // 2 * 2
        tokens = grid**2 + rows * columns + rows
        depth = self.vision("num_hidden_layers") + 1 + int(self.config["vision_feature_layer"])
        patches = grid**2 + 1
        products = patches * (depth * self.block_weights + self.patch_weights)
        attention = 4 * depth * patches**2 * self.vision("hidden_size")
        return tokens, tiles * (2 * products + attention + 2 * grid**2 * self.merger_weights)


def load(folder: Path) -> Model:
    """The model in `folder`; OSError if a file is missing."""
    files = ("config.json", "preprocessor_config.json")
    return Model(*(json.loads((folder / name).read_text()) for name in files))
