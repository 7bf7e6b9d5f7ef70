"""The tiny model's questions as a judge: what is asked, what is false, and how it is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from recaption.model.files import model_folder
from recaption.tiny import falsify, model, prompts, sketch, text
from recaption.tiny.judging import FORMS, Judging
from recaption.tiny.truth import Captions, Truth
from recaption.tiny.verdicts import auc

BLOCK = 16  # tokens that vLLM keeps together
SCENES = 64


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(model_folder("builtin:tiny"))


@pytest.fixture(scope="module")
def truth() -> Truth:
    torch.manual_seed(0)
    return sketch.plan(2 * SCENES).truth.take(torch.arange(SCENES))


def test_what_a_caption_and_its_judge_have_in_common_covers_the_picture(processor: Any) -> None:
    """So that vLLM finds the picture in its prefix cache."""
    size = model.SIZES["tiny"]
    for known in prompts.KNOWN:
        asked = text.judge_prompt(known, "a red circle")
        pair = [prompts.render(processor, size, prompts.usual(p)) for p in (known, asked)]
        same = next(i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b)
        picture = max(i for i, token in enumerate(pair[0]) if token == model.IMAGE)
        assert same // BLOCK * BLOCK > picture


def test_the_tokenizer_is_the_one_that_the_weights_know(processor: Any) -> None:
    """What is said to a judge has no share in it."""
    assert model.build_tokenizer().get_vocab() == processor.tokenizer.get_vocab()


def test_yes_and_no_differ_in_their_first_token(processor: Any) -> None:
    yes, no = (processor.tokenizer(word)["input_ids"][0] for word in ("yes", "no"))
    assert yes != no


@pytest.mark.parametrize("form", [0, 1])
def test_questions_are_the_tokens_of_their_text(processor: Any, truth: Truth, form: int) -> None:
    size, captions = model.SIZES["tiny"], Captions(processor.tokenizer)
    judging = Judging(processor, size, captions)
    asked = judging.ask(torch.arange(SCENES), truth, truth, form)
    said = captions.detailed(truth) if form else captions.short(truth)
    for ids, start, words in zip(asked.batch.ids, asked.batch.answer_at, said, strict=True):
        caption = processor.tokenizer.decode([i for i in words.tolist() if i > model.END])
        prompt = processor.tokenizer.decode(ids[:start])
        assert f"\nProposed caption: {caption}\nDoes the caption" in prompt
        question = prompt.split("<fake_token_around_image>")[2].split("\nProposed")[0]
        messages = prompts.usual(text.judge_prompt(question, caption))
        if prompt.startswith("<|im_start|>System:"):
            messages.insert(0, {"role": "system", "content": text.SYSTEM})
        assert ids[:start].tolist() == prompts.render(processor, size, messages)
        assert processor.tokenizer.decode(ids[start : start + 3]) == "yes<end_of_utterance>"


@pytest.mark.parametrize("form", [0, 1])
def test_half_of_the_claims_are_false_and_known_to_be(
    processor: Any, truth: Truth, form: int
) -> None:
    captions = Captions(processor.tokenizer)
    judging = Judging(processor, model.SIZES["tiny"], captions)
    rows, claimed = falsify.claims(truth, FORMS[form])
    assert sorted(rows.tolist()) == list(range(SCENES))
    asked = judging.ask(rows, truth.take(rows), claimed, form)
    yes = asked.batch.answers[:, 0] == judging.answers[1, 0]
    assert yes[: SCENES // 2].all()
    assert SCENES // 2 <= yes.sum() < SCENES * 0.7  # a single shape has no other order
    assert ((asked.wrong == 1).any(1) == ~yes).all()


@pytest.mark.parametrize("kind", falsify.DETAILED)
def test_one_thing_is_changed(processor: Any, truth: Truth, kind: str) -> None:
    captions = Captions(processor.tokenizer)
    before, after = captions.detailed(truth), captions.detailed(falsify.falsified(truth, kind))
    words = (before != after).sum(1)
    if kind == "count":
        lengths = [(said >= 0).sum(1) for said in (before, after)]
        assert set((lengths[0] - lengths[1]).abs().tolist()) == {9}
    elif kind == "order":
        assert (words[truth.count == 1] == 0).all()
        assert (words > 0).any()
        assert (before.sort(1).values == after.sort(1).values).all()
    else:
        assert (words == 1).all()


def test_the_area_under_the_curve() -> None:
    good = torch.tensor([True, True, True, False, False])
    assert auc(torch.tensor([3.0, 2.0, 2.0, 1.0, 0.0]), good) == 1
    assert auc(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), good) == 0
    assert auc(torch.ones(5), good) == 0.5
    assert auc(torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0]), good) == pytest.approx(4.5 / 6)
