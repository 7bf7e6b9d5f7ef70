"""Made-up tokenizers that encode short English texts to about as many tokens as the real ones."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from itertools import islice, product
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

Json = dict[str, Any]

QWEN_SPECIAL = (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end"
    " vision_start vision_end vision_pad image_pad video_pad"
).split()
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = """
Describe List Write Rewrite Answer Give Name Look What Which Where Return Caption You The This It Keep
Do Is Are There Image Picture Photo User Assistant system user assistant helpful INST a an the this
that these those it its is are was be been being and or but not no nor if then than as at by for from
in into of on off onto out over under up down to with without within about above across after against
along among around before behind below beneath beside between beyond near next through toward until
only also just very more most least less few several many much some any every each all both either
other another same such own one two three four five six seven eight nine ten twenty first second last
image images picture pictures photo photograph scene caption captions description describe detailed
detail details short brief long single sentence sentences paragraph word words text tag tags comma
commas separated list important object objects person people man woman child face hand animal dog cat
bird horse car road street building house room table chair tree flower grass water sea sky cloud sun
mountain food plate color colors colour colours size sizes shape shapes place position background
foreground left right top bottom middle center centre front back side large small big tiny tall wide
red green blue yellow purple orange black white grey gray brown pink dark light bright circle square
triangle star style mood lighting camera angle visible shown showing seen appear appears wearing
holding standing sitting walking looking current accurate fluent names facts fit correct what missing
add keep write rewrite answer do use using include including avoid must should can may will would who
whose which where when why how me you your they their them he she his her we our i up to at least
""".split()


def trained(
    pieces: pre_tokenizers.PreTokenizer, alphabet: Iterable[str]
) -> tuple[list[str], list[Any]]:
    """Tokens and merges that make each of WORDS one token, alone and after a space."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pieces
    trainer = BpeTrainer(vocab_size=10**5, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator((f"{word} {word}" for word in sorted(set(WORDS))), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), [
        tuple(m) for m in model["merges"]
    ]


def numbered(fixed: dict[int, str], tokens: list[str], space: str, size: int) -> dict[str, int]:
    """`size` tokens with their ids: `fixed` where they belong, then `tokens`, then fillers."""
    taken = {*fixed.values(), *tokens}
    letters = map("".join, product(string.ascii_lowercase, repeat=4))
    fillers = (word for word in (space + four for four in letters) if word not in taken)
    free = [number for number in range(size) if number not in fixed]
    rest = [*tokens, *islice(fillers, len(free) - len(tokens))]
    return {
        **{token: number for number, token in fixed.items()},
        **dict(zip(rest, free, strict=True)),
    }


def qwen_tokenizer(size: int, first: int = 151_643) -> tuple[Tokenizer, Json]:
    """A byte-level tokenizer of `size` ids, with Qwen's special tokens, and its tokenizer_config.json.

    `first` is the id of the first of them; the others follow.
    """
    special = {first + i: f"<|{name}|>" for i, name in enumerate(QWEN_SPECIAL)}
    tokens, merges = trained(pre_tokenizers.ByteLevel(False), pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab=numbered(special, tokens, "Ġ", size), merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special.values()])
    return tokenizer, {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "additional_special_tokens": list(special.values())[1:],
        "model_max_length": 131072,
    }


def llava_tokenizer(size: int) -> tuple[Tokenizer, Json]:
    """A tokenizer of `size` ids in the manner of Llama's, and its tokenizer_config.json."""
    special = {0: "<unk>", 1: "<s>", 2: "</s>", 32000: "<image>", 32001: "<pad>"}
    fixed = special | {3 + byte: f"<0x{byte:02X}>" for byte in range(256)}
    tokens, merges = trained(pre_tokenizers.Metaspace(), [*map(chr, range(33, 127)), "▁"])
    model = BPE(
        vocab=numbered(fixed, tokens, "▁", size),
        merges=merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special.values()]
    )
    return tokenizer, {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "image_token": "<image>",
        "extra_special_tokens": {"image_token": "<image>"},
        "padding_side": "left",
        "model_max_length": 32768,
    }
