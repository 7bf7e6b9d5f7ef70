"""Trains the tiny model: `python -m recaption.tiny.train --out DIR`.

Drawing starts at once in other processes; this module imports nothing heavy at its top, since
those processes import it again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path


def arguments(values: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="recaption.tiny.train", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the model's files")
    add("--size", default="fine", help="variant, see recaption.tiny.model.SIZES")
    add("--seconds", type=float, default=400, help="time for training, drawing included")
    add("--steps", type=int, default=10**9, help="most steps, should they come first")
    add("--batch", type=int, default=512)
    add("--rate", type=float, default=2e-3, help="peak learning rate")
    add("--scenes", type=int, default=900_000, help="most scenes kept in the GPU's memory")
    add("--first", type=int, default=8_000, help="scenes to wait for before the first step")
    add("--workers", type=int, default=14, help="drawing processes")
    add("--prompts", type=int, default=20_000, help="different other prompts")
    add("--evaluate", type=int, default=2_000, help="scenes for each row of the evaluation")
    add("--seed", type=int, default=1)
    add("--no-compile", dest="compile", action="store_false")
    add("--device", default=None)
    return parser.parse_args(values)


def main(values: list[str] | None = None) -> int:
    """Draws, trains, exports, evaluates, and writes the model card."""
    begin = time.monotonic()
    args = arguments(values)
    from . import model

    size = model.SIZES[args.size]
    processor = model.build_processor(size)
    from . import data

    with tempfile.TemporaryDirectory(prefix="scenes-") as folder:
        coder = processor.tokenizer.backend_tokenizer.to_str()
        drawers = data.start(Path(folder), args.workers, args.seed, coder, size.image, model.END)
        from . import learn

        try:
            trained = learn.train(args, size, processor, Path(folder), begin)
        finally:
            for process in drawers:
                process.terminate()
            for process in drawers:
                process.join()
    model.export(trained.model, processor, args.out)
    print(f"exported after {time.monotonic() - begin:.0f} s", flush=True)
    from . import evaluate

    rows = evaluate.evaluate(args.out, args.evaluate, args.workers + 2, args.device)
    evaluate.write_card(args.out, rows, trained.summary)
    print(f"done after {time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
