"""The training loop: scenes and prompts live on the GPU, batches are put together there."""

from __future__ import annotations

import argparse
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from . import data, text
from .model import FAKE, GLOBAL, IMAGE, PAD, Size, build_model

MAIN_PROMPT = 52  # tokens of the longest prompt in the main part of a batch
LONG_PROMPT = 256
Losses = Callable[..., tuple[Tensor, Tensor]]
LONG_SHARE = 8  # one sample in so many has a prompt from the long pool


@dataclass
class Trained:
    """What training gives."""

    model: Any
    summary: dict[str, str]


@dataclass
class Prompts:
    """Rendered prompts: tokens, their number, the first image token, and short or detailed."""

    ids: Tensor
    lengths: Tensor
    image_at: Tensor
    kinds: Tensor


class Batch(NamedTuple):
    """One part of a batch: prompts followed by answers."""

    ids: Tensor
    image_at: Tensor
    answer_at: Tensor
    answers: Tensor


class Scenes:
    """The scenes drawn so far, on the device; a thread adds what arrives."""

    def __init__(self, capacity: int, side: int, folder: Path, device: torch.device) -> None:
        self.pictures = torch.empty((capacity, side, side, 3), dtype=torch.uint8, device=device)
        self.tokens = torch.empty((capacity, 4, data.ANSWER), dtype=torch.int16, device=device)
        self.count = 0
        self.folder = folder
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._fill, daemon=True)

    def _fill(self) -> None:
        while not self.stopped.is_set():
            for pictures, tokens in data.collect(self.folder):
                number = min(len(pictures), len(self.pictures) - self.count)
                if self.stopped.is_set() or number == 0:
                    continue
                rows = slice(self.count, self.count + number)
                self.pictures[rows] = torch.from_numpy(pictures[:number]).to(self.pictures.device)
                self.tokens[rows] = torch.from_numpy(tokens[:number]).to(self.tokens.device)
                self.count += number
            self.stopped.wait(0.2)


def render(processor: Any, size: Size, messages: list[dict[str, object]]) -> list[int]:
    """The tokens of a conversation as the processor would make them."""
    template = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids: list[int] = processor.tokenizer(template, add_special_tokens=False)["input_ids"]
    at = ids.index(IMAGE)
    return [*ids[:at], FAKE, GLOBAL, *[IMAGE] * size.image_tokens, FAKE, *ids[at + 1 :]]


def make_prompts(
    processor: Any, size: Size, count: int, device: torch.device
) -> tuple[Prompts, Prompts]:
    """The main pool (the two prompts) and the long pool (all others, and odd forms of the two)."""
    rng = random.Random(3)
    known = (text.PROMPT_SHORT, text.PROMPT_DETAILED)
    plain: list[tuple[list[int], int]] = []
    for kind, prompt in enumerate(known):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        row = render(processor, size, [{"role": "user", "content": content}])
        plain += [(row, kind)] * 40
        for _ in range(60):
            row = render(processor, size, text.conversation(rng, prompt))
            plain += [(row, kind)] if len(row) <= MAIN_PROMPT else []
    plain = balanced(plain)
    other: list[tuple[list[int], int]] = []
    while len(other) < count:
        kind = int(rng.random() < 0.5)
        is_known = rng.random() < 0.25
        prompt = known[kind] if is_known else text.other_prompt(rng)
        row = render(processor, size, text.conversation(rng, prompt))
        if len(row) <= LONG_PROMPT:
            other.append((row, kind if is_known else 0))
    return stack(plain, MAIN_PROMPT, device), stack(other, LONG_PROMPT, device)


def balanced(rows: list[tuple[list[int], int]]) -> list[tuple[list[int], int]]:
    """As many rows of one kind as of the other."""
    parts = [[row for row in rows if row[1] == kind] for kind in (0, 1)]
    number = min(len(part) for part in parts)
    return parts[0][:number] + parts[1][:number]


def stack(rows: list[tuple[list[int], int]], width: int, device: torch.device) -> Prompts:
    """Prompts as padded tensors."""
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row, _ in rows], device=device)
    lengths = torch.tensor([len(row) for row, _ in rows], device=device)
    image_at = torch.tensor([row.index(IMAGE) for row, _ in rows], device=device)
    return Prompts(ids, lengths, image_at, torch.tensor([k for _, k in rows], device=device))


def assemble(prompts: Prompts, rows: Tensor, answers4: Tensor, mirror: Tensor) -> Batch:
    """Prompts with the fitting answers behind them."""
    number = torch.arange(len(rows), device=rows.device)
    answers = answers4[number, prompts.kinds[rows] + 2 * mirror].long()
    ids = functional.pad(prompts.ids[rows], (0, data.ANSWER), value=PAD)
    at = prompts.lengths[rows, None] + torch.arange(data.ANSWER, device=rows.device)
    ids = ids.scatter(1, at, answers.clamp(min=PAD))
    return Batch(ids, prompts.image_at[rows], prompts.lengths[rows], answers)


def see(model: Any, pixels: Tensor) -> Tensor:
    """Pictures in [-1, 1] as embeddings for the language model."""
    vision = model.model.vision_model
    hidden = vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    hidden = hidden + vision.embeddings.position_embedding.weight
    for layer in vision.encoder.layers:
        out = layer(hidden, attention_mask=None)
        hidden = out[0] if isinstance(out, tuple) else out
    seen: Tensor = model.model.connector(vision.post_layernorm(hidden))
    return seen


def answer_logits(model: Any, seen: Tensor, batch: Batch) -> Tensor:
    """The logits for each token of the answers."""
    language = model.model.text_model
    hidden = language.embed_tokens(batch.ids)
    places = batch.image_at[:, None] + torch.arange(seen.shape[1], device=seen.device)
    places = places[..., None].expand(-1, -1, hidden.shape[2])
    hidden = hidden.scatter(1, places, seen.to(hidden.dtype))
    order = torch.arange(hidden.shape[1], device=hidden.device)[None]
    turns = language.rotary_emb(hidden, order)
    for layer in language.layers:
        out = layer(hidden, attention_mask=None, position_ids=order, position_embeddings=turns)
        hidden = out[0] if isinstance(out, tuple) else out
    at = batch.answer_at[:, None] - 1 + torch.arange(data.ANSWER, device=hidden.device)
    picked = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[2]))
    logits: Tensor = model.lm_head(language.norm(picked))
    return logits


def normalize(pictures: Tensor, mirror: Tensor, noise: float) -> Tensor:
    """Bytes to [-1, 1], mirrored where asked, with a little noise and a slight cast."""
    pixels = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    pixels = torch.where(mirror[:, None, None, None].bool(), pixels.flip(3), pixels)
    if noise:
        cast = (torch.rand_like(pixels[:, :, :1, :1]) - 0.5) * (6 / 127.5)
        level = torch.rand_like(pixels[:, :1, :1, :1]) * (noise / 127.5)
        pixels = pixels + cast + level * torch.randn_like(pixels)
    return pixels


def losses(
    model: Any, pictures: Tensor, mirror: Tensor, main: Batch, long: Batch, noise: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over all answers, and the share of main answers right at every token."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        seen = see(model, normalize(pictures, mirror, noise))
        first = answer_logits(model, seen[: len(main.ids)], main)
        second = answer_logits(model, seen[len(main.ids) :], long)
    logits = torch.cat([first, second]).float()
    targets = torch.cat([main.answers, long.answers])
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    right = (first.argmax(-1) == main.answers) | (main.answers < 0)
    return loss, right.all(1).float().mean()


def optimizer_for(model: Any, rate: float, fused: bool) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=fused)


def train(
    args: argparse.Namespace, size: Size, processor: Any, folder: Path, begin: float
) -> Trained:
    """Trains until the time or the steps are used up."""
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = build_model(size).to(device).train()
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = optimizer_for(model, args.rate, device.type == "cuda")
    main_pool, long_pool = make_prompts(processor, size, args.prompts, device)
    scenes = Scenes(args.scenes, size.image, folder, device)
    scenes.thread.start()
    print(f"{parameters} parameters, ready after {time.monotonic() - begin:.0f} s", flush=True)
    while scenes.count < args.first:
        time.sleep(0.1)
    long_size = max(1, args.batch // LONG_SHARE)
    main_size = args.batch - long_size
    run: Losses = torch.compile(losses, dynamic=False) if args.compile else losses

    def one(function: Losses, low: int, high: int, noise: float) -> tuple[Tensor, Tensor]:
        rows = torch.randint(low, high, (args.batch,), device=device)
        mirror = torch.randint(0, 2, (args.batch,), device=device)
        tokens = scenes.tokens[rows]
        which = torch.randint(len(main_pool.ids), (main_size,), device=device)
        other = torch.randint(len(long_pool.ids), (long_size,), device=device)
        main = assemble(main_pool, which, tokens[:main_size], mirror[:main_size])
        long = assemble(long_pool, other, tokens[main_size:], mirror[main_size:])
        return function(model, scenes.pictures[rows], mirror, main, long, noise)

    step, progress, start = 0, 0.0, time.monotonic()
    held = min(1000, args.first // 4)  # the first scenes are never trained on
    while progress < 1:
        warm = min(1.0, (step + 1) / 500)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * (0.002 + 0.499 * (1 + math.cos(math.pi * progress)))
        try:
            loss, right = one(run, held, scenes.count, 3.0)
            loss.backward()
        except Exception as error:
            if step or run is losses:
                raise
            print(f"compiling failed, going on without: {error!r:.300}", flush=True)
            run = losses
            optimizer.zero_grad(set_to_none=True)
            continue
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 500 == 0 or step in (1, 20, 100):
            with torch.no_grad():
                fresh = sum(one(losses, 0, held, 0.0)[1].item() for _ in range(2)) / 2
            print(
                f"{step} steps, {time.monotonic() - begin:.0f} s, {scenes.count} scenes, "
                f"loss {loss.item():.4f}, right {right.item():.3f}, held out {fresh:.3f}",
                flush=True,
            )
        elif step % 20 == 0:
            loss.item()  # keeps the queue of kernels short, so that the clock is right
        progress = max(step / args.steps, (time.monotonic() - begin) / args.seconds)
    scenes.stopped.set()
    scenes.thread.join()
    summary = {
        "parameters": f"{parameters:,}",
        "steps": f"{step:,}",
        "batch": str(args.batch),
        "scenes": f"{scenes.count - held:,}",
        "minutes": f"{(time.monotonic() - start) / 60:.1f}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
    }
    return Trained(model.eval(), summary)
