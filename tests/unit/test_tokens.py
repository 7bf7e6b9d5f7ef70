"""What each preset's comment says of a picture's tokens, by running its processor.

The processors are the real ones, with the settings of their repositories; only the tokenizers are
small ones of their special tokens, so that nothing is downloaded.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image
from tokenizers import Tokenizer, models
from transformers.models.smolvlm import processing_smolvlm
from transformers.processing_utils import ProcessorMixin

from recaption.config.compose import compose_config, conf_dir, to_config
from recaption.model.files import model_folder
from recaption.prepare.picture import capped

SIZES = ((640, 480), (1024, 1024), (1600, 1200), (720, 1280))
ALL = sorted(p.stem for p in (conf_dir() / "model").glob("*.yaml") if p.stem != "custom")
FOREIGN = {"minicpm-v-4.5", "molmo2-8b"}  # their processors are code of their repositories
PRESETS = [name for name in ALL if name not in FOREIGN]


@dataclass(frozen=True)
class Family:
    """A processor and its image processor, with what their repositories' settings say."""

    processor: str
    pictures: str
    settings: dict[str, Any]
    own: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # that the tokenizer has to name
    image: str = "<image>"  # counted
    asked: str = ""  # stands for a picture in a text, where the counted one does not
    others: tuple[str, ...] = ()


def qwen(number: str, patch: int, least: int, most: int) -> Family:
    return Family(
        f"qwen{number}_vl.processing_qwen{number}_vl.Qwen{number}_VLProcessor".replace(
            "3_VL", "3VL"
        ),
        "qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil",
        {"patch_size": patch, "size": {"shortest_edge": least, "longest_edge": most}},
        image="<|image_pad|>",
        others=("<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
    )


FAMILIES = {
    "qwen2.5-vl": qwen("2_5", 14, 3136, 12_845_056),
    "caprl": qwen("2_5", 14, 3136, 12_845_056),
    "qwen3.5": qwen("3", 16, 65_536, 16_777_216),
    "qwen3-vl": qwen("3", 16, 65_536, 16_777_216),
    "gemma-3": Family(
        "gemma3.processing_gemma3.Gemma3Processor",
        "gemma3.image_processing_pil_gemma3.Gemma3ImageProcessorPil",
        {"size": {"height": 896, "width": 896}},
        {"image_seq_length": 256},
        {
            "boi_token": "<start_of_image>",
            "image_token": "<image_soft_token>",
            "eoi_token": "<end_of_image>",
        },
        image="<image_soft_token>",
        asked="<start_of_image>",
    ),
    "internvl3": Family(
        "internvl.processing_internvl.InternVLProcessor",
        "got_ocr2.image_processing_pil_got_ocr2.GotOcr2ImageProcessorPil",
        {"size": {"height": 448, "width": 448}, "min_patches": 1, "max_patches": 12},
        {"image_seq_length": 256},
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        image="<IMG_CONTEXT>",
    ),
    "llava-1.6": Family(
        "llava_next.processing_llava_next.LlavaNextProcessor",
        "llava_next.image_processing_pil_llava_next.LlavaNextImageProcessorPil",
        {
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        },
        {
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "llava-onevision": Family(
        "llava_onevision.processing_llava_onevision.LlavaOnevisionProcessor",
        "llava_onevision.image_processing_pil_llava_onevision.LlavaOnevisionImageProcessorPil",
        {"size": {"height": 384, "width": 384}},
        {"num_image_tokens": 729, "vision_feature_select_strategy": "full"},
        others=("<video>",),
    ),
    "joycaption": Family(
        "llava.processing_llava.LlavaProcessor",
        "siglip.image_processing_pil_siglip.SiglipImageProcessorPil",
        {"size": {"height": 384, "width": 384}},
        {"patch_size": 14, "vision_feature_select_strategy": "full"},
    ),
    "smolvlm2": Family(
        "smolvlm.processing_smolvlm.SmolVLMProcessor",
        "smolvlm.image_processing_pil_smolvlm.SmolVLMImageProcessorPil",
        {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}},
        {"image_seq_len": 81, "video_processor": None},
        {
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    ),
    "smolvlm": Family(
        "idefics3.processing_idefics3.Idefics3Processor",
        "idefics3.image_processing_pil_idefics3.Idefics3ImageProcessorPil",
        {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
        {"image_seq_len": 64},
        others=("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    ),
}


GEMMA4 = "gemma4.image_processing_pil_gemma4.Gemma4ImageProcessorPil"


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)


def processor_of(family: Family) -> Any:
    special = [family.image, *family.tokens.values(), *family.others]
    words = {word: n for n, word in enumerate(dict.fromkeys(["?", *special]))}
    small = Tokenizer(models.WordLevel(words, unk_token="?"))
    small.add_special_tokens(list(words)[1:])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=small, unk_token="?", pad_token="?", extra_special_tokens=family.tokens
    )
    pictures = named(family.pictures)(**family.settings)
    return named(family.processor)(image_processor=pictures, tokenizer=tokenizer, **family.own)


def tokens(preset: str) -> list[int]:
    """Image tokens of pictures of SIZES, capped and processed as the preset says."""
    words = [f"model={preset}", "data.shards=a", "data.name=a", "output.dir=b"]
    model = to_config(compose_config(words)).model
    options = {k: v for k, v in model.processor.items() if k != "backend"}
    pictures = [capped(Image.new("RGB", size, "teal"), model.max_pixels) for size in SIZES]
    if preset.startswith("gemma-4"):  # the rest of its processor cannot do without torchvision
        made = named(GEMMA4)()(pictures, **options)
        return [int(n) for n in made["num_soft_tokens_per_image"]]
    if preset == "tiny":
        family = FAMILIES["smolvlm"]
        processor = transformers.Idefics3Processor.from_pretrained(model_folder(model.path))
    else:
        family = next(f for name, f in FAMILIES.items() if preset.startswith(name))
        processor = processor_of(family)
    counted = processor.tokenizer.convert_tokens_to_ids(family.image)
    found = []
    for picture in pictures:
        made = processor(images=[picture], text=[family.asked or family.image], **options)
        found.append(int((np.asarray(made["input_ids"][0]) == counted).sum()))
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_how_many_tokens_pictures_have(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A processor of videos, which some ask for, needs torchvision.
    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *given: None)
    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # for its videos; not installed here
    found = tokens(preset)
    stated = ", ".join(f"{w}×{h} {n:,}" for (w, h), n in zip(SIZES, found, strict=True))
    text = Path(conf_dir() / "model" / f"{preset}.yaml").read_text()
    assert f"# Image tokens: {stated}.\n" in text


def test_internvl_makes_six_tiles_and_a_thumbnail_at_most() -> None:
    """Its processor alone would make twelve."""
    text = (conf_dir() / "model" / "internvl3-8b.yaml").read_text()
    most = max(int(n.replace(",", "")) for n in re.findall(r"×\d+ ([\d,]+)", text.split("\n")[1]))
    assert most == (6 + 1) * 256
