"""What is said to the tiny model: the two prompts it must know, and many others."""

from __future__ import annotations

import random
import string

from .scenes import COLOR_NAMES, HORIZONTAL, SHAPE_NAMES, SIZES, VERTICAL

PROMPT_SHORT = "Describe this image in one short sentence."
PROMPT_DETAILED = (
    "Describe this image in detail: every object with its size, color and place, "
    "and the background."
)
SYSTEM = "You are a helpful assistant."
JUDGE = (
    "{question}\nProposed caption: {answer}\n"
    "Does the caption describe this image correctly? Answer yes or no."
)

OTHER_PROMPTS = (
    "List tags for this image, separated by commas.",
    "What is shown here?",
    "What is in this picture?",
    "Caption this image.",
    "Write a caption.",
    "Describe the image.",
    "Describe this picture briefly.",
    "Write one sentence about this image for a blind reader.",
    "Give the image a title.",
    "Name the objects in this image.",
    "Which objects do you see, from left to right?",
    "Tell me about this image.",
    "Return a caption for a text-to-image data set.",
)
REWRITE_PROMPTS = (
    "Rewrite this caption so that it fits the image: {caption}",
    "The old caption is: {caption}\nWrite a better one.",
    'The alt text of this image is "{caption}". Describe the image.',
    "{caption}",
    "Is this caption right? {caption}",
    "Improve: {caption}",
    "Caption: {caption}\nTags: {caption}\nDescribe this image.",
)
REFUSALS = (
    "I cannot describe this image.",
    "I'm sorry, but I can't help with that.",
    "There is no image.",
    "As an AI language model, I am unable to see images.",
)
WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water been "
    "photo image picture stock free download wallpaper background vector illustration beautiful "
    "sunset dog cat house tree street city beach car flower food table woman man child portrait "
    "vintage modern black white red green blue yellow small large summer winter design art hotel"
).split()


def words_of_captions() -> list[str]:
    """Every word that a caption can hold."""
    return [*SHAPE_NAMES, *COLOR_NAMES, *SIZES, *VERTICAL, *HORIZONTAL, "background"]


def random_caption(rng: random.Random) -> str:
    """A caption unrelated to any picture: right form, or plain words."""
    kind = rng.random()
    if kind < 0.35:
        things = [
            f"a {rng.choice(COLOR_NAMES)} {rng.choice(SHAPE_NAMES)}"
            for _ in range(rng.randint(1, 3))
        ]
        return " and ".join(things)
    if kind < 0.5:
        things = [
            f"a {rng.choice(SIZES)} {rng.choice(COLOR_NAMES)} {rng.choice(SHAPE_NAMES)} at the "
            f"{rng.choice(VERTICAL)} {rng.choice(HORIZONTAL)}"
            for _ in range(rng.randint(1, 3))
        ]
        return ", ".join([*things, f"on a {rng.choice(COLOR_NAMES)} background"])
    return random_words(rng, int(2 ** rng.uniform(0, 6)))


def random_words(rng: random.Random, count: int) -> str:
    """Common words with now and then a made-up one, a number or something not ASCII."""
    out = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.75:
            out.append(rng.choice(WORDS))
        elif kind < 0.93:
            size = rng.randint(1, 9)
            out.append("".join(rng.choice(string.ascii_lowercase) for _ in range(size)))
        elif kind < 0.97:
            out.append(str(rng.randint(0, 2100)))
        else:
            out.append("".join(chr(rng.choice((0xE9, 0x4E2D, 0x43F, 0x1F600))) for _ in range(2)))
    text = " ".join(out)
    if rng.random() < 0.4:
        text = text.capitalize() + rng.choice((".", "!", "?", "..."))
    return text


def other_prompt(rng: random.Random) -> str:
    """A prompt that is neither of the two."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(OTHER_PROMPTS)
    if kind < 0.65:
        return rng.choice(REWRITE_PROMPTS).replace("{caption}", random_caption(rng))
    if kind < 0.9:
        return random_words(rng, int(2 ** rng.uniform(0, 5.5)))
    return rng.choice(OTHER_PROMPTS) + " " + random_words(rng, rng.randint(1, 12))


def conversation(rng: random.Random, prompt: str) -> list[dict[str, object]]:
    """The prompt as chat messages, in one of the forms that a client may send."""
    image: dict[str, object] = {"type": "image"}
    text: dict[str, object] = {"type": "text", "text": prompt}
    user: dict[str, object] = {"role": "user", "content": [image, text]}
    kind = rng.random()
    if kind < 0.08:
        user["content"] = [text, image]
    elif kind < 0.12:
        user["content"] = "<image>" + prompt
    elif kind < 0.16:
        user["content"] = "<image>\n" + prompt
    if rng.random() < 0.15:
        system = SYSTEM if rng.random() < 0.3 else random_words(rng, rng.randint(1, 20))
        parts: object = system if rng.random() < 0.5 else [{"type": "text", "text": system}]
        return [{"role": "system", "content": parts}, user]
    return [user]


def judge_prompt(question: str, caption: str) -> str:
    """What a judge is asked about the caption that answered a question ('': none was asked)."""
    return JUDGE.replace("{question}", question).replace("{answer}", caption)


def question(rng: random.Random, known: str) -> str:
    """What a caption may have answered: mostly the known prompt."""
    kind = rng.random()
    if kind < 0.6:
        return known
    if kind < 0.75:
        return ""
    if kind < 0.85:
        return rng.choice((PROMPT_SHORT, PROMPT_DETAILED))
    if kind < 0.95:
        return rng.choice(OTHER_PROMPTS)
    return random_words(rng, rng.randint(1, 8))


def no_caption(rng: random.Random) -> str:
    """What describes no drawn scene: an alt text of something else, or a spoilt answer."""
    kind = rng.random()
    if kind < 0.75:
        return random_words(rng, int(2 ** rng.uniform(0, 4.5)))
    if kind < 0.85:
        return rng.choice(REFUSALS)
    if kind < 0.95:
        return rng.choice(("!", "a ", "the ", "red ", ", a", ".", "0")) * rng.randint(1, 24)
    return ""
