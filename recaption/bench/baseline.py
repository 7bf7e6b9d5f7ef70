"""A plain way to recaption shards, as a baseline for comparison; not for use.

DataLoader workers read WebDataset shards, decode each picture, encode it as PNG and hash its
pixels; the main process calls `LLM.generate` on 48 pictures at a time, with tensor parallelism
over all GPUs, and waits for each call; a thread then encodes every picture as JPEG again and
writes it and a JSON file, loose, into one folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image

from recaption.engine.base import Question, Spec
from recaption.engine.devices import visible_gpus

BATCH = 48
WORKERS = 8


def samples(shards: list[str], batch: int = BATCH, workers: int = WORKERS) -> Iterator[list[Any]]:
    """Batches of (hash, PNG bytes) from DataLoader workers, or from this process with none."""
    import torch.utils.data
    import webdataset

    dataset: Any = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    dataset = dataset.map(_encode).batched(batch, collation_fn=list)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
    yield from loader


def _encode(sample: dict[str, Any]) -> tuple[str, bytes]:
    picture = PIL.Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return hashlib.sha1(picture.tobytes()).hexdigest(), out.getvalue()


class Saver:
    """The thread that writes a JPEG and a JSON file per picture."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.queue: queue.Queue[tuple[str, PIL.Image.Image, str] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join()

    def _run(self) -> None:
        while (item := self.queue.get()) is not None:
            name, picture, caption = item
            picture.save(self.folder / f"{name}.jpg", "JPEG")
            (self.folder / f"{name}_caption.json").write_text(json.dumps({"caption": caption}))


def run(spec: Spec, shards: list[str], folder: Path, most: int) -> dict[str, Any]:
    """Caption `most` samples, in whole batches; returns images, seconds and tokens.

    The first batch is not counted, since it waits for the readers to fill their queues. The shards are
    divided among the workers, so there should be as many shards as WORKERS.
    """
    from recaption.engine.vllm import VllmRenderer, whole_model
    from recaption.engine.without_device import MARK

    renderer = VllmRenderer(spec)
    questions = [Question(p.name, p.system, p.text) for p in spec.prompts]
    prompts = [renderer.template(q).replace(MARK, q.text.strip()) for q in questions]
    model = whole_model(spec, max(1, len(visible_gpus())))
    saver = Saver(folder)

    def caption(batch: list[Any]) -> int:
        pictures = [PIL.Image.open(io.BytesIO(png)).convert("RGB") for _, png in batch]
        tokens = 0
        for prompt in prompts:
            answers = model(prompt, pictures)
            for (name, _), picture, (text, _) in zip(batch, pictures, answers, strict=True):
                saver.queue.put((name, picture, text))
            tokens += sum(count for _, count in answers)
        return tokens

    batches = samples(shards)
    caption(next(batches))
    images = tokens = 0
    started = time.monotonic()
    for batch in batches:
        tokens += caption(batch)
        images += len(batch)
        if images >= most:
            break
    saver.close()
    return {"images": images, "seconds": time.monotonic() - started, "tokens": tokens}


if __name__ == "__main__":
    # Runs as a process with SPEC.json, output folder, count and shards; prints JSON as its last line.
    read = Spec.from_json(Path(sys.argv[1]).read_text())
    measured = run(read, sys.argv[4:], Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(measured), flush=True)
