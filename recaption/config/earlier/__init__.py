"""Defaults and presets of earlier versions, with which launch goes on with their runs.

VERSION.yaml has the schema's defaults as they were up to that version, VERSION/ the presets.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packaging.version import Version

from recaption.config.records import new_keys
from recaption.config.renamed import renamed_record
from recaption.config.schema import Config

if TYPE_CHECKING:
    from omegaconf import DictConfig  # the quick commands do without it

HERE = Path(__file__).parent
VERSIONS = sorted((path.stem for path in HERE.glob("*.yaml")), key=Version)  # oldest first


def generation(version: str) -> str | None:
    """The earlier version whose defaults and presets hold for what `version` made; None: today's."""
    return next((v for v in VERSIONS if Version(version) <= Version(v)), None)


def presets(version: str) -> Path:
    """The folder of an earlier version's presets."""
    return HERE / version


def defaults(version: str) -> DictConfig:
    """The typed configuration with an earlier version's defaults; newer keys change nothing."""
    from omegaconf import DictConfig, OmegaConf

    then = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(HERE / f"{version}.yaml")))
    schema = OmegaConf.structured(Config)
    for name, value in new_keys().items():
        OmegaConf.update(schema, name, value, merge=False)
    merged = OmegaConf.merge(schema, renamed_record(then))
    assert isinstance(merged, DictConfig)
    return merged
