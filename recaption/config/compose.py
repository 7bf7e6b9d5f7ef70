"""From command line words to checked `Config` objects, through Hydra's compose API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recaption.config import overrides
from recaption.config.check import check
from recaption.config.schema import Config, Prompt
from recaption.errors import UserError, bad_choice

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The packaged `conf/` of a wheel, or the checkout's."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def sweep_points(words: Sequence[str]) -> list[list[str]]:
    """The words of every point of a sweep, in Hydra's order (the last key varies fastest)."""
    prepared = overrides.prepare(words)
    with _user_errors():
        parsed = OverridesParser.create().parse_overrides(overrides=prepared)
        (points,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(point) for point in points]


def compose_config(
    prepared: Sequence[str], *, config_dir: str | None = None, config_name: str = "config"
) -> DictConfig:
    """Compose prepared words (see overrides.prepare) into an unresolved, typed DictConfig."""
    ConfigStore.instance().store(name="recaption_schema", node=Config)
    path = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    if config_dir and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: no such directory")
    with _user_errors(), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config_name, [*prepared, *path])


def named_prompts(
    names: Sequence[str], prepared: Sequence[str], *, config_dir: str | None = None
) -> list[Prompt]:
    """The presets of the prompt group with these names, for `prompts=[…]`."""
    other = [w for w in prepared if not w.startswith(("prompt=", "prompt.", "prompts="))]
    found: list[Prompt] = []
    for name in names:
        cfg = compose_config([*other, f"prompt={name}"], config_dir=config_dir)
        with _user_errors():
            prompt = OmegaConf.to_object(cfg.prompt)
        assert isinstance(prompt, Prompt)
        found.append(prompt)
    return found


def to_config(cfg: DictConfig) -> Config:
    """Resolve a composed configuration into dataclasses, checked."""
    with _user_errors():
        config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    check(config)
    return config


@contextmanager
def _user_errors() -> Iterator[None]:
    try:
        yield
    except MissingConfigException as e:
        group, _, value = (e.missing_cfg_file or "").rpartition("/")
        if group and e.options is not None:
            raise bad_choice(group, value, e.options) from None
        raise UserError(str(e)) from None
    except OverrideParseException as e:
        raise UserError(f"{e.override}: cannot be read: {str(e).splitlines()[0]}") from None
    except OmegaConfBaseException as e:
        key = f"{e.full_key}: " if e.full_key else ""
        raise UserError(key + str(e).splitlines()[0]) from None
    except HydraException as e:
        cause = e.__cause__
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            raise UserError(f"{cause.full_key}: {str(cause).splitlines()[0]}") from None
        raise UserError(" ".join(str(e).split("\n")[:2])) from None
