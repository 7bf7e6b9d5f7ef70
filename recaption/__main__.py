"""The console script: `recaption COMMAND …` is `python -m recaption.COMMAND …`."""

from __future__ import annotations

import importlib
import os
import pwd
import sys
from collections.abc import Callable

from recaption import __version__
from recaption.cli.arguments import Parser
from recaption.errors import RecaptionError, UserError, bad_choice
from recaption.run.addresses import without_secrets

COMMANDS = {
    "launch": "submit a run or a sweep, or do it here",
    "status": "how far runs are",
    "report": "runs as one page: pictures, captions side by side, statistics",
    "verify": "whether what was published is whole, right, and loads",
    "retry": "what is missing again, or some samples in a new run",
    "stop": "end what works on a run; it keeps what it has made",
    "filter": "a new run from the samples of one that fulfill an expression",
    "join": "full shards from a run that has captions only",
    "upload": "a finished run to the Hugging Face Hub or to S3",
    "doctor": "whether a site is fit for it, before the first array",
    "bench": "how fast a model is here, and what a whole data set would take",
    "completion": "a script that lets bash or fish complete all of this",
    "demo": "recaption four small shards with the tiny model",
}
USAGE = 2
FAILURE = 1


def main() -> None:
    """Entry point of the console script."""
    run(_dispatch)


def run(command: Callable[[list[str]], int]) -> None:
    """Run a command on the process's arguments and exit with its code: 2 for a user's mistake."""
    try:
        code = command(sys.argv[1:])
        sys.stdout.flush()
    except UserError as e:
        print(f"recaption: {without_secrets(str(e))}", file=sys.stderr)
        code = USAGE
    except RecaptionError as e:
        print(f"recaption: {without_secrets(str(e))}", file=sys.stderr)
        code = FAILURE
    except PermissionError as e:
        print(f"recaption: {_denied(e)}", file=sys.stderr)
        code = USAGE
    except KeyboardInterrupt:
        code = 128 + 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = FAILURE
    sys.exit(code)


def _denied(error: PermissionError) -> str:
    """The message for a file of another user's: its path, and who could give access."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return (
        f"{error.filename or error}: permission denied for user {user}; others may use the files of a "
        "run as far as its user's umask and output.group let them"
    )


def parser_of(command: str) -> Parser:
    """A command's parser."""
    parser: Parser = importlib.import_module(f"recaption.{command}").parser()
    return parser


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: recaption COMMAND …\n")
        for name, does in COMMANDS.items():
            print(f"  {name:10} {does}")
        print("\n`recaption COMMAND --help` says more.")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        raise bad_choice("command", arguments[0], COMMANDS)
    module = importlib.import_module(f"recaption.{arguments[0]}")
    code: int = module.main(arguments[1:])
    return code


if __name__ == "__main__":
    main()
