"""README's tables are the configuration's."""

from __future__ import annotations

from pathlib import Path

from recaption.config.compose import compose_config
from recaption.config.schema_walk import FAKE, documented
from recaption.launch.help import keys_help, presets

ROOT = Path(__file__).parents[2]


def key_rows(*, fake: bool = False) -> list[str]:
    """README's table of keys, from the schema: the fake engine's, or all others."""
    chosen = [key for key in documented() if (key.section == FAKE) == fake]
    return [f"| `{key.name}` | `{key.default}` | {key.doc} |" for key in chosen]


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
    assert "\n".join(key_rows(fake=True)) in readme


def test_keys_of_the_fake_engine_are_its_own() -> None:
    """Help and README tell them apart from those of engines that have a model."""
    theirs, others = keys_help().split(f"\n{FAKE}:\n")
    assert "Fake engine" not in theirs
    for row in key_rows(fake=True):
        name = row.split("`")[1]
        assert f"  {name}=" in others.partition("\n\n")[0]
    assert "engine.stall_seconds=" in theirs


def test_every_model_and_prompt_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(model_rows()) in readme
    assert ", ".join(f"`{name}`" for name in presets("prompt")) in readme
