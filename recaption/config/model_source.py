"""Where a model comes from: the preset's source, or another one given on the command line."""

from __future__ import annotations

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from recaption.errors import UserError, bad_value

TINY, CUSTOM = "tiny", "custom"
SOURCES = ("model.path", "model.repo")


def named_sources(words: Iterable[str]) -> dict[str, str]:
    """The given values of model.path and model.repo, by key."""
    pairs = (word.lstrip("+").partition("=") for word in words)
    return {key: value for key, _, value in pairs if key in SOURCES and value != "null"}


def needs_custom(chosen: str, words: Iterable[str]) -> bool:
    """Whether these words give a model's source without model=…; tiny's keys do not fit it then."""
    chose = any(word.lstrip("+").startswith("model=") for word in words)
    return chosen == TINY and not chose and bool(named_sources(words))


def settle_source(model: DictConfig, chosen: str, words: Iterable[str]) -> None:
    """Leave one source in a composed model: the one given on the command line, else the preset's.

    Raises UserError if two are given, or if one is given with model=tiny.
    """
    named = named_sources(words)
    if chosen == TINY and named:
        key, _ = named.popitem()
        reason = (
            "model=tiny is the shipped model; leave it out for another, which needs a model.name"
        )
        raise bad_value(key, model[key.removeprefix("model.")], reason)
    if len(named) == 1:
        (key,) = named
        revised = any(word.lstrip("+").startswith("model.revision=") for word in words)
        for other in ("path", "repo", *(() if revised else ("revision",))):
            if key != f"model.{other}":
                model[other] = None
    if model.path is not None and model.repo is not None:
        raise UserError(
            f"model.path={model.path}, model.repo={model.repo}: two sources of one model; "
            "give one of them"
        )


def check_name(model: DictConfig) -> None:
    """A model without a preset needs a name, which tells its captions from those of others."""
    if OmegaConf.is_missing(model, "name"):
        raise UserError(
            "model.name: needed for a model without a preset; it names the default output folder "
            "and is stored with captions"
        )
