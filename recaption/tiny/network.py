"""The model's forward passes as the training needs them: no caches, no padding, no waste."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from .heads import patch_loss, token_loss
from .model import PAD
from .prompts import Prompts
from .truth import Truth

READ_AFTER = 3  # the patch heads read behind so many layers of the vision model


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention by plain products: on a CPU, quicker backwards than torch's own for 64 tokens."""
    scores = (query * scaling) @ key.transpose(2, 3)
    if module.is_causal:
        later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -1e4)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


ATTENTION = "recaption"
AttentionInterface.register(ATTENTION, attend)


class Batch(NamedTuple):
    """Prompts followed by answers, for some of the scenes."""

    ids: Tensor
    image_at: Tensor
    answer_at: Tensor
    answers: Tensor


def assemble(prompts: Prompts, answers: Tensor) -> Batch:
    """Prompts with the fitting answers (-1 behind their ends) behind them."""
    rows, width = answers.shape
    parts = [p.expand(rows, *p.shape[1:]) for p in prompts]
    ids = functional.pad(parts[0], (0, width), value=PAD)
    at = parts[1][:, None] + torch.arange(width)
    return Batch(ids.scatter(1, at, answers.clamp(min=PAD)), parts[2], parts[1], answers)


def see(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (bytes, channels first) as embeddings for the language model, and the patches."""
    vision = model.model.vision_model
    weight = vision.embeddings.patch_embedding.weight
    side = weight.shape[-1]
    values = (pixels.float() / 127.5 - 1).to(weight.dtype)
    patches = values.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5)
    hidden = functional.linear(
        patches.flatten(3).flatten(1, 2),
        weight.flatten(1),
        vision.embeddings.patch_embedding.bias,
    )
    hidden = hidden + vision.embeddings.position_embedding.weight
    read = hidden
    for number, layer in enumerate(vision.encoder.layers, 1):
        out = layer(hidden, attention_mask=None)
        hidden = out[0] if isinstance(out, tuple) else out
        read = hidden if number == READ_AFTER else read
    return model.model.connector(vision.post_layernorm(hidden)), read


def follow(model: Any, seen: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The logits for each token of the answers, and what the last layer is given of all tokens."""
    language = model.model.text_model
    hidden = language.embed_tokens(batch.ids)
    places = batch.image_at[:, None] + torch.arange(seen.shape[1])
    places = places[..., None].expand(-1, -1, hidden.shape[2])
    hidden = hidden.scatter(1, places, seen)
    order = torch.arange(hidden.shape[1])[None]
    turns = language.rotary_emb(hidden, order)
    before = hidden
    for layer in language.layers:
        before = hidden
        out = layer(hidden, attention_mask=None, position_ids=order, position_embeddings=turns)
        hidden = out[0] if isinstance(out, tuple) else out
    at = batch.answer_at[:, None] - 1 + torch.arange(batch.answers.shape[1])
    picked = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[2]))
    logits: Tensor = model.lm_head(language.norm(picked))
    return logits, before


def answer_logits(model: Any, seen: Tensor, batch: Batch) -> Tensor:
    """The logits for each token of the answers."""
    return follow(model, seen, batch)[0]


def reading_loss(model: Any, seen: Tensor, batches: list[Batch]) -> Tensor:
    """Cross-entropy over all answers; a batch may be of the first few scenes only."""
    total, count = torch.zeros(()), torch.zeros(())
    for batch in batches:
        logits = answer_logits(model, seen[: len(batch.ids)], batch).float()
        total = total + functional.cross_entropy(
            logits.flatten(0, 1), batch.answers.flatten(), ignore_index=-1, reduction="sum"
        )
        count = count + (batch.answers >= 0).sum()
    return total / count


def looking_loss(
    model: Any, heads: nn.ModuleDict, pixels: Tensor, truth: Truth, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The helpers' loss, and the embeddings. Labels may be of the first scenes only."""
    seen, read = see(model, pixels)
    some = len(labels)
    first = Truth(*(part[:some] for part in truth))
    loss = patch_loss(heads, read[:some], first, labels) + 2 * token_loss(heads, seen, truth)[0]
    return loss, seen
