"""The launcher's options: Hydra's usual ones, and KEY=VALUE words."""

from __future__ import annotations

from dataclasses import dataclass, field

from recaption.errors import UserError, bad_choice

VALUED = {
    "--cfg": "--cfg",
    "-c": "--cfg",
    "--config-dir": "--config-dir",
    "-cd": "--config-dir",
    "--config-name": "--config-name",
    "-cn": "--config-name",
}


@dataclass
class Options:
    """The options given in addition to the configuration's keys."""

    words: list[str] = field(default_factory=list)
    multirun: bool = False
    help: bool = False
    show_config: bool = False
    resolve: bool = False
    config_dir: str | None = None
    config_name: str = "config"


def parse(arguments: list[str]) -> Options:
    """Split arguments into options and words; raises UserError for an unknown option."""
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in VALUED:
            given = value if equals else next(rest, None)
            if given is None:
                raise UserError(f"{name}: needs a value")
            _set_valued(options, VALUED[name], given)
        elif argument in ("-m", "--multirun"):
            options.multirun = True
        elif argument in ("-h", "--help"):
            options.help = True
        elif argument == "--resolve":
            options.resolve = True
        elif argument.startswith("-"):
            known = ["--help", "--multirun", "--resolve", "--cfg", "--config-dir", "--config-name"]
            raise bad_choice("option", argument, known)
        else:
            options.words.append(argument)
    return options


def _set_valued(options: Options, name: str, value: str) -> None:
    if name == "--cfg":
        if value not in ("job", "all"):
            raise bad_choice("--cfg", value, ["job", "all"])
        options.show_config = True
    elif name == "--config-dir":
        options.config_dir = value
    else:
        options.config_name = value
