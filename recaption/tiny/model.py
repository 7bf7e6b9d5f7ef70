"""The tiny model's parts in the Hugging Face layout: configuration, tokenizer, processor."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from . import text

VOCABULARY = 512
SPECIAL = (
    "<pad>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
)
PAD, START, END, FAKE, IMAGE, GLOBAL = range(len(SPECIAL))
BICUBIC = 3


@dataclass(frozen=True)
class Size:
    """The dimensions of one variant."""

    image: int = 128
    patch: int = 16
    scale: int = 4
    vision_width: int = 160
    vision_layers: int = 5
    width: int = 160
    layers: int = 3

    @property
    def image_tokens(self) -> int:
        """How many tokens of the language model one picture takes."""
        return (self.image // self.patch // self.scale) ** 2


SIZES = {
    "tiny": Size(),
    "dry": Size(vision_width=32, vision_layers=3, width=64, layers=1),
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges are spent on captions first, then on the prompts."""
    rng = random.Random(0)
    corpus = [text.random_caption(rng) for _ in range(400)]
    known = [f" {word}" for word in text.words_of_captions()] * 1000
    prompts = [text.PROMPT_SHORT, text.PROMPT_DETAILED] * 500
    prompts += ["System:", "User:", "Assistant:"] * 500 + [text.SYSTEM, *text.OTHER_PROMPTS] * 20
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(known + prompts + corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[START],
        eos_token=SPECIAL[END],
        additional_special_tokens=list(SPECIAL[FAKE:]),
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        padding_side="left",
    )


def build_processor(size: Size) -> Idefics3Processor:
    """The processor: every picture is squeezed to one square, never split."""
    images = Idefics3ImageProcessorPil(
        do_resize=False,  # the one resize is the squeeze to max_image_size
        size={"longest_edge": size.image},
        max_image_size={"longest_edge": size.image},
        do_image_splitting=False,
        resample=BICUBIC,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    template = Path(__file__).with_name("chat_template.jinja").read_text().rstrip("\n")
    tokenizer = build_tokenizer()
    return Idefics3Processor(
        image_processor=images,
        tokenizer=tokenizer,
        image_seq_len=size.image_tokens,
        chat_template=template,
    )


def build_config(size: Size) -> Idefics3Config:
    """The configuration of one variant."""
    return Idefics3Config(
        image_token_id=IMAGE,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        tie_word_embeddings=True,
        scale_factor=size.scale,
        vision_config={
            "hidden_size": size.vision_width,
            "intermediate_size": 4 * size.vision_width,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_width // 32,
            "image_size": size.image,
            "patch_size": size.patch,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": size.width,
            "intermediate_size": 32 * round(8 * size.width / 96),
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.width // 32,
            "num_key_value_heads": size.width // 32,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "pad_token_id": PAD,
            "bos_token_id": START,
            "eos_token_id": END,
            "tie_word_embeddings": True,
        },
    )


def build_model(size: Size) -> Any:
    """An untrained model of one variant."""
    model: Any = Idefics3ForConditionalGeneration(build_config(size))
    return model


def generation_config() -> GenerationConfig:
    """Greedy, up to the end of the utterance."""
    return GenerationConfig(
        do_sample=False, bos_token_id=START, eos_token_id=END, pad_token_id=PAD, max_new_tokens=96
    )


def export(model: Any, processor: Idefics3Processor, folder: Path) -> None:
    """Writes every file that a loader needs; the weights in bf16."""
    out = copy.deepcopy(model).to(device="cpu", dtype=torch.bfloat16)
    out.generation_config = generation_config()
    out.save_pretrained(folder)
    processor.save_pretrained(folder)
    # Without the suffix, a loader takes torchvision's resize where torchvision is installed.
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"]["image_processor_type"] = "Idefics3ImageProcessorPil"
    path.write_text(json.dumps(config, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)
