"""Flags, stored with a caption, that say what is noteworthy about it.

truncated   the engine stopped at sampling.max_tokens (`finish_reason` is `length`)
empty       no letter and no digit
short       fewer than quality.min_characters or quality.min_words, which are off by default
repetition  a loop: the same words quality.repeats times in a row, or, where words are not separated,
            the same two or more characters eight times in a row; or quality.duplicated of all words
            are in the second or a later occurrence of five successive words. The latter is the
            measure of repetition in Rae et al. 2021 (Gopher, arXiv:2112.11446, table A1) with a
            threshold for captions instead of documents: parts of an honest list resemble each other
refusal     a sentence that begins as English refusals do, outside of quotation marks; after the
            prefixes that Zou et al. 2023 (arXiv:2307.15043) count refusals by, and what models
            say that see no picture
echo        quality.echo_words successive words of the prompt as it was written (fields not filled
            in), or all of a shorter sentence of it that has at least four
script      more than quality.script_share of the letters are of another writing system than
            quality.script, which is off by default
cut         a field of the prompt was too long for the model's context and was cut; it says nothing
            against the caption, and no retry acts on it
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from recaption.config.schema import FLAGS, Prompt, Quality
from recaption.engine.base import Caption
from recaption.model.prompt import literals_of

NGRAM = 5  # words
LONGEST_UNIT = 24  # words in the unit that a loop repeats
SHORTEST_ECHO = 4  # words
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
CHARACTERS = re.compile(r"(\S.{1,30}?)\1{7}", re.DOTALL)
SENTENCE_END = re.compile(r"[.!?:;\n。！？]+")
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)'[^']*'(?!\w)")
CANNOT = r"(?:can(?:no|')t|can not|could not|couldn't|am (?:not able|unable) to|'m (?:not able|unable) to)"
SERVICE = (
    "answer|assist|caption|comment|complete|comply|continue|create|describe|determine|do that|"
    "engage|fulfil|fulfill|generate|give|help|identify|make out|open|process|produce|provide|"
    "read the image|recogni[sz]e|say who|see (?:any|an|the) (?:image|picture|photo)|"
    "see images|share|support|tell you|view|write|access|analy[sz]e|interpret|display"
)
REFUSALS = (
    r"(?:i(?:'m| am) (?:really |very |so )?sorry|sorry)\b"
    r"(?=,? (?:but\b|i\b|for\b|about\b|this\b)|\.|,|$)",
    r"i (?:must |do |sincerely |have to )?apologi[sz]e\b",
    r"my apologies\b",
    r"unfortunately,? (?:i|there is no (?:image|picture)|no (?:image|picture))\b",
    rf"i(?: |(?='m)){CANNOT} (?:\w+ )?(?:{SERVICE})\b",
    rf"i (?:won't|will not|must decline to|must refuse to|refuse to) (?:{SERVICE})\b",
    r"i (?:must|have to) (?:respectfully )?(?:decline|refuse)\b",
    r"i (?:do not|don't) have (?:the (?:ability|capability)|access|an image)",
    r"i (?:do not|don't) see (?:any|an) (?:image|picture)",
    r"as an? (?:ai|artificial intelligence|language model|large language model|text-based|"
    r"responsible ai)\b",
    r"i(?:'m| am) (?:just |only )?an? (?:ai|language model|large language model|text-based)\b",
    r"(?:there is|there's|i see) no (?:image|picture|photo) "
    r"(?:attached|provided|included|uploaded|to describe)",
    r"(?:no|the) (?:image|picture|photo) (?:was|is|has been|did|could|can)(?: not|n't) "
    r"(?:be )?(?:provided|attached|uploaded|load|loaded|processed|displayed|opened)",
    r"no (?:image|picture|photo) (?:was|is|has been) (?:provided|attached|uploaded|included)",
    r"(?:please|could you|can you) (?:please )?(?:provide|upload|attach|share|send) "
    r"(?:me )?(?:the|an|a|your) (?:\w+ )?(?:image|picture|photo)",
    r"it is not (?:appropriate|possible) for me to\b",
    r"(?:this|the) (?:request|content|image) (?:violates|goes against)\b",
)
REFUSAL = re.compile(rf"(?:^|[.!?:\n]\s*|, but )(?:{'|'.join(REFUSALS)})")
SYSTEMS = {  # prefixes of Unicode character names
    "latin": ("LATIN", "FULLWIDTH LATIN", "FEMININE", "MASCULINE", "MODIFIER"),
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "thai": ("THAI",),
    "chinese": ("CJK", "BOPOMOFO"),
    "japanese": ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"),
    "korean": ("HANGUL", "HALFWIDTH HANGUL", "CJK"),
}


class Checks:
    """A run's checks, with the parts of its prompts that they need."""

    def __init__(self, settings: Quality, prompts: Sequence[Prompt]) -> None:
        self.settings = settings
        self.parts = {p.name: _parts(p) for p in prompts}
        self.made = [flag for flag in FLAGS if flag in settings.flags]

    def flags(self, caption: Caption, prompt: str, *, cut: bool = False) -> list[str]:
        """The flags of one prompt's answer, in the order of FLAGS; `cut` if its fields were."""
        s, text = self.settings, caption.text
        found: dict[str, Callable[[], bool]] = {
            "truncated": lambda: caption.finish_reason == "length",
            "empty": lambda: is_empty(text),
            "short": lambda: is_short(text, s.min_characters, s.min_words),
            "repetition": lambda: is_repetitive(text, s.repeats, s.duplicated),
            "refusal": lambda: is_refusal(text),
            "echo": lambda: is_echo(text, self.parts[prompt], s.echo_words),
            "script": lambda: s.script is not None and is_foreign(text, s.script, s.script_share),
            "cut": lambda: cut,
        }
        return [flag for flag in self.made if found[flag]()]

    def bad(self, flags: Sequence[str]) -> list[str]:
        """Those of the flags that retries and quality.action act on."""
        return [flag for flag in flags if flag in self.settings.bad]


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORD.findall(text.lower())


def is_empty(text: str) -> bool:
    """No letter and no digit."""
    return not any(c.isalnum() for c in text)


def is_short(text: str, characters: int, count: int) -> bool:
    """Fewer characters, or fewer words, than these."""
    return len(text.strip()) < characters or len(words(text)) < count


def is_repetitive(text: str, repeats: int = 4, duplicated: float = 0.5) -> bool:
    """Words in a loop, characters in a loop, or too large a share of words said before."""
    found = words(text)
    return (
        _loops(found, repeats)
        or CHARACTERS.search(text) is not None
        or (len(found) > NGRAM and _duplicated(found) >= duplicated)
    )


def is_refusal(text: str) -> bool:
    """A sentence that begins as refusals do."""
    plain = QUOTED.sub("", text.lower().replace("’", "'"))
    return REFUSAL.search(plain.strip()) is not None


def is_echo(text: str, parts: Sequence[Sequence[str]], count: int = 6) -> bool:
    """`count` successive words of a sentence of the prompt, or all of a shorter one."""
    said = f" {' '.join(words(text))} "
    for part in parts:
        size = min(count, len(part))
        if size >= min(SHORTEST_ECHO, count):
            runs = (part[i : i + size] for i in range(len(part) - size + 1))
            if any(f" {' '.join(run)} " in said for run in runs):
                return True
    return False


def is_foreign(text: str, script: str, share: float = 0.2) -> bool:
    """More than `share` of the letters are of another writing system."""
    letters = [c for c in text if c.isalpha()]
    names = SYSTEMS[script]
    foreign = sum(not unicodedata.name(c, "").startswith(names) for c in letters)
    return foreign > share * len(letters)


def _parts(prompt: Prompt) -> list[list[str]]:
    """The words of the prompt's sentences between its fields, system message and text apart."""
    literals = (
        literal for text in (prompt.system or "", prompt.text) for literal in literals_of(text)
    )
    return [words(part) for literal in literals for part in SENTENCE_END.split(literal)]


def _loops(found: Sequence[str], repeats: int) -> bool:
    for unit in range(1, min(LONGEST_UNIT, len(found) // repeats) + 1):
        equal = 0  # successive words that equal the word one unit before
        for i in range(unit, len(found)):
            equal = equal + 1 if found[i] == found[i - unit] else 0
            if equal >= unit * (repeats - 1):
                return True
    return False


def _duplicated(found: Sequence[str]) -> float:
    """Share of the words that are in a later occurrence of an n-gram."""
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(found)
    for i in range(len(found) - NGRAM + 1):
        gram = tuple(found[i : i + NGRAM])
        if gram in seen:
            covered[i : i + NGRAM] = [True] * NGRAM
        seen.add(gram)
    return sum(covered) / len(found)
