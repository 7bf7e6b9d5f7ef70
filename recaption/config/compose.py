"""From command line words to checked `Config` objects, through Hydra's compose API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from recaption.config import earlier, model_source, overrides, renamed
from recaption.config.check import check
from recaption.config.preset_shapes import misshapen
from recaption.config.schema import Config, Prompt
from recaption.config.scorers import named_scorers
from recaption.errors import UserError, bad_choice, bad_value

PACKAGE = Path(__file__).resolve().parents[1]
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$")


def conf_dir() -> Path:
    """The packaged `conf/` of a wheel, or the checkout's."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def sweep_points(words: Sequence[str]) -> list[list[str]]:
    """The words of each point of a sweep, in Hydra's order: the last key varies fastest."""
    prepared = overrides.prepare(words, sweep=True)
    with user_errors():
        parsed = OverridesParser.create().parse_overrides(overrides=prepared)
        (points,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(point) for point in points]


def compose_config(
    prepared: Sequence[str],
    *,
    config_dir: str | None = None,
    config_name: str = "config",
    version: str | None = None,
) -> DictConfig:
    """Compose prepared words (see overrides.prepare) into an unresolved, typed DictConfig.

    `config_dir` is a folder with presets of the user's, in addition to the packaged ones; it may
    also hold the primary configuration. `version` selects the defaults and presets of an earlier
    version (config.earlier). Raises UserError for anything that does not fit the schema.
    """
    schema = _schema() if version is None else earlier.defaults(version)
    ConfigStore.instance().store(name="recaption_schema", node=renamed.accept_old(schema))
    ours = conf_dir() if version is None else earlier.presets(version)
    folders = [ours, *([Path(config_dir).absolute()] if config_dir else [])]
    if not folders[-1].is_dir():
        raise UserError(f"--config-dir {config_dir}: no such directory")
    primary = next((f for f in folders if (f / f"{config_name}.yaml").is_file()), None)
    if primary is None:
        raise bad_choice("--config-name", config_name, _names(folders))
    path = [overrides.quote(f"file://{folder}") for folder in folders if folder != primary]
    # 0.1.0 merged such a value
    emptied = [w for w in prepared if version is None and overrides.empties(w)]
    words = [word for word in prepared if word not in emptied]
    with (
        user_errors(folders),
        _times_as_text(),
        initialize_config_dir(str(primary), version_base="1.3"),
    ):
        try:
            given = [*words, f"hydra.searchpath=[{','.join(path)}]"]
            cfg = compose(config_name, given, return_hydra_config=True)
            chosen = cfg.hydra.runtime.choices.model
            if version is None and model_source.needs_custom(chosen, words):
                chosen = model_source.CUSTOM
                given.append(f"model={chosen}")
                cfg = compose(config_name, given, return_hydra_config=True)
        except ValueError as e:  # Hydra raises it for a bad defaults list
            raise UserError(_hint(f"defaults of a preset: {e}")) from None
    for word in emptied:
        _empty(cfg, word.partition("=")[0].lstrip("+"), words)
    with open_dict(cfg):
        del cfg["hydra"]
    renamed.settle(cfg, schema, words)
    if version is None:
        model_source.settle_source(cfg.model, chosen, words)
    return cfg


def _schema() -> DictConfig:
    """The typed configuration without slurm.kind, which a preset of the slurm group has to set."""
    schema: DictConfig = OmegaConf.structured(Config)
    schema.slurm.kind = MISSING
    return schema


def _empty(cfg: DictConfig, key: str, words: Sequence[str]) -> None:
    """Apply KEY={}: empty the mapping, except for entries that other words set. Hydra would merge."""
    named = [f"{word.partition('=')[0].lstrip('+')}." for word in words]
    mapping = OmegaConf.select(cfg, key) or {}
    left = {k: v for k, v in mapping.items() if any(n.startswith(f"{key}.{k}.") for n in named)}
    OmegaConf.update(cfg, key, left, merge=False, force_add=True)


@contextmanager
def _times_as_text() -> Iterator[None]:
    """Read 4:00:00 in presets as text; YAML 1.1 reads it as a base-60 number, 14400."""
    before = yaml.SafeLoader.yaml_implicit_resolvers  # OmegaConf's loader derives from it
    text = ("tag:yaml.org,2002:str", BASE_60)
    changed = {first: [text, *before.get(first, [])] for first in "-+0123456789"}
    yaml.SafeLoader.yaml_implicit_resolvers = {**before, **changed}
    try:
        yield
    finally:
        yaml.SafeLoader.yaml_implicit_resolvers = before


def named_prompts(
    names: Sequence[str],
    prepared: Sequence[str],
    *,
    config_dir: str | None = None,
    config_name: str = "config",
    version: str | None = None,
) -> list[Prompt]:
    """The presets of the prompt group with these names, for `prompts=[…]`."""
    other = [w for w in prepared if not w.startswith(("prompt=", "prompt.", "prompts="))]
    found: list[Prompt] = []
    for name in names:
        if not isinstance(name, str):
            raise bad_value("prompts", names, "names of presets of the prompt group are needed")
        words = [*other, f"prompt={name}"]
        try:
            cfg = compose_config(
                words, config_dir=config_dir, config_name=config_name, version=version
            )
        except UserError as e:
            raise UserError(f"prompts=[{','.join(map(str, names))}]: {e}") from None
        with user_errors():
            prompt = OmegaConf.to_object(cfg.prompt)
        assert isinstance(prompt, Prompt)
        found.append(prompt)
    return found


def to_config(cfg: DictConfig) -> Config:
    """Resolve a composed configuration into dataclasses, checked."""
    if OmegaConf.is_missing(cfg.slurm, "kind"):
        raise UserError(
            "slurm.kind: the preset does not say where tasks run: write `kind: cluster` into a "
            "site's, or `kind: local`"
        )
    model_source.check_name(cfg.model)
    with user_errors():
        config = OmegaConf.to_object(cfg)
        assert isinstance(config, Config)
        config.scorers = named_scorers(config.scorers)
    check(config)
    return config


def _names(folders: Sequence[Path]) -> list[str]:
    return [path.stem for folder in folders for path in folder.glob("*.yaml")]


@contextmanager
def user_errors(folders: Sequence[Path] = ()) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise for a wrong configuration into UserError.

    If the error does not name the key, it is looked for in the presets in `folders`.
    """
    try:
        yield
    except MissingConfigException as e:
        group, _, value = (e.missing_cfg_file or "").rpartition("/")
        if group and e.options is not None:
            raise bad_choice(group, value, e.options) from None
        raise UserError(str(e).splitlines()[0]) from None
    except OverrideParseException as e:
        raise UserError(f"{e.override}: cannot be read: {str(e).splitlines()[0]}") from None
    except yaml.YAMLError as e:
        raise UserError(f"not YAML: {' '.join(str(e).split())}") from None
    except (HydraException, OmegaConfBaseException) as e:
        raise _readable(e, folders) from None


def _readable(error: HydraException | OmegaConfBaseException, folders: Sequence[Path]) -> UserError:
    """One line that begins with the key and names its preset, as far as these are known."""
    first, *more = str(error).splitlines()
    file = re.match(r"In '(.+)': \w+ raised while composing config:", first)
    text, where = (more[0], f" (in {file[1]}.yaml)") if file and more else (first, "")
    key = re.search(r"^ *full_key: (\S+)", f"{error}\n{error.__cause__ or ''}", re.MULTILINE)
    if not key and file and (wrong := misshapen(file[1], folders)):
        return UserError(f"{wrong}{where}")
    if not key:
        return UserError(_hint(f"{text}{where}"))
    try:
        overrides.check_key(key[1])
    except UserError as unknown:
        return UserError(f"{unknown}{where}")
    if not file and error.__cause__:
        text = str(error.__cause__).splitlines()[0]
    return UserError(f"{key[1]}: {text}{where}")


def _hint(text: str) -> str:
    return f"{text}; off and on are booleans in YAML, quote them: 'off'" if "bool" in text else text
