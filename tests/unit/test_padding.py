"""A padded vision encoder computes what the plain one does, from the same checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recaption.engine import encoder_width

# The model's module imports torchvision, whose CUDA build does not go with a CPU's torch; what is
# compared here does not use it.
COMPARE = """
import sys, types
import transformers.utils; assert not transformers.utils.is_torchvision_available()
name = ""
for part in "torchvision.transforms.v2.functional".split("."):
    parent, name = name, f"{name}.{part}".lstrip(".")
    sys.modules[name] = types.ModuleType(name)
    if parent:
        setattr(sys.modules[parent], part, sys.modules[name])
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.models import qwen2_5_vl
from recaption.engine import encoder_width, widened_encoder

def loaded(kind, width, weights):
    mlp = kind(64, width, bias=True, act_fn=qwen2_5_vl.get_act_and_mul_fn("silu"))
    for layer, names in ((mlp.gate_up_proj, ("gate", "up")), (mlp.down_proj, ("down",))):
        for shard, name in enumerate(names):
            for part, parameter in layer.named_parameters():
                place = (shard,) if len(names) > 1 else ()
                parameter.weight_loader(parameter, weights[f"{name}.{part}"], *place)
    rows = mlp.gate_up_proj.weight.shape[0]
    for layer in (mlp.gate_up_proj, mlp.down_proj):
        layer.quant_method.process_weights_after_loading(layer)
    return mlp, rows

with set_current_vllm_config(VllmConfig()):
    init_distributed_environment(1, 0, "tcp://127.0.0.1:%d", 0, "gloo")
    initialize_model_parallel(1)
    torch.manual_seed(0)
    plain = qwen2_5_vl.Qwen2_5_VisionMLP
    widened_encoder.install()
    wide = qwen2_5_vl.Qwen2_5_VisionMLP
    assert wide is not plain
    for width in (20, 342, 3420, 128):
        weights = {"gate.weight": (width, 64), "up.weight": (width, 64), "down.weight": (64, width)}
        weights |= {"gate.bias": (width,), "up.bias": (width,), "down.bias": (64,)}
        weights = {name: torch.randn(shape) for name, shape in weights.items()}
        with torch.no_grad():
            (one, _), (other, rows) = (loaded(kind, width, weights) for kind in (plain, wide))
            x = torch.randn(50, 64)
            difference = (one(x) - other(x)).abs().max() / one(x).abs().max()
        print(width, rows // 2, float(difference))
"""


@pytest.mark.vllm
def test_zeros_change_nothing_in_vllms_own_layers() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ended = subprocess.run(
        [sys.executable, "-c", COMPARE % port], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = [line.split() for line in ended.stdout.splitlines() if line[:1].isdigit()]
    assert [(int(width), int(wide)) for width, wide, _ in lines] == [
        (20, 128),
        (342, 384),
        (3420, 3456),
        (128, 128),
    ]
    assert all(float(difference) < 1e-5 for _, _, difference in lines), lines


@pytest.mark.parametrize(
    ("family", "width", "wide"),
    [
        ("qwen2_5_vl", 3420, 3456),
        ("qwen2_5_vl", 3456, None),
        ("qwen3_vl", 3420, None),
    ],
)
def test_only_where_the_width_asks_for_it(
    family: str, width: int, wide: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_type": family, "vision_config": {"intermediate_size": width}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert encoder_width.wanted(str(tmp_path)) == wide
    monkeypatch.setenv(encoder_width.VARIABLE, "0")
    assert encoder_width.wanted(str(tmp_path)) is None
