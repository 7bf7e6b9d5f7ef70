"""README's tables are the configuration's."""

from __future__ import annotations

from pathlib import Path

from recaption.config.compose import compose_config
from recaption.launch.help import keys, presets

ROOT = Path(__file__).parents[2]


def key_rows() -> list[str]:
    """README's table of keys, from the schema."""
    return [f"| `{key.name}` | `{key.default}` | {key.doc} |" for key in keys()]


def model_rows() -> list[str]:
    """README's table of models, from the presets; the shipped one comes first."""
    rows = []
    for name in sorted(presets("model"), key=lambda n: (n != "tiny", n)):
        model = compose_config([f"model={name}"]).model
        where = {"tiny": "shipped", "custom": "`model.path=` or `model.repo=`, `model.name=`"}
        rows.append(f"| `{name}` | {where.get(name) or model.repo} |")
    return rows


def test_every_key_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(key_rows()) in readme


def test_every_model_and_prompt_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(model_rows()) in readme
    assert ", ".join(f"`{name}`" for name in presets("prompt")) in readme
