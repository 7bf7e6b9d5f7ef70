"""A model folder with the real dimensions of a known vision-language model, and no weights.

    python benchmarks/make_model.py qwen2.5-vl-7b FOLDER

Speed does not depend on what the weights are, so vLLM with `load_format=dummy` measures such a folder
as it would the real model, on a machine without a network. The configuration is the published one; the
vocabulary is made up: special tokens at their published ids, one token for each of a few hundred
English words, and fillers, so that every id below `vocab_size` decodes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vocabulary

from recaption.bench import roofline

Json = dict[str, Any]

CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

QWEN_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
QWEN3_5_IDS = {
    "image_token_id": 248056,
    "video_token_id": 248057,
    "vision_start_token_id": 248053,
    "vision_end_token_id": 248054,
}
QWEN_TEMPLATE = """\
{%- for message in messages -%}
{%- if DEFAULT_SYSTEM and loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- else -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
THOUGHTS = """\
{%- if add_generation_prompt -%}
{{- '<think>\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""
LLAVA_TEMPLATE = """\
{%- for message in messages -%}
{{- '[INST] ' if message['role'] == 'user' else ' ' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{{- part['text'] if part['type'] == 'text' else '<image>\\n' -}}
{%- endfor -%}
{%- endif -%}
{{- ' [/INST]' if message['role'] == 'user' else '</s>' -}}
{%- endfor -%}
"""

# Each is one token, alone and after a space; other words fall into pieces of these.


def qwen2_5(
    vocab: int,
    tied: bool,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv: int,
    vision_inner: int = 3420,
) -> Json:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        **QWEN_IDS,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "max_position_embeddings": 128000,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "rope_theta": 1000000.0,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "vocab_size": vocab,
        "vision_config": {
            "depth": 32,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "hidden_act": "silu",
            "hidden_size": 1280,
            "in_chans": 3,
            "intermediate_size": vision_inner,
            "num_heads": 16,
            "out_hidden_size": hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
        },
    }


def qwen3(big_vision: bool, tied: bool, hidden: int, inner: int, layers: int, heads: int) -> Json:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **QWEN_IDS,
        "tie_word_embeddings": tied,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "intermediate_size": inner,
            "max_position_embeddings": 262144,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": tied,
            "vocab_size": 151936,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "deepstack_visual_indexes": [8, 16, 24] if big_vision else [5, 11, 17],
            "depth": 27 if big_vision else 24,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152 if big_vision else 1024,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 4304 if big_vision else 4096,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": hidden,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def qwen3_moe() -> Json:
    """Qwen3-VL-30B-A3B: the language model is Qwen3-30B-A3B's, the encoder that of the 8B."""
    config = qwen3(True, False, 2048, 6144, 48, 32)
    config |= {"architectures": ["Qwen3VLMoeForConditionalGeneration"]}
    config |= {"model_type": "qwen3_vl_moe"}
    config["text_config"] |= {
        "model_type": "qwen3_vl_moe_text",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 4,
    }
    config["vision_config"]["model_type"] = "qwen3_vl_moe"
    return config


def qwen3_5() -> Json:
    """Qwen3.5-9B: three layers of linear attention to one of full attention."""
    vision = qwen3(True, False, 4096, 12288, 32, 16)["vision_config"]
    del vision["deepstack_visual_indexes"]
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        **QWEN3_5_IDS,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_5_text",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_output_gate": True,
            "eos_token_id": 248044,
            "full_attention_interval": 4,
            "head_dim": 256,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 12288,
            "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "mamba_ssm_dtype": "float32",
            "max_position_embeddings": 262144,
            "num_attention_heads": 16,
            "num_hidden_layers": 32,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "mrope_interleaved": True,
                "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10000000,
                "rope_type": "default",
            },
            "tie_word_embeddings": False,
            "vocab_size": 248320,
        },
        "vision_config": {**vision, "model_type": "qwen3_5"},
    }


def llava_mistral() -> Json:
    return {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_token_index": 32000,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "use_image_newline_parameter": True,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "vocab_size": 32064,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
    }


MODELS: dict[str, Callable[[], Json]] = {
    "qwen2.5-vl-3b": lambda: qwen2_5(151936, True, 2048, 11008, 36, 16, 2),
    "qwen2.5-vl-7b": lambda: qwen2_5(152064, False, 3584, 18944, 28, 28, 4),
    "qwen2.5-vl-32b": lambda: qwen2_5(152064, False, 5120, 27648, 64, 40, 8, 3456),
    "qwen3-vl-2b": lambda: qwen3(False, True, 2048, 6144, 28, 16),
    "qwen3-vl-4b": lambda: qwen3(False, True, 2560, 9728, 36, 32),
    "qwen3-vl-8b": lambda: qwen3(True, False, 4096, 12288, 36, 32),
    "qwen3-vl-30b-a3b": qwen3_moe,
    "qwen3.5-9b": qwen3_5,
    "llava-1.6-mistral-7b": llava_mistral,
}


def qwen_processors(config: Json) -> dict[str, Json]:
    """The image and the video processor's files, by name."""
    vision = config["vision_config"]
    common = {"patch_size": vision["patch_size"], "temporal_patch_size": 2, "merge_size": 2}
    if config["model_type"] == "qwen2_5_vl":
        common |= {"min_pixels": 3136, "max_pixels": 12845056, **CLIP}
        processor, image, video = (
            "Qwen2_5_VLProcessor",
            "Qwen2VLImageProcessor",
            "Qwen2VLVideoProcessor",
        )
        frames: Json = {}
    else:
        common |= {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, **HALF}
        processor, image, video = (
            "Qwen3VLProcessor",
            "Qwen2VLImageProcessorFast",
            "Qwen3VLVideoProcessor",
        )
        frames = {"size": {"shortest_edge": 4096, "longest_edge": 25165824}}
    common["processor_class"] = processor
    return {
        "preprocessor_config.json": {**common, "image_processor_type": image},
        "video_preprocessor_config.json": {**common, **frames, "video_processor_type": video},
    }


def llava_processors(config: Json) -> dict[str, Json]:
    """The processor's and the image processor's files, by name."""
    side = config["vision_config"]["image_size"]
    image = {
        "processor_class": "LlavaNextProcessor",
        "image_processor_type": "LlavaNextImageProcessor",
        "aspect_ratio_setting": "anyres",
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": config["image_grid_pinpoints"],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
        **CLIP,
    }
    processor = {
        "processor_class": "LlavaNextProcessor",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": config["vision_config"]["patch_size"],
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
    }
    return {"preprocessor_config.json": image, "processor_config.json": processor}


def write(name: str, folder: Path) -> None:
    """Writes the model `name` of MODELS into `folder`, which is made where it is missing."""
    config = MODELS[name]() | {"torch_dtype": "bfloat16", "transformers_version": "4.57.1"}
    if config["model_type"] == "llava_next":
        tokenizer, settings = vocabulary.llava_tokenizer(config["text_config"]["vocab_size"])
        files = llava_processors(config)
        generation: Json = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 32001}
        template = LLAVA_TEMPLATE
    else:
        newer = config["model_type"] == "qwen3_5"
        first = 248044 if newer else 151643
        size = config.get("text_config", config)["vocab_size"]
        tokenizer, settings = vocabulary.qwen_tokenizer(size, first)
        files = qwen_processors(config)
        generation = {
            "bos_token_id": first,
            "eos_token_id": [first + 2, first],
            "pad_token_id": first,
        }
        asks = "true" if config["model_type"] == "qwen2_5_vl" else "false"
        template = QWEN_TEMPLATE.replace("DEFAULT_SYSTEM", asks) + (THOUGHTS if newer else "")
    files |= {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer_config.json": settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(template)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def check(folder: Path) -> int:
    """Loads the folder as an engine would; returns the tokens of a short prompt without its image."""
    from transformers import AutoConfig, AutoTokenizer

    config: Any = AutoConfig.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    size = config.get_text_config().vocab_size
    if len(tokenizer) != size:
        raise SystemExit(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {size}")
    if not all(tokenizer.convert_ids_to_tokens(range(size))) or not tokenizer.decode(range(size)):
        raise SystemExit(f"{folder}: some ids do not decode")
    text = "Describe this image in detail: every object with its size, color and place."
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(prompt)["input_ids"]
    if ids.count(config.image_token_id) != 1:
        raise SystemExit(f"{folder}: not exactly one image token in {prompt!r}")
    return len(ids) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("name", choices=sorted(MODELS))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write(options.name, options.folder)
    text_tokens = check(options.folder)
    model = roofline.load(options.folder)
    if model.config["model_type"] not in roofline.KNOWN:
        print(f"{options.folder}: {options.name}")
        return
    print(f"{options.folder}: {options.name}, {model.parameters / 1e9:.2f} G parameters")
    print(model.cost(640, 480, text_tokens=text_tokens, new_tokens=120).line())


if __name__ == "__main__":
    main()
