"""Every generation check against captions that should and should not be flagged by it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from recaption.config.schema import FLAGS, HARMLESS, Prompt, Quality
from recaption.engine.base import Caption
from recaption.model.quality import Checks

PROMPTS = {
    "short": "Describe this image in one short sentence.",
    "tags": "List up to twenty tags for this image, most important first, separated by commas. "
    "Answer with the tags only.",
    "refine": 'The current caption of this image is: "{caption}". Rewrite it as one accurate and '
    "fluent caption: keep names and facts that fit the image, correct what does not, and add what "
    "is missing. Answer with the caption only.",
}

HONEST = """\
A red circle and a blue star.
Two dogs run along a beach at low tide, and a child follows them with a kite.
A bowl of ramen with two eggs, spring onions and nori on a dark wooden table.
The logo of a bakery: a golden croissant above the words "Good Morning".
An aerial photograph of terraced rice fields in morning fog.
A small red circle at the top left, a large blue square at the middle center, on a white background.
A black and white portrait of an old man with a pipe.
Screenshot of a spreadsheet with twelve columns; the third one is highlighted.
A crowd in front of a stage, most of them holding up their phones.
A map of the London Underground.
Four identical white cups on a shelf, each with a different flower.
Close-up of a bee on a purple thistle.
A woman in a yellow raincoat waits at a bus stop while a cyclist passes.
A street at night with neon signs in several languages.
An infographic about recycling: paper, glass, metal and plastic, each with an icon.
A pencil drawing of a cathedral with two towers.
The same cat twice: once asleep on the left, once awake on the right.
A slide that reads 'Quarterly results' above a bar chart with five bars.
A plate of sushi, chopsticks, soy sauce and wasabi.
A child's drawing of a house, a tree and a very, very large sun.
A goalkeeper in green dives to the left, but the ball is already in the net.
Snow-covered mountains reflected in a lake.
""".splitlines()

LISTS = """\
a red circle at the top left, a red square at the top right, a small blue star at the bottom left
A red square, a red circle and a red triangle on a green background.
a large red star at the top left and a large red star at the bottom right, on a black background
Red, white, red, white and red stripes on an awning.
Three men: the first man holds a bag, the second man holds a phone, the third man holds a hat.
A sign that says "No parking, no stopping, no waiting, no loading".
A cat, a dog, a cat, a bird and a cat on a fence.
The words "Ha ha ha" in a speech bubble.
A long, long, long road through the desert.
Rows and rows of seats in an empty theatre, row after row up to the ceiling.
""".splitlines()

TRUE_REPETITION = [
    "A dog on the beach " * 6,
    "a red square and " * 12 + "a red",
    "The image shows a man. The image shows a man. The image shows a man. The image shows a man.",
    "very " * 9 + "tall building",
    "A plate of food with rice, rice, rice, rice, rice, rice, rice",
    "the the the the",
    "hahahahahahahahahahahaha",
    "A woman with a hat. She wears a red hat and a coat. She wears a red hat and a coat. "
    "She wears a red hat and a coat.",
    "A dog runs on the grass. A dog runs on the grass.",
    "blue sky, green grass, blue sky, green grass, blue sky, green grass, blue sky, green grass",
    "1, 2, 1, 2, 1, 2, 1, 2, 1, 2",
    "A large building with many windows and a large building with many windows and a large "
    "building with many windows and a large building with many windows",
    "红色的红色的红色的红色的红色的红色的红色的红色的",
    "A photo of a cat\n" * 5,
    "no no no no no no",
    "tag, tag, tag, tag, tag, tag",
    "There is a tree on the left side of the picture and there is a tree on the left side of the "
    "picture and there is a tree on the left side of the picture.",
    "in the background in the background in the background in the background",
    "A man and a woman and a man and a woman and a man and a woman and a man and a woman.",
    "It has a lot of details and it has a lot of details and it has a lot of details.",
    "<b><b><b><b><b><b><b><b><b><b>",
    "the first is the second is the first is the second is the first is the second is the first is the "
    "second is",
]

REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I’m sorry, but I can’t help with identifying people.",
    "Sorry, I cannot describe this picture.",
    "I am unable to view images.",
    "I'm not able to identify who is in this photo.",
    "I cannot provide a description of this image.",
    "As an AI language model, I do not have eyes.",
    "As a text-based model I only read words.",
    "I apologize, but this is something I will not caption.",
    "Unfortunately, I can't see the image you mention.",
    "I can't help with that request.",
    "There is no image attached to your message.",
    "No image was provided.",
    "Please upload the image you want me to describe.",
    "Could you please provide the image?",
    "I don't have the ability to see images.",
    "I do not have access to the picture.",
    "I won't describe the content of this image.",
    "I must decline to caption this picture.",
    "It is not appropriate for me to describe this scene.",
    "My apologies, the picture is not visible to me.",
    "I'm just an AI and look at no pictures.",
    "The picture seems private. I'm sorry, but I won't say who it is.",
    "I cannot determine what is in the image.",
    "The image could not be loaded.",
]

NO_REFUSALS = [
    "A poster with the words \"I'm sorry, but I can't\".",
    "A protester holds a sign that says I cannot describe my anger.",
    "A man who is unable to open an umbrella in the wind.",
    "A sorry-looking dog in the rain.",
    "A card that reads “Sorry, we are closed”.",
    "A child apologizes to another one with a flower.",
    "A screenshot of a chat window of an AI language model.",
    "A page of text about large language models.",
    "An icon for a missing image: a gray mountain on white.",
    "A phone on which an upload button is shown below a picture.",
    "A warning sign: no images of the exhibits, please.",
    "A robot with the letters AI on its chest.",
    "A cartoon of a judge who must decide between two lawyers.",
    "Unfortunate weather: an umbrella turned inside out.",
    "A dialog box with the title 'I am sorry' and an OK button.",
    "A blurred picture in which no person can be made out.",
    "An actor as Hamlet with a skull.",
    "I love New York printed on a white shirt.",
    "As a bird flies past, a man looks up.",
    "A helpful assistant hands a customer a shirt.",
    "Two people at a help desk.",
    "A book titled Sorry Not Sorry by Demi Lovato.",
]

ECHOES = [
    ("short", "Describe this image in one short sentence."),
    ("short", "describe this image in one short sentence: a dog on a beach"),
    ("short", "Describe this image in one short sentence. A cat."),
    ("short", "A dog. Describe this image in one short sentence."),
    ("short", "User: Describe this image in one short sentence.\nAssistant: A dog."),
    ("short", "Describe this image in one short phrase."),
    ("short", '"Describe this image in one short sentence."'),
    ("short", "DESCRIBE THIS IMAGE IN ONE SHORT SENTENCE"),
    ("short", "Task: describe this image in one short sentence"),
    ("short", "I will describe this image in one short sentence: a boat."),
    ("tags", "List up to twenty tags for this image: dog, beach"),
    ("tags", "list up to twenty tags for this image, most important first"),
    ("tags", "dog, beach, sea. Answer with the tags only."),
    ("tags", "dog, beach, most important first, separated by commas"),
    ("tags", "Answer with the tags only: dog"),
    ("tags", "Up to twenty tags for this image: cat, sofa"),
    ("refine", 'The current caption of this image is: "a dog".'),
    ("refine", "The current caption of this image is: A dog. The new caption: A brown dog."),
    ("refine", "Rewrite it as one accurate and fluent caption: A brown dog."),
    ("refine", "keep names and facts that fit the image, correct what does not"),
    ("refine", "A brown dog on a beach. Answer with the caption only."),
    ("refine", "Correct what does not, and add what is missing: a kite."),
]

NO_ECHOES = [
    ("short", "A person writes one short sentence on a blackboard."),
    ("short", "This image shows a dog."),
    ("short", "Describe this"),
    ("tags", "dog, beach, sea, important people, first aid"),
    ("tags", "twenty tags, price tags, clothes"),
    ("refine", "The caption of a newspaper picture: 'Mayor opens bridge'."),
    ("refine", "An image of a page with names and facts about Rome."),
    *(("short", caption) for caption in HONEST),
]

LATIN = [*HONEST[:14], "Une rue à Orléans, l'été.", "Ein großes Gebäude in Köln."]
LATIN += ["Un niño con una piñata.", "Café „Žižka“ v Praze.", "Đà Nẵng, Việt Nam", "42", "…"]
LATIN += ["A sign with the characters 北京 above the entrance of a restaurant."]
FOREIGN = """\
Собака бежит по пляжу.
На фото изображён красный круг.
图片中有一只猫坐在沙发上。
红色的圆形
犬が浜辺を走っています。
해변을 달리는 개
كلب يركض على الشاطئ
כלב רץ על החוף
समुद्र तट पर दौड़ता हुआ कुत्ता
สุนัขวิ่งบนชายหาด
Ένας σκύλος τρέχει στην παραλία.
A dog runs along 海滩上的一只狗在奔跑
The picture shows красный круг и синий квадрат.
A cat 고양이가 소파에 앉아 있다
Фото: a dog
画面中央是一个红色的圆 (red circle)
Двое мужчин играют в шахматы в парке.
一位穿着黄色雨衣的女士
白い背景に青い星
ภาพถ่ายทางอากาศของนาข้าว
Портрет старика с трубкой.
""".splitlines()


def plain(texts: list[str]) -> list[tuple[str, Caption]]:
    return [("short", Caption(text, "stop", 9)) for text in texts]


def prompted(pairs: list[tuple[str, str]]) -> list[tuple[str, Caption]]:
    return [(prompt, Caption(text, "stop", 9)) for prompt, text in pairs]


CUT = [text[: len(text) * 2 // 3] for text in HONEST]
BLANK = [
    "",
    " ",
    "\n",
    "\t \n",
    ".",
    "...",
    "…",
    "-",
    "?!",
    '""',
    "“”",
    "*",
    "**",
    "\u200b",
    "\u00a0",
]
BLANK += ["🙂", "• •", "()", "[]", "</>", "—", "\ufffd"]
MARKS = ["a", "1", "猫", "é", "Ok.", "x²", "ß", "7.", "Ж", "א", *HONEST]
TERSE = [
    "dog",
    "A dog",
    "a red dog",
    "cat.",
    "sea",
    "no",
    "a, b",
    "blue sky",
    "Two men",
    "1 2 3",
    "?",
]
TERSE += [
    "it is",
    "tree",
    "car.",
    "one two three",
    "a b c",
    "logo",
    "",
    "yes",
    "The end",
    "fine art",
]
RULES = Quality(script="latin", min_words=4, min_characters=16)
CASES = {
    "truncated": ([("short", Caption(t, "length", 9)) for t in CUT], plain(CUT)),
    "empty": (plain(BLANK), plain(MARKS)),
    "short": (plain(TERSE), plain(HONEST)),
    "repetition": (plain(TRUE_REPETITION), plain([*HONEST, *LISTS])),
    "refusal": (plain(REFUSALS), plain([*NO_REFUSALS, *HONEST])),
    "echo": (prompted(ECHOES), prompted(NO_ECHOES)),
    "script": (plain(FOREIGN), plain(LATIN)),
}


def test_a_cut_field_is_a_flag_that_is_not_bad() -> None:
    checks = Checks(Quality(), [Prompt(name="short", text=PROMPTS["short"])])
    caption = Caption("A red circle on a white background.", "stop", 9)
    assert checks.flags(caption, "short") == []
    flags = checks.flags(caption, "short", cut=True)
    assert flags == ["cut"]
    assert checks.bad(flags) == []


@pytest.mark.parametrize("flag", [f for f in FLAGS if f not in HARMLESS])
def test_precision_and_recall(flag: str) -> None:
    positive, negative = CASES[flag]
    assert min(len(positive), len(negative)) >= 20
    prompts = [Prompt(name=name, text=text) for name, text in PROMPTS.items()]
    checks = Checks(RULES, prompts)
    missed = [c.text for name, c in positive if flag not in checks.flags(c, name)]
    wrong = [c.text for name, c in negative if flag in checks.flags(c, name)]
    right = len(positive) - len(missed)
    precision, recall = right / (right + len(wrong)), right / len(positive)
    print(
        f"{flag}: precision {precision:.3f}, recall {recall:.3f} "
        f"({len(positive)} positive, {len(negative)} negative)"
    )
    assert precision >= 0.95, wrong
    assert recall >= 0.95, missed


def test_an_honest_caption_has_no_flag() -> None:
    checks = Checks(Quality(), [Prompt(name="short", text=PROMPTS["short"])])
    flagged = {t: f for t in HONEST if (f := checks.flags(Caption(t, "stop", 9), "short"))}
    assert flagged == {}


def test_what_is_off_by_default() -> None:
    """Any length and any script will do, unless asked for."""
    checks = Checks(Quality(), [Prompt(name="short", text="?")])
    assert checks.flags(Caption("猫", "stop", 1), "short") == []


def test_flags_stand_in_one_order_and_can_be_left_out() -> None:
    rules = replace(RULES, flags=["script", "truncated"])
    prompts = [Prompt(name="short", text="?")]
    cut = Caption("红色的" * 9, "length", 9)
    assert Checks(rules, prompts).flags(cut, "short") == ["truncated", "script"]
    everything = Checks(RULES, prompts).flags(cut, "short")
    assert everything == ["truncated", "short", "repetition", "script"]


def test_thresholds_move_the_line() -> None:
    prompts = [Prompt(name="short", text=PROMPTS["short"])]

    def flags(text: str, **rules: object) -> list[str]:
        return Checks(replace(Quality(), **rules), prompts).flags(Caption(text, "stop", 9), "short")

    assert flags("ha ha ha") == []
    assert flags("ha ha ha", repeats=3) == ["repetition"]
    assert flags("one short sentence on a wall") == []
    assert flags("one short sentence on a wall", echo_words=3) == ["echo"]
    assert flags("Straße к", script="latin", script_share=0.1) == ["script"]
    assert flags("Straße к", script="latin") == []
    assert flags("犬がいる", script="japanese") == []
    assert flags("犬がいる", script="chinese") == ["script"]


def test_a_long_caption_is_checked_quickly() -> None:
    """Captions may be as long as the model's context; none takes more than linear time or so."""
    checks = Checks(RULES, [Prompt(name="short", text=PROMPTS["short"])])
    before = time.process_time()
    for text in ("a" * 20_000, "ab " * 10_000, "aab" * 9_000, " ".join(map(str, range(9_000)))):
        checks.flags(Caption(text, "length", 20_000), "short")
    assert time.process_time() - before < 5
