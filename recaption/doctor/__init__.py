"""recaption.doctor: whether a site is fit for it, before the first array."""

from __future__ import annotations

from recaption.cli.arguments import Parser, seconds, take_presets, take_primary, take_words

DOES = """\
Checks a site before the first array, with the keys that launch will be given (data.shards may be left
out): Python and packages, vLLM and GPUs, what the file system of output.dir can do and how much room it
has, the model's and ONNX files, memory and temporary space. No engine is started, nothing is downloaded.

With slurm=cluster it also checks what the controller says (MaxArraySize, requeue, preemption, accounting,
partition, account, qos) and whether sbatch would take the job. Then it submits one job of one task with
the same settings, which checks a node, and whether files written there are seen here and vice versa.
"""
MORE = """\
example: python -m recaption.doctor slurm=cluster slurm.partition=gpu model=qwen2.5-vl-7b

JSON: ok (nothing fails), checks (name, result: ok, warn or fail; text, advice, where: the node, or empty
for this machine).

Exit code: 0 when nothing fails, 1 when something does, 2 for a wrong use.
"""


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("doctor", DOES, MORE)
    take_words(parser, "slurm=cluster output.dir=/data/out")
    add = parser.add_argument
    add(
        "--wait",
        metavar="SECONDS",
        type=seconds(86400),
        default=120,
        help="seconds that the job may wait for its start (%(default)s) before it is canceled",
    )
    add("--json", action="store_true", help="print one JSON object instead of lines")
    take_presets(parser)
    take_primary(parser)
    return parser


def main(arguments: list[str]) -> int:
    """The command; returns its exit code and raises UserError for a wrong use."""
    options = parser().parse(arguments)
    from recaption.doctor.command import examine

    return examine(options)
