"""The typed configuration: every key, its type, default, meaning, and the values it allows.

Hydra merges the YAML files of conf/ and the command line into `Config`; `recaption.config.check`
enforces the limits in each field's metadata, and `--help` prints the documentation that is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recaption.config.data_keys import FORMATS, Data, Image, Output
from recaption.config.key import key
from recaption.config.model_keys import (
    FLAGS,
    HARMLESS,
    SCRIPTS,
    Model,
    Prompt,
    Quality,
    Sampling,
)
from recaption.config.onnx import Watermark
from recaption.config.task_keys import Engine, Slurm, Task

__all__ = [
    "FLAGS",
    "FORMATS",
    "HARMLESS",
    "SCRIPTS",
    "Config",
    "Data",
    "Engine",
    "Image",
    "Model",
    "Output",
    "Prompt",
    "Quality",
    "Sampling",
    "Slurm",
    "Task",
]


@dataclass(kw_only=True)
class Config:
    """One run and one submission of it."""

    data: Data = field(default_factory=Data)
    image: Image = field(default_factory=Image)
    model: Model = field(default_factory=Model)
    prompt: Prompt = field(default_factory=Prompt)
    prompts: list[str] | None = key(
        None,
        "Names of several prompt presets that are asked in one pass, such as [short,detailed]; "
        "excludes prompt and prompt.*.",
    )
    sampling: Sampling = field(default_factory=Sampling)
    engine: Engine = field(default_factory=Engine)
    slurm: Slurm = field(default_factory=Slurm)
    task: Task = field(default_factory=Task)
    watermark: Watermark = field(default_factory=Watermark)
    scorers: dict[str, Any] = key(
        {},
        "Further ONNX models that score pictures, by name: scorers.NAME.path, scorers.NAME.kind"
        " and so on; same keys as watermark.",
    )
    quality: Quality = field(default_factory=Quality)
    output: Output = field(default_factory=Output)
    wait: bool | None = key(
        None, "Stay until the run has ended. Default: true with slurm=local, false with Slurm."
    )
    force: bool = key(
        False, "Submit although jobs or tasks of the run are still at work.", was=False
    )
    dry_run: bool = key(False, "Print the plan and the batch script and submit nothing.")
