"""The command: everything that can be completed, and the script that does it without Python."""

from __future__ import annotations

from string import Template

from recaption.__main__ import COMMANDS
from recaption.completion.bash import SCRIPT
from recaption.config.compose import conf_dir
from recaption.config.walk import documented
from recaption.errors import bad_choice

SHELLS = ("bash",)
OPTIONS = {  # what each command takes besides KEY=VALUE and files
    "launch": "--multirun --cfg --resolve --config-dir --config-name --help",
    "status": "--watch --json --help",
    "verify": "--input --inputs --allow-pipe --complete --json --help",
    "retry": "--status --reason --give-up --take-back --inputs --allow-pipe --config-dir --help",
    "stop": "--help",
    "filter": "--where --help",
    "report": "--samples --shards --fetch --inputs --allow-pipe --help",
    "join": "--spool --inputs --allow-pipe --help",
    "upload": "--partial --shards-only --help",
    "bench": "--images --shards --size --parts --baseline-images --for-images --for-gpus --json"
    " --folder --config-dir --help",
    "demo": "--help",
    "doctor": "--wait --json --config-dir --help",
    "completion": "bash --help",
}
KEYED = ("launch", "retry", "doctor", "bench")  # commands that take KEY=VALUE

HELP = """\
usage: recaption completion bash

Prints a script that lets the shell complete recaption's commands, launch's keys, and the values of keys
that have choices: presets (model=, prompt=, slurm=, …; those of --config-dir too) and names. In bash:

  eval "$(recaption completion bash)"                                     in ~/.bashrc, or
  recaption completion bash >~/.local/share/bash-completion/completions/recaption

Make it again after an update of recaption.
"""


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if len(arguments) > 1 or arguments[0] not in SHELLS:
        raise bad_choice("shell", " ".join(arguments), SHELLS)
    print(script(), end="")
    return 0


def script() -> str:
    """The script for bash."""
    choices = {key.name: key.choices for key in documented()}
    groups = [path.name for path in sorted(conf_dir().iterdir()) if path.is_dir()]
    for group in groups:
        choices[group] = [path.stem for path in sorted((conf_dir() / group).glob("*.yaml"))]
    return Template(SCRIPT).substitute(
        commands=" ".join(COMMANDS),
        keyed="|".join(KEYED),
        keys=" ".join(f"{key}=" for key in sorted(choices)),
        groups="|".join(groups),
        options=_cases({name: words.split() for name, words in OPTIONS.items()}),
        choices=_cases({key: names for key, names in sorted(choices.items()) if names}),
    )


def _cases(words: dict[str, list[str]]) -> str:
    return "\n".join(f'    {name}) words="{" ".join(list_)}" ;;' for name, list_ in words.items())
