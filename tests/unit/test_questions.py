"""Fields that are too long for the context are cut, by as much as is needed and no more."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.config.schema import Config, Prompt
from recaption.engine.base import Question, Spec
from recaption.engine.fake import FakeRenderer
from recaption.errors import SampleError, TooLong
from recaption.model.prompt import Values
from recaption.prepare.questions import Asked
from recaption.shard.rules import FirstRules, Rules

PICTURE = PIL.Image.new("RGB", (8, 8))


class Renderer(FakeRenderer):
    """A token is a character; keeps the questions that it rendered, and refuses as vLLM's does."""

    def length(self, question: Question) -> int:
        return len(question.system or "") + len(question.text)

    def render(self, rgb: PIL.Image.Image, picture: str, questions: Any) -> Any:
        for q in questions:
            over = self.length(q) - (self.room - (q.reserve or 1))
            if over > 0:
                raise TooLong(f"{q.name} is too long", q.name, over)
        return {q.name: q for q in questions}


def asked(
    *prompts: Prompt, room: int = 100, answer: int = 20, rules: Rules | None = None, **fields: str
) -> tuple[dict[str, Question], tuple[str, ...]]:
    config = Config()
    config.model.max_model_len, config.sampling.max_tokens = room, answer
    values = Values(fields.pop("caption", None), fields, {}, rules or Rules())
    renderer = Renderer(Spec(config, tuple(prompts), None))
    made, cut = Asked(prompts, values, config, 0, None).payload(renderer, PICTURE, "p")
    return made, cut


def prompt(text: str, name: str = "p", system: str | None = None) -> Prompt:
    return Prompt(name=name, text=text, system=system)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 200))
def test_what_is_left_is_all_that_there_is_room_for(first: int, second: int, answer: int) -> None:
    fields = {"a": "a" * first, "b": "b" * second}
    made, cut = asked(prompt("{json.a}, {json.b}.", system="S"), answer=answer, **fields)
    text = made["p"].text
    room = 100 - min(answer, 50) - len("S, .")
    assert bool(cut) == (first + second > room)
    assert text.count("a") + text.count("b") <= room
    if cut:
        assert text.count("a") + text.count("b") >= room - 1, "two fields of one length, at most"
        kept = {first: text.count("a"), second: text.count("b")}
        assert kept[min(first, second)] in (min(first, second), max(kept.values()))
    else:
        assert text == f"{fields['a']}, {fields['b']}."


def test_only_the_prompt_that_is_too_long_is_cut() -> None:
    prompts = (prompt("x", "plain"), prompt("{caption}", "long"), prompt("{json.a}", "short"))
    made, cut = asked(*prompts, caption="c" * 500, a="a" * 50)
    assert cut == ("long",)
    assert {name: len(q.text) for name, q in made.items()} == {"plain": 1, "long": 80, "short": 50}


def test_a_prompt_that_is_too_long_without_its_fields_is_the_samples_end() -> None:
    with pytest.raises(TooLong):
        asked(prompt("x" * 100))
    with pytest.raises(TooLong):
        asked(prompt("x" * 100 + "{caption}"), caption="c")
    made, cut = asked(prompt("x" * 90 + "{caption}"), caption="ccc")
    assert (made["p"].text, cut) == ("x" * 90, ("p",)), "the answer has less room than it may have"


def test_runs_of_the_first_rules_reject_as_they_did() -> None:
    with pytest.raises(SampleError, match="too long"):
        asked(prompt("{caption}"), rules=FirstRules(), caption="c" * 100)
    made, cut = asked(prompt("{caption}"), rules=FirstRules(), caption="c" * 99)
    assert (len(made["p"].text), cut) == (99, ())


REAL = """
import PIL.Image
from recaption.config.compose import compose_config, to_config
from recaption.config.schema import Prompt
from recaption.engine.base import Spec
from recaption.engine.vllm import VllmRenderer
from recaption.model.files import model_folder
from recaption.prepare.questions import Asked
from recaption.model.prompt import Values

if __name__ == "__main__":
    words = ["model=tiny", "data.shards=[]", "data.name=d", "output.dir=o", "sampling.max_tokens=99"]
    config = to_config(compose_config(words))
    prompts = [Prompt(name="a", text="Say {caption} now"), Prompt(name="b", text="What?"),
               Prompt(name="c", text="{json.a} {caption}?", system="S {caption}")]
    spec = Spec(config, tuple(prompts), str(model_folder(config.model.path)))
    values = Values("a word " * 3000, {"a": "short one"}, {})
    picture = PIL.Image.new("RGB", (96, 64))
    made, cut = Asked(prompts, values, config, 0, None).payload(VllmRenderer(spec), picture, "p")
    print([len(rendered["prompt_token_ids"]) for rendered, *_ in made], cut)
"""


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_vllms_renderer_is_given_what_fits() -> None:
    """The tiny model's context has 512 tokens; a cut prompt uses them all but for its answer's."""
    result = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    lengths, cut = result.stdout.splitlines()[-1].split("] ")
    first, plain, last = (int(n) for n in lengths.strip("[").split(", "))
    assert cut == "('a', 'c')"
    assert plain < 99
    assert 512 - 99 - 4 <= first <= 512 - 99
    assert 512 - 99 - 8 <= last <= 512 - 99
