"""Imports vLLM and prints what it sees as JSON; a separate process, since it is slow and may die."""

from __future__ import annotations

import json


def main() -> None:
    import torch

    import recaption.engine.vllm  # noqa: F401 - whether it can be imported is the question

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(json.dumps({"cuda": torch.version.cuda, "gpus": gpus}))


if __name__ == "__main__":
    main()
