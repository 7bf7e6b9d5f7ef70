"""recaption.upload: a finished run to the Hugging Face Hub or to S3."""

from __future__ import annotations

from recaption.cli.arguments import Parser, take_run

DOES = """\
Copies a finished run to S3 or to a data set on the Hugging Face Hub. The same command again sends only
files that are missing or differ there, by size and SHA-256, so it can continue after it was killed. A
shard's marker is sent after its data.
"""
MORE = """\
example: python -m recaption.upload outputs/train/tiny/short hf://datasets/me/recaptioned

DEST is s3://BUCKET[/PREFIX] or hf://datasets/USER/NAME[@BRANCH][/FOLDER]; the data set, as a private one,
and its branch are made if they do not exist.

Access comes from the environment, and nothing of it is stored. S3: AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL for other stores than Amazon's.
The Hub: HF_TOKEN or `hf auth login`; HF_ENDPOINT.

Exit code: 0 if everything is there, 1 if something is missing, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("upload", DOES, MORE)
    take_run(parser)
    add = parser.add_argument
    add(
        "dest",
        metavar="DEST",
        help="a destination: s3://BUCKET[/PREFIX] or hf://datasets/USER/NAME",
    )
    add(
        "--partial",
        action="store_true",
        help="also copy a run that is not finished: its published shards",
    )
    add(
        "--shards-only",
        action="store_true",
        help="leave out .recaption, whose files name the inputs, hosts and folders of the run",
    )
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.upload.command import upload

    return upload(options)
