"""The command: options, the three measurements, a table and JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recaption.bench import roofline
from recaption.bench.measured import SERVER, Measured
from recaption.bench.ours import Ours
from recaption.bench.rates import measured_rates
from recaption.bench.server import WARM, measure_server
from recaption.bench.shards import make_shards
from recaption.config import overrides
from recaption.engine.base import Spec
from recaption.errors import TaskError, UserError
from recaption.launch.command import compose_point
from recaption.launch.interrupt import interruptible
from recaption.launch.options import Options
from recaption.versions import versions

WARM_FIRST = 900_000_000  # number of the first of the pictures that warm a server
TEXT_TOKENS = 40  # tokens of a prompt's text, assumed for the roofline


def bench(options: Namespace) -> int:
    """The command on its arguments; returns its exit code and raises UserError for a wrong use."""
    if options.json and (Path(options.json).is_dir() or not _can_write(Path(options.json))):
        raise UserError(f"--json {options.json}: cannot be written")
    made = tempfile.mkdtemp(prefix="recaption-bench-", dir=_given(options.folder))
    try:
        samples = -(-options.images // options.shards)
        where = Path(options.folder or made) / "shards"
        shards = make_shards(where, shards=options.shards, samples=samples, size=options.size)
        with interruptible():  # the server has a session of its own
            result = _measure(options, Path(made), [str(p) for p in shards])
    finally:
        if not options.folder:
            shutil.rmtree(made, ignore_errors=True)
    print(_table(result, options))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _can_write(path: Path) -> bool:
    return os.access(path if path.exists() else path.absolute().parent, os.W_OK)


def _given(folder: str | None) -> str | None:
    """The folder that was asked for; made if it does not exist."""
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"--folder {folder}: cannot be made: {e.strerror}") from None
        if not os.access(folder, os.W_OK):
            raise UserError(f"--folder {folder}: cannot be written")
    return folder


def _measure(options: Namespace, folder: Path, shards: list[str]) -> dict[str, Any]:
    fixed = [f"data.shards=[{','.join(shards)}]", "data.name=bench", f"output.dir={folder}"]
    choice = Options(config_dir=options.config_dir)
    point = compose_point(overrides.prepare([*fixed, *options.words]), choice)
    size = "{}x{}".format(*options.size)
    result = {"versions": versions(), "size": size, "images": options.images}
    result["prompts"] = [p.name for p in point.prompts]
    few = options.baseline_images or max(1, options.images // 3)
    ours = Ours(point.config, point.prompts, folder / "ours")
    return result | figures_of(ours, options.parts, options.images, options.size, few)


def figures_of(
    ours: Ours, parts: Sequence[str], images: int, size: tuple[int, int], baseline_images: int
) -> dict[str, Any]:
    """Measure `parts` on engines that are ready, which are ended before the baseline starts its own.

    Returns the figures of each part, their ratios, and the roofline where it is known.
    """
    config = ours.config
    gpus = len(ours.devices) * config.engine.tensor_parallel
    result: dict[str, Any] = {"device": ours.device, "gpus": gpus}
    with ours:
        if "engine" in parts:
            result["engine"] = _figures("engine", ours.measure_engines(images))
            if config.sampling.seed is not None and config.sampling.temperature > 0:
                unseeded = ours.measure_engines(images, seeded=False)
                result["unseeded"] = _figures("unseeded", unseeded)
                result["engine/unseeded"] = result["engine"]["rate"] / unseeded.rate
        if "pipeline" in parts:
            result["pipeline"] = _figures("pipeline", ours.measure_pipeline())
    if "baseline" in parts and config.engine.kind == "vllm":
        shards = [shard.url for shard in ours.run.shards]
        measured = _baseline(ours.spec, shards, ours.folder, baseline_images)
        result["baseline"] = _figures("baseline", measured)
    if SERVER in parts:
        result[SERVER] = _figures(SERVER, _server(ours, size, gpus))
    for other in ("engine", "baseline", SERVER):
        for rate, name in (("rate", "pipeline"), ("middle", "middle: pipeline")):
            pair = [result.get(part, {}).get(rate) for part in ("pipeline", other)]
            if all(pair):
                result[f"{name}/{other}"] = pair[0] / pair[1]
    if ours.spec.model_path:
        result |= _roofline(result, Path(ours.spec.model_path), config, gpus, size)
    return result


def _server(ours: Ours, size: tuple[int, int], gpus: int) -> Measured:
    if ours.config.engine.kind != "vllm":
        raise UserError("--parts server: serves a model with vLLM; leave engine=fake")
    shards = [shard.url for shard in ours.run.shards]
    warm = make_shards(ours.folder / "warm", shards=1, samples=WARM, size=size, first=WARM_FIRST)
    log = ours.folder / "server.log"
    return measure_server(ours.spec, [str(p) for p in warm], shards, gpus, log)


def _roofline(
    result: dict[str, Any], model: Path, config: Any, gpus: int, size: tuple[int, int]
) -> dict[str, Any]:
    """The arithmetic ceiling of these GPUs and the engine's share of it, if both are known."""
    try:
        known = roofline.load(model)
    except OSError:
        return {}
    measured = result.get("engine") or result.get("pipeline")
    if not measured or known.config.get("model_type") not in roofline.KNOWN:
        return {}
    rates = measured_rates()
    if rates is None:
        return {}
    ceiling = known.cost(
        *size,
        text_tokens=TEXT_TOKENS,
        new_tokens=round(measured["tokens"] / measured["images"]),
        sequences=config.engine.max_num_seqs,
        max_pixels=config.model.max_pixels,
    ).images_per_second(*rates)
    found = {"flops": rates[0], "bandwidth": rates[1], "roofline": gpus * ceiling}
    for part in ("engine", "pipeline"):
        if part in result:
            found[f"{part}/roofline"] = result[part]["rate"] / (gpus * ceiling)
            if result[part]["middle"]:
                found[f"middle: {part}/roofline"] = result[part]["middle"] / (gpus * ceiling)
    return found


def _figures(part: str, measured: Measured) -> dict[str, Any]:
    middle = f" (middle half {measured.middle:.2f})" if measured.middle else ""
    print(f"{part}: {measured.rate:.2f} images/s{middle}", file=sys.stderr, flush=True)
    tokens = measured.tokens / measured.seconds
    return {**asdict(measured), "rate": measured.rate, "tokens_per_second": tokens}


def _baseline(spec: Spec, shards: Sequence[str], out: Path, images: int) -> Measured:
    out.mkdir(parents=True, exist_ok=True)
    (out / "spec.json").write_text(spec.to_json())
    command = [sys.executable, "-m", "recaption.bench.baseline", str(out / "spec.json")]
    ended = subprocess.run(
        [*command, str(out / "baseline"), str(images), *shards],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise TaskError(f"bench: the baseline ended with exit code {ended.returncode}")
    figures = json.loads(ended.stdout.strip().splitlines()[-1])
    if not figures["images"]:
        raise TaskError(
            f"bench: {len(shards)} shards make one batch, which the baseline does not count"
        )
    return Measured(figures["images"], figures["seconds"], figures["tokens"], {})


def _table(result: dict[str, Any], options: Namespace) -> str:
    head = f"{'part':12} {'images/s':>9} {'middle':>9} {'tokens/s':>9} {'images':>8} {'seconds':>8}"
    lines = [head]
    for part in ("engine", "unseeded", "pipeline", "baseline", SERVER):
        if part in result:
            f = result[part]
            middle = f"{f['middle']:9.2f}" if f["middle"] else f"{'-':>9}"
            lines.append(
                f"{part:12} {f['rate']:9.2f} {middle} {f['tokens_per_second']:9.0f} "
                f"{f['images']:8} {f['seconds']:8.1f}"
            )
    for name, value in result.items():
        if "/" in name or name == "roofline":
            lines.append(f"{name:26} {value:.3f}")
    if "flops" in result:
        rates = f"{result['flops'] / 1e12:.0f} TFLOP/s, {result['bandwidth'] / 1e12:.2f} TB/s"
        lines.append(f"{'device alone':26} {rates}")
    lines.append(f"{'device':20} {result['device']}")
    details = result.get("pipeline", {}).get("details", {})
    for name, value in details.items():
        lines.append(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")
    if details:
        hours = options.for_images / (result["pipeline"]["rate"] / result["gpus"]) / 3600
        lines.append(
            f"projection: {options.for_images:,} images take {hours:,.0f} GPU-hours, "
            f"{hours / options.for_gpus:,.1f} hours on {options.for_gpus} GPUs"
        )
    return "\n".join(lines)
